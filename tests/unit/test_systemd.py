"""Values reach systemd as they are, or are refused without being shown."""

from __future__ import annotations

import pytest
from ansible_collections.flaskworks.server.plugins.plugin_utils.systemd import environment_line, no_command
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("on", 'NAME="on"'),
        ("", 'NAME=""'),
        (" two  words ", 'NAME=" two  words "'),
        ('it\'s "quoted"', 'NAME="it\'s \\"quoted\\""'),
        (r"C:\new", r'NAME="C:\\new"'),
        ("$HOME `id` #5 %n ; =", 'NAME="\\$HOME \\`id\\` #5 %n ; ="'),
        ("grüße 🐍", 'NAME="grüße 🐍"'),
    ],
)
def test_a_line_of_an_environment_file(value: str, line: str) -> None:
    assert environment_line(value, "NAME") == line


@pytest.mark.parametrize(
    "value", ["s3cr3t\nX=1", "s3cr3t\r", "s3cr3t\0", "s3cr3t\x1b[2J", "s3cr3t\udc80", 5, None, True]
)
def test_what_systemd_would_drop_is_refused_without_showing_it(value: object) -> None:
    with pytest.raises(ValueError, match="the environment variable NAME") as refusal:
        environment_line(value, "NAME")
    assert "s3cr3t" not in str(refusal.value)


@pytest.mark.parametrize("name", ["", "1A", "A B", "A=B", "Ä", "A\n"])
def test_a_name_must_be_one(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be the name of an environment variable"):
        environment_line("x", name)


def read_by_systemd(line: str) -> str:
    """Read NAME="…" as systemd's parse_env_file does, for double quotes."""
    body = line.removeprefix('NAME="').removesuffix('"')
    read, position = "", 0
    while position < len(body):
        if body[position] == "\\" and body[position + 1] in '"\\`$':
            position += 1
        read += body[position]
        position += 1
    return read


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"])))
def test_every_other_text_survives(value: str) -> None:
    assert read_by_systemd(environment_line(value, "NAME")) == value


@pytest.mark.parametrize(
    "line",
    [
        "flask --app hello db upgrade",
        "/usr/bin/env true",
        "sh -c 'one && two > three'",
        'python -c "print(1); print(2)"',
        "psql ${DATABASE_URL} -f schema.sql",
        "date +%s",
    ],
)
def test_a_command_that_systemd_can_run(line: str) -> None:
    assert no_command(line) is None


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("", "is empty; leave it away"),
        ("one\ntwo", "contains a line break or a control character; write a list of commands, or a script"),
        (
            "say 'hello",
            "'say 'hello' cannot be split into words (no closing quotation); mind its quotes and backslashes",
        ),
        (
            "+rm -r /srv",
            (
                "'+rm -r /srv' must begin with a program, by its name or its absolute path; "
                "write python manage.py rather than ./manage.py"
            ),
        ),
        (
            "./manage.py migrate",
            (
                "'./manage.py migrate' must begin with a program, by its name or its absolute path; "
                "write python manage.py rather than ./manage.py"
            ),
        ),
        (
            "$HOME/x",
            (
                "'$HOME/x' must begin with a program, by its name or its absolute path; "
                "write python manage.py rather than ./manage.py"
            ),
        ),
        (
            "one && two",
            "'one && two' is not run by a shell, which '&&' is for; write a list of commands, or sh -c '…'",
        ),
        (
            "one ; +two",
            "'one ; +two' is not run by a shell, which ';' is for; write a list of commands, or sh -c '…'",
        ),
        (
            "one 2>&1",
            "'one 2>&1' is not run by a shell, which '2>&1' is for; write a list of commands, or sh -c '…'",
        ),
    ],
)
def test_what_systemd_would_take_for_something_else(line: str, reason: str) -> None:
    assert no_command(line) == reason
