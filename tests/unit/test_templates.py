"""The task flaskworks.server.templates, run by a real ansible-playbook against this machine."""

from __future__ import annotations

import grp
import json
import os
import pwd
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.flaskworks.server.plugins.modules import templates

COLLECTIONS = Path(templates.__file__).parents[5]
ME = pwd.getpwuid(os.geteuid()).pw_name
MINE = grp.getgrgid(os.getegid()).gr_name


Task = dict[str, Any]


@dataclass(frozen=True)
class Play:
    """A directory with templates/ and one play of the given tasks."""

    directory: Path

    def template(self, name: str, text: str) -> None:
        path = self.directory / "templates" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    def run(self, tasks: list[Task], *options: str, **variables: Any) -> tuple[int, str, dict[str, Any]]:
        """Return the exit code, everything printed, and the registered `result` of the last task."""
        kept = self.directory / "result.json"
        kept.unlink(missing_ok=True)
        tasks = [*tasks[:-1], {**tasks[-1], "register": "result"}]
        keep = {
            "ansible.builtin.copy": {"content": "{{ result | to_json }}", "dest": str(kept)},
            "check_mode": False,
            "diff": False,
        }
        play = [{"hosts": "all", "gather_facts": False, "tasks": [*tasks, keep]}]
        (self.directory / "ansible.cfg").touch()
        (self.directory / "play.yml").write_text(json.dumps(play))
        (self.directory / "vars.json").write_text(json.dumps(variables))
        command = [
            str(Path(sys.executable).parent / "ansible-playbook"),
            "play.yml",
            "-i",
            "here,",
            "-e",
            "@vars.json",
            *options,
        ]
        environment = {
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
            "ANSIBLE_HOME": str(self.directory / ".ansible"),
            "ANSIBLE_INJECT_INVOCATION": "1",
            "ANSIBLE_PIPELINING": "1",
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_CONFIG": str(self.directory / "ansible.cfg"),
        }
        settings = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
        command += ["-e", json.dumps(settings)]
        done = subprocess.run(
            command, cwd=self.directory, env=environment, capture_output=True, text=True, check=False
        )
        result = json.loads(kept.read_text()) if kept.exists() else {}
        return done.returncode, done.stdout + done.stderr, result

    def task(self, *files: dict[str, Any], **options: Any) -> dict[str, Any]:
        """The task under test, writing into etc/ as the user who runs the tests."""
        (self.directory / "etc").mkdir(exist_ok=True)
        here = f"{self.directory}/etc"
        owned = [{"owner": ME, "group": MINE, **file, "path": f"{here}/{file['path']}"} for file in files]
        arguments = {
            "elements": "{{ sites }}",
            "element_name": "site",
            "files": owned,
            "state_directory": f"{self.directory}/state",
            **options,
        }
        return {"name": "Install", "flaskworks.server.templates": arguments}

    def read(self, name: str) -> str:
        return (self.directory / "etc" / name).read_text()

    def names(self) -> list[str]:
        return sorted(path.name for path in (self.directory / "etc").iterdir())


@pytest.fixture
def play(tmp_path: Path) -> Play:
    return Play(tmp_path)


def test_every_text_is_what_the_builtin_template_renders(play: Play) -> None:
    play.template("part.j2", "part of {{ site.name }}\n")
    play.template(
        "page.j2",
        "{{ ansible_managed | comment }}\n"
        "{% for word in site.words %}\n"
        "  word {{ word }}\n"
        "{% endfor %}\n"
        "{% include 'part.j2' %}\n"
        r"a \n backslash {{ 'b\\d' }} {{ site.raw }} {{ template_path }} {{ words_of | join(',') }}"
        "\n\n{#- gone -#}\n   {% if site.words %} spaced {% endif %}  \n"
        "ümläut {{ site.words | to_json }}\n\n",
    )
    play.template("value.j2", "{{ site.words }}")
    play.template("empty.j2", "{% if false %}x{% endif %}")
    sites = [
        {"name": "a", "words": ["x", "y"], "raw": "{{ words_of }}"},
        {"name": "b", "words": [], "raw": "\\t$HOME%n"},
    ]
    reference = [
        {
            "ansible.builtin.template": {
                "src": f"{name}.j2",
                "dest": f"{play.directory}/{name}-{site['name']}",
            },
            "vars": {"site": f"{{{{ sites[{index}] }}}}"},
        }
        for name in ("page", "value", "empty")
        for index, site in enumerate(sites)
    ]
    files = [{"template": f"{name}.j2", "path": f"{name}-{{name}}"} for name in ("page", "value", "empty")]
    code, output, _ = play.run([*reference, play.task(*files)], sites=sites, words_of=["v", "w"])
    assert code == 0, output
    assert play.names() == ["empty-a", "empty-b", "page-a", "page-b", "value-a", "value-b"]
    for name in play.names():
        assert play.read(name) == (play.directory / name).read_text()


def test_check_foretells_run_tells_and_the_second_run_is_silent(play: Play) -> None:
    play.template("site.j2", "{{ ansible_managed | comment }}\n{{ site.text }} of {{ elements | length }}\n")
    play.template("all.j2", "{{ elements | map(attribute='name') | join(' ') }}\n")
    sites = [{"name": "a", "text": "one"}, {"name": "b", "text": "two"}]
    task = play.task(
        {
            "template": "site.j2",
            "path": "{name}.conf",
            "purge": True,
            "mode": "0640",
            "validate": ["grep", "-q", "of 2", "%s"],
        },
        {"template": "all.j2", "path": "all"},
    )
    code, output, foretold = play.run([task], "--check", "--diff", sites=sites)
    assert (code, foretold["changed"], play.names()) == (0, True, []), output
    code, output, done = play.run([task], "--diff", sites=sites)
    assert code == 0, output
    assert {key: done[key] for key in ("changes", "removed", "diff")} == {
        key: foretold[key] for key in ("changes", "removed", "diff")
    }
    assert "+one of 2" in output
    assert play.names() == ["a.conf", "all", "b.conf"]
    assert play.read("all") == "a b\n"
    _, _, again = play.run([task], "--diff", sites=sites)
    assert (again["changed"], again["diff"]) == (False, [])

    code, output, _ = play.run([task], sites=sites[:1])
    assert code != 0
    assert f"a: {play.directory}/etc/a.conf was refused by 'grep'" in output
    assert play.names() == ["a.conf", "all", "b.conf"]

    loose = play.task({"template": "site.j2", "path": "{name}.conf", "purge": True, "mode": "0640"})
    _, output, purged = play.run([loose], "--diff", sites=sites[:1])
    assert purged["removed"] == [f"{play.directory}/etc/b.conf"]
    assert "-one of 2" in output
    assert "+one of 1" in output
    assert play.names() == ["a.conf", "all"]


@pytest.mark.parametrize("validate", [[], ["grep", "never", "%s"]], ids=["accepted", "refused"])
def test_sensitive_content_is_printed_nowhere(play: Play, validate: list[str]) -> None:
    play.template("secret.j2", "KEY={{ keys[site.name] }}\n")
    task = play.task(
        {"template": "secret.j2", "path": "{name}", "mode": "0600", "sensitive": True, "validate": validate}
    )
    for options in (["--check", "--diff"], ["--diff"]):
        _, output, result = play.run(
            [task], "-vvvvv", *options, sites=[{"name": "a", "note": "n0te"}], keys={"a": "s3cr3t-of-a"}
        )
        assert "s3cr3t" not in output + json.dumps(result)
        assert "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER" in output
    if not validate:
        assert play.read("a") == "KEY=s3cr3t-of-a\n"
        assert (play.directory / "etc" / "a").stat().st_mode & 0o7777 == 0o600


def test_the_host_is_asked_once_however_many_files_there_are(play: Play) -> None:
    play.template("site.j2", "{{ site.name }}\n")
    files = [{"template": "site.j2", "path": f"{{name}}.{number}"} for number in range(4)]
    for count in (1, 20):
        sites = [{"name": f"app{number}"} for number in range(count)]
        code, output, _ = play.run([play.task(*files)], "-vvv", sites=sites)
        assert code == 0, output
        asked = output[output.index("TASK [Install]") : output.index("TASK [ansible.builtin.copy]")]
        assert asked.count(" EXEC ") == 1
    assert len(play.names()) == 80


def test_mistakes_of_a_task_are_told_in_a_sentence(play: Play) -> None:
    play.template("site.j2", "{{ site.nothing }}\n")
    file = {"template": "site.j2", "path": "{name}"}
    mistakes = [
        (play.task(file), f"a: {play.directory}/etc/a cannot be rendered"),
        (play.task({**file, "mode": 0o640}), "write it like '0640'"),
        (play.task({**file, "template": "none.j2"}), "Could not find or access 'none.j2'"),
        (play.task({**file, "modus": "0640"}), "modus"),
        (play.task(file, rendered="x"), "'rendered' is set by the action itself"),
        (play.task(file, elements=[{"name": "../a"}]), "'../a' cannot be an element's name"),
    ]
    # Errors are ignored so that one run tells them all.
    tasks = [{**task, "ignore_errors": True} for task, _ in mistakes]
    code, output, _ = play.run(tasks, sites=[{"name": "a"}])
    assert code == 0
    assert output.count("FAILED!") == len(mistakes)
    for _, sentence in mistakes:
        assert sentence in output
    assert "Traceback" not in output


def options_of(documented: dict[str, Any]) -> dict[str, Any]:
    """Reduce documented options to what an argument spec says of them."""
    spec = {}
    for name, option in documented.items():
        said = ("type", "elements", "default", "required")
        spec[name] = {key: option[key] for key in said if key in option}
        if "suboptions" in option:
            spec[name]["options"] = options_of(option["suboptions"])
    return spec


def test_the_documentation_says_what_the_argument_spec_checks() -> None:
    documented = options_of(yaml.safe_load(templates.DOCUMENTATION)["options"])
    # Elements have keys of their own, which a spec of their options would refuse.
    del documented["elements"]["options"]
    checked = {
        name: {key: value for key, value in spec.items() if key != "no_log"}
        for name, spec in templates.ARGUMENTS.items()
    }
    assert documented == checked
    assert templates.ARGUMENTS["rendered"]["no_log"] is True
