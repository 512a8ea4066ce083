# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What has served, since when and by whom: one line of JSON for every switch, in ``history.jsonl`` of an app.

It tells people what happened and decides nothing, so it never fails a deploy. A line that was torn, by a kill
or by a loss of power, is dropped by readers and cut off by the next writer.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from . import places
from .ports import Host
from .request import Release

FILE = "history.jsonl"
TAIL = 65536  # bytes at the end of a file in which its last lines are looked for; a line has about 300
DEPLOY, ROLL_BACK, SWITCH_BACK = "deploy", "roll back", "switch back"


def path(home: str) -> str:
    """Where the history of the app in a directory is."""
    return os.path.join(home, FILE)


def append(
    host: Host,
    release: Release,
    what: str,
    who: str,
    old: str | None,
    new: str,
    seconds: Mapping[str, float],
) -> str | None:
    """Note a switch, under the app's lock; in words why that cannot be, else None."""
    known = places.record(release, new) or {}
    line = {
        "at": datetime.fromtimestamp(host.now(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "what": what,
        "who": who,
        "from": old,
        "to": new,
        "revision": str(known.get("revision") or ""),
        "seconds": dict(seconds),
    }
    host.step("append history")
    try:
        _append(path(release.home), json.dumps(line).encode() + b"\n")
    except OSError as error:
        return f"{release.name}: {new} serves, but its history was not written ({error.strerror or error})"
    return None


def _append(name: str, line: bytes) -> None:
    handle = os.open(name, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        size = os.fstat(handle).st_size
        begin = max(size - TAIL, 0)
        torn = os.pread(handle, size - begin, begin).rpartition(b"\n")[2]
        if torn and _parsed(torn) is None and len(torn) < TAIL:
            size -= len(torn)
            os.ftruncate(handle, size)
        elif torn:
            line = b"\n" + line
        written = os.write(handle, line)
        if written != len(line):  # the disk is full: half a line helps nobody
            os.ftruncate(handle, size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)
    finally:
        os.close(handle)


def last(home: str, count: int) -> list[dict[str, Any]]:
    """The last switches of the app in a directory, oldest first; PermissionError when it may not be read."""
    try:
        with open(path(home), "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - TAIL, 0))
            tail = file.read()
    except PermissionError:
        raise
    except OSError:
        return []
    found = [one for one in map(_parsed, tail.splitlines()) if one is not None]
    return found[-count:] if count > 0 else []


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    whole = isinstance(found, dict) and isinstance(found.get("to"), str) and isinstance(found.get("at"), str)
    return found if whole else None
