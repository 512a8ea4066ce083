# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether a release still is what was made: a list of all that lies in it, compared without reading a file.

Somebody may empty a directory, edit a file on the server, or put a disk back from a copy. A release is sealed
when it is complete, and one look at size, time, owner, mode and inode of each file tells whether it still
holds: some milliseconds for a thousand files. Of its environment, which other releases may share, only what
is needed to start is looked at.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator

from .. import environment as environments
from .. import tree
from . import places
from .ports import Host

SEAL = ".seal.json"
FORMAT = 1
CLOSED = ("src/", "static/")  # nothing may be added here; systemd and others put files beside them


def seal(host: Host, root: str) -> None:
    """Write down what lies in a release; the last step of making it."""
    content = {"format": FORMAT, "entries": dict(_entries(root))}
    places.write(host, os.path.join(root, SEAL), json.dumps(content).encode(), 0o600, 0)


def damage(root: str) -> str | None:
    """What is wrong with a release, in words; None when it is as it was made."""
    try:
        with open(os.path.join(root, SEAL), encoding="utf-8") as file:
            known = json.load(file)
        expected = dict(known["entries"]) if known["format"] == FORMAT else None
    except FileNotFoundError:
        return f"{SEAL} is missing"
    except (OSError, ValueError, TypeError, KeyError):
        return f"{SEAL} cannot be read"
    if expected is None:
        return f"{SEAL} has another format"
    try:
        for path, found in _entries(root):
            before = expected.pop(path, None)
            if before is None and path.startswith(CLOSED) and not tree.is_bytecode(path):
                return f"{path} was added"
            if before is not None and before != found:
                return f"{path} was changed"
    except OSError as error:
        return f"{error.filename} cannot be read"  # another deploy may just remove it
    if expected:
        return f"{min(expected)} is missing"
    environment = os.path.realpath(os.path.join(root, "venv"))
    return None if environments.is_complete(environment) else f"its environment {environment} is not whole"


def _entries(root: str) -> Iterator[tuple[str, list[int]]]:
    """Everything below a directory but the seal, and what is known of it without reading it."""
    yield ".", _folder(os.stat(root))
    waiting = [""]
    while waiting:
        above = waiting.pop()
        with os.scandir(os.path.join(root, above)) as found:
            for entry in found:
                path = above + entry.name
                if path == SEAL or path.startswith(SEAL + "."):
                    continue
                what = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(what.st_mode):
                    yield path, _folder(what)
                    waiting.append(path + "/")
                else:
                    yield path, [*_folder(what), what.st_size, what.st_mtime_ns, what.st_ino]


def _folder(what: os.stat_result) -> list[int]:
    return [what.st_mode, what.st_uid, what.st_gid]
