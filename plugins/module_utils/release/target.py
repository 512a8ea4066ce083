# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which release a roll back goes to. Looks only."""

from __future__ import annotations

import os
from collections.abc import Iterator

from . import building, ids, marks, places, seal
from .ports import Host
from .request import Release, ReleaseFailure

PREVIOUS = "previous"


def choose(host: Host, release: Release, to: str) -> str:
    """The release that is meant; a failure that lists what is there when there is none.

    ``to`` is an id, a moment, or ``previous``: what served before, or, when that was left for a reason, the
    newest that has served before it. The answer may be what serves already, when it was named.
    """
    if to != PREVIOUS:
        return _named(host, release, to)
    for name in _former(release):
        if damage(release, name) is None:
            return name
    there = listing(host, release)
    if not there:
        raise ReleaseFailure("there is nothing to go back to: no release was deployed here yet")
    raise ReleaseFailure(
        f"there is nothing to go back to. What is there:\n{there}\n"
        "  Name one of the others with -e release=, or deploy an older version of the source."
    )


def _named(host: Host, release: Release, to: str) -> str:
    found = [name for name in places.names(release) if ids.same(name, to)]
    if not found:
        there = listing(host, release) or "  (nothing)"
        raise ReleaseFailure(f"there is no release {to} on this host. What is there:\n{there}")
    name = found[-1]
    reason = damage(release, name) if name != places.pointer(release, "current") else None
    if reason:
        raise ReleaseFailure(f"{name} cannot serve again: {reason}. What is there:\n{listing(host, release)}")
    return name


def _former(release: Release) -> Iterator[str]:
    """What may be gone back to without being named, best first."""
    current, previous = places.pointer(release, "current"), places.pointer(release, "previous")
    serving = (places.record(release, current) or {}).get("digest") if current else None
    older = [name for name in reversed(places.names(release)) if current and name < current]
    # After a kill in the middle of a switch, previous names what serves.
    for name in dict.fromkeys([previous, *older] if previous and previous != current else older):
        known = places.record(release, name) or {}
        if known.get("digest") == serving:
            continue  # the same once more, made because one of them was damaged
        if (name == previous or places.served(release, name)) and not marks.of(release, name):
            yield name


def damage(release: Release, name: str) -> str | None:
    """Why a release cannot serve again, if that can be seen."""
    if not building.flushed(release, name):
        return "it was never written to the disk as a whole"
    return seal.damage(os.path.join(release.releases, name))


def listing(host: Host, release: Release) -> str:
    """All releases that are there, newest first: id, age, revision, and what is known of them."""
    current, previous = places.pointer(release, "current"), places.pointer(release, "previous")
    lines = []
    for name in reversed(places.names(release)):
        known = places.record(release, name) or {}
        mark = marks.of(release, name)
        said = [
            "serves" if name == current else "",
            "served before" if name == previous and name != current else "",
            mark.told() if mark and name != current else "",
            "never served" if name != current and not places.served(release, name) else "",
        ]
        revision = str(known.get("revision") or "no revision")[:12]
        old = ids.age(host.now() - ids.moment(name))
        lines.append(f"    {name}  {old:>6}  {revision:<12}  {', '.join(filter(None, said))}".rstrip())
    return "\n".join(lines)
