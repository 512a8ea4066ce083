# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Marks: which releases turned out bad or were rolled back from, so that nothing deploys them again unasked.

They are kept by digest in ``.marks.json`` and outlive the releases themselves.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from . import places
from .locking import utc
from .ports import Host
from .request import Release, ReleaseFailure

FILE = ".marks.json"
BAD = "bad"
ROLLED_BACK = "rolled back"
KEPT = 100  # marks of one app; the oldest go first


@dataclass(frozen=True)
class Mark:
    """What is held against a release.

    The id it had, ``bad`` or ``rolled back``, when (seconds since the epoch), by whom, why, and the digests
    of what it was made of.
    """

    release: str
    state: str
    at: float
    who: str
    why: str
    parts: Mapping[str, str]

    def told(self) -> str:
        """The mark as people read it."""
        what = f"marked {self.state}" if self.state == BAD else self.state
        return f"{what} by {self.who} at {utc(self.at)}" + (f" ({self.why})" if self.why else "")


def read(release: Release) -> dict[str, Mark]:
    """All marks of an app by digest. A file that cannot be read holds none."""
    try:
        with open(os.path.join(release.home, FILE), encoding="utf-8") as file:
            found = json.load(file)
        return {str(digest): _mark(one) for digest, one in found.items()}
    except (OSError, ValueError, TypeError, AttributeError, KeyError):
        return {}


def _mark(one: Mapping[str, Any]) -> Mark:
    return Mark(
        str(one["release"]),
        str(one["state"]),
        float(one["at"]),
        str(one["who"]),
        str(one["why"]),
        dict(one["parts"]),
    )


def mark(host: Host, release: Release, name: str, state: str, who: str, why: str = "") -> None:
    """Mark a release that is there, as ``bad`` or ``rolled back``. The caller holds the app's lock."""
    known = places.record(release, name) or {}
    if "digest" not in known:
        return  # nothing that a later deploy could be compared with
    found = read(release)
    found.pop(known["digest"], None)
    found[known["digest"]] = Mark(name, state, host.now(), who, why, dict(known.get("parts", {})))
    _write(host, release, found)


def unmark(host: Host, release: Release, name: str, alike: bool = False) -> None:
    """Hold nothing against a release any more; with ``alike`` nor against those that count as the same."""
    known = places.record(release, name) or {}
    found = read(release)
    kept = {
        digest: one
        for digest, one in found.items()
        if digest != known.get("digest")
        and not (alike and _code(release, one.parts) == _code(release, known.get("parts", {})))
    }
    if len(kept) < len(found):
        _write(host, release, kept)


def of(release: Release, name: str) -> Mark | None:
    """What is held against a release that is there."""
    found = read(release)
    return found.get((places.record(release, name) or {}).get("digest", "")) if found else None


def marked(release: Release, parts: Mapping[str, str]) -> Mark | None:
    """The newest mark of what is made of these parts.

    An upgraded interpreter or another unit file makes another release of the same code and settings: what was
    held against those still is.
    """
    wanted = _code(release, parts)
    alike = [one for one in read(release).values() if _code(release, one.parts) == wanted]
    return max(alike, key=lambda one: one.at, default=None)


def require_unmarked(release: Release, parts: Mapping[str, str], redeploy: Collection[str]) -> None:
    """Refuse what is marked, unless the app is named among those to deploy all the same."""
    found = None if release.name in redeploy else marked(release, parts)
    if found:
        raise ReleaseFailure(
            f"this is {found.release} again, which was {found.told()}; change the code or the configuration, "
            f"or deploy it all the same with -e flask_redeploy={release.name}"
        )


def _code(release: Release, parts: Mapping[str, str]) -> dict[str, str]:
    aside = {"environment", *(os.path.basename(path) for path in release.unit_files)}
    return {key: value for key, value in parts.items() if key not in aside}


def _write(host: Host, release: Release, found: Mapping[str, Mark]) -> None:
    newest = sorted(found.items(), key=lambda entry: entry[1].at)[-KEPT:]
    content = json.dumps({digest: asdict(one) for digest, one in newest}, indent=1).encode() + b"\n"
    places.write(host, os.path.join(release.home, FILE), content, 0o600, 0, sync=True)
