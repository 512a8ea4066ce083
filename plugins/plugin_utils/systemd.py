# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Write values so that systemd reads exactly them: systemd.exec(5)."""

from __future__ import annotations

import re
import unicodedata

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# In double quotes an environment file knows these escapes and no other.
_ESCAPED_IN_FILE = re.compile(r'(["\\`$])')


def environment_line(value: object, name: str) -> str:
    """Write NAME="value" for an EnvironmentFile=. Errors name the variable, never its value.

    Raises ValueError for a name that is none, and for control characters: systemd drops such a
    variable with a log message that nobody reads.
    """
    if not _VARIABLE.fullmatch(name):
        raise ValueError(f"'{name}' cannot be the name of an environment variable; use letters, digits and _")
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


def _plain(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{what} is not a text; put its value in quotes")
    reason = unusable(value)
    if reason:
        raise ValueError(f"{what} {reason}")
    return value
