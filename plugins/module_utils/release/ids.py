# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Names of releases: the moment (UTC) when the deploy began, and the first digits of the digest.

The moment is the same on all hosts of a deploy, the digits need not be: what depends on a secret is digested
with a key of each host's own. So a moment names a release everywhere.
"""

from __future__ import annotations

import re
from datetime import datetime
from time import gmtime, strftime

MOMENT = "%Y%m%dT%H%M%SZ"
_MOMENT = re.compile(r"\d{8}T\d{6}Z")
_ID = re.compile(_MOMENT.pattern + "-[0-9a-f]{10}")
_STEPS = (("d", 86400), ("h", 3600), ("min", 60))


def is_id(text: str) -> bool:
    """Whether a text is the whole name of a release, with a moment that there is in a calendar."""
    if _ID.fullmatch(text) is None:
        return False
    try:
        moment(text)
    except ValueError:
        return False
    return True


def make(seconds: float, digest: str) -> str:
    """The name of a release whose deploy began so many seconds since the epoch."""
    return f"{strftime(MOMENT, gmtime(seconds))}-{digest[:10]}"


def moment(name: str) -> float:
    """The moment in a name, or a moment alone, in seconds since the epoch; ValueError when it is none."""
    text = name.partition("-")[0]
    if _MOMENT.fullmatch(text) is None:
        raise ValueError(f"{text!r} is not the moment of a release")
    return datetime.fromisoformat(text).timestamp()


def same(name: str, wanted: str) -> bool:
    """Whether a release is the one that a whole name or a moment means."""
    return wanted in (name, name.partition("-")[0])


def age(seconds: float) -> str:
    """A time span in its largest whole unit: ``40 s``, ``5 min``, ``3 h``, ``2 d``."""
    for unit, length in _STEPS:
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return f"{max(int(seconds), 0)} s"
