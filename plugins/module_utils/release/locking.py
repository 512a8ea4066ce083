# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One deploy at a time per app, and everybody can see whose it is.

The kernel drops the lock when its holder ends, however it ends, so a stale lock cannot exist.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from .ports import Host
from .request import Release, ReleaseFailure

LOCK = ".lock"


def utc(seconds: float) -> str:
    """A time as people read it."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


@contextmanager
def locked(host: Host, release: Release, who: str, what: str) -> Iterator[bool]:
    """Hold the app's lock; wait for it at most ``lock_wait`` seconds. Says whether another one held it."""
    path = os.path.join(release.home, LOCK)
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        raise ReleaseFailure(
            f"{release.home} does not exist; provision the host first "
            "(the role flaskworks.server.app makes it)"
        ) from None
    try:
        limit = host.clock() + release.lock_wait
        waited = False
        while not _try(handle):
            waited = True
            if host.clock() >= limit:
                whose = holder(release.home) or "another deploy"
                raise ReleaseFailure(
                    f"locked by {whose}; waited {release.lock_wait:.0f} s: "
                    "run again when that deploy has ended"
                )
            host.sleep(0.1)
        content = json.dumps({"who": who, "what": what, "since": utc(host.now()), "pid": os.getpid()})
        os.ftruncate(handle, 0)
        with suppress(OSError):  # a full disk must not keep anybody from finding nothing to do
            os.pwrite(handle, content.encode(), 0)
        yield waited
        os.ftruncate(handle, 0)
    finally:
        os.close(handle)


def _try(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@dataclass(frozen=True)
class Holder:
    """Who has locked an app, as that process wrote it down itself."""

    who: str
    what: str
    since: str
    pid: int

    def __str__(self) -> str:
        return f"{self.who} since {self.since} ({self.what}, process {self.pid})"


def holder(home: str) -> Holder | None:
    """What the lock of the app in a directory says; None when that cannot be read.

    A killed process leaves its name behind: ``held`` tells whether it still holds the lock.
    """
    try:
        with open(os.path.join(home, LOCK), encoding="utf-8") as file:
            said = json.load(file)
        return Holder(str(said["who"]), str(said["what"]), str(said["since"]), int(said["pid"]))
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


def held(home: str) -> Holder | None:
    """Who holds the lock right now. Takes no lock to find out, so no deploy has to wait for the question."""
    found = holder(home)
    if found is None:
        return None
    try:
        lock = os.stat(os.path.join(home, LOCK))
        for handle in os.scandir(f"/proc/{found.pid}/fd"):
            try:
                if os.path.samestat(os.stat(handle.path), lock):
                    return found
            except OSError:
                continue
    except OSError:
        pass
    return None
