# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Write values so that systemd reads exactly them: systemd.exec(5)."""

from __future__ import annotations

import json
import re
import shlex
import unicodedata

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# In double quotes an environment file knows these escapes and no other.
_ESCAPED_IN_FILE = re.compile(r'(["\\`$])')
# Before the command, "+" and "!" would run it as root and "-" would hide its failure: systemd.service(5).
_PROGRAM = re.compile(r"(/[A-Za-z0-9._+/-]+|[A-Za-z0-9_][A-Za-z0-9._+-]*)")
_SHELL = re.compile(r"(;|&&?|\|\|?|<|\d?>.*)")


def environment_line(value: object, name: str) -> str:
    """Write NAME="value" for an EnvironmentFile=, a list as JSON. Errors name the variable, never its value.

    Raises ValueError for a name that is none, and for control characters: systemd drops such a
    variable with a log message that nobody reads.
    """
    if not _VARIABLE.fullmatch(name):
        raise ValueError(f"'{name}' cannot be the name of an environment variable; use letters, digits and _")
    if isinstance(value, list):
        value = json.dumps([str(one) for one in value])
    text = _plain(value, f"the environment variable {name}")
    return f'{name}="{_ESCAPED_IN_FILE.sub(_backslash, text)}"'


def _backslash(match: re.Match[str]) -> str:
    return f"\\{match[1]}"


def unusable(text: str) -> str | None:
    """Return why systemd does not take `text` as a value, or None. The reason does not show the text."""
    if "\n" in text or "\r" in text:
        return "contains a line break, which systemd does not take; encode it in base64"
    if any(unicodedata.category(character) in {"Cc", "Cs"} for character in text):
        return "contains a control character, which systemd does not take; encode it in base64"
    return None


def no_command(line: str) -> str | None:
    """Return why a line is no command for an ExecStart=, or None."""
    if not line.strip():
        return "is empty; leave it away"
    if unusable(line):
        return "contains a line break or a control character; write a list of commands, or a script"
    try:
        words = shlex.split(line)
    except ValueError as error:
        return f"'{line}' cannot be split into words ({str(error).lower()}); mind its quotes and backslashes"
    if not words or not _PROGRAM.fullmatch(words[0]):
        return (
            f"'{line}' must begin with a program, by its name or its absolute path; "
            "write python manage.py rather than ./manage.py"
        )
    operator = next((word for word in words if _SHELL.fullmatch(word)), None)
    if operator:
        return (
            f"'{line}' is not run by a shell, which '{operator}' is for; "
            "write a list of commands, or sh -c '…'"
        )
    return None


def _plain(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{what} is not a text; put its value in quotes")
    reason = unusable(value)
    if reason:
        raise ValueError(f"{what} {reason}")
    return value
