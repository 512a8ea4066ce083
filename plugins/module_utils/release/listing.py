# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""List what of an app is on a host. It only reads, takes no lock, and survives what changes meanwhile."""

from __future__ import annotations

import os
from typing import Any

from . import history, ids, locking, marks, places, seal
from .ports import Host
from .request import Release, ReleaseFailure


def describe(host: Host, release: Release) -> dict[str, Any]:
    """Everything about one app. Sizes are bytes, ages are seconds, the newest release comes first.

    Raises ReleaseFailure when this may not be read.
    """
    try:
        os.listdir(release.home)
        names = places.names(release)
        switches = history.last(release.home, 1)
    except FileNotFoundError:
        names, switches = [], []
    except PermissionError as error:
        raise ReleaseFailure(
            f"{release.name}: {error.filename} may be read by root only; run this with become: true "
            "(ansible-playbook --become)"
        ) from None
    waiting = places.candidate(release) or {}
    holder = locking.held(release.home)
    sizes: dict[str, int] = {}
    held_against = marks.read(release)
    found = [_release(host, release, name, sizes, held_against) for name in reversed(names)]
    return {
        "current": places.pointer(release, "current"),
        "previous": places.pointer(release, "previous"),
        "staged": _text(waiting.get("release")),
        "lock": holder and {"who": holder.who, "what": holder.what, "since": holder.since, "pid": holder.pid},
        "last": switches[-1] if switches else None,
        "releases": [one for one in found if one],
    }


def _release(
    host: Host, release: Release, name: str, sizes: dict[str, int], held_against: dict[str, marks.Mark]
) -> dict[str, Any] | None:
    root = os.path.join(release.releases, name)
    environment = os.path.realpath(os.path.join(root, "venv"))
    if environment not in sizes:
        sizes[environment] = size(environment)
    try:
        age = max(host.now() - ids.moment(name), 0.0)
    except ValueError:  # it has the form of a moment and is none, such as the 31st of February
        age = 0.0
    known = places.record(release, name) or {}
    mark = held_against.get(str(known.get("digest")))
    told = {
        "release": name,
        "age": round(age),
        "revision": _text(known.get("revision")) or "",
        "by": _text(known.get("by")) or "",
        "size": size(root),
        "environment": os.path.basename(environment),
        "environment_size": sizes[environment],
        "mark": mark and {"state": mark.state, "told": mark.told()},
        "damage": seal.damage(root),
    }
    return told if os.path.isdir(root) else None  # another deploy may have removed it meanwhile


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def size(root: str) -> int:
    """The bytes of all files below a directory; a file with two names counts once, links are not followed."""
    total, seen, waiting = 0, set(), [root]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                        continue
                    what = entry.stat(follow_symlinks=False)
                    if what.st_ino not in seen:
                        seen.add(what.st_ino)
                        total += what.st_size
        except OSError:
            continue  # it was removed meanwhile
    return total
