# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Proof that an answer came from the new release: from its service, its code and its environment.

A status alone proves little: a process of an older release, or one that somebody started by hand, can answer
on the socket just as well. So the kernel is asked who listens there, and what that process was started from.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

PROC = "/proc"
LISTENING = ("00010000", "0001", "01")  # flags, type and state of a stream socket in /proc/net/unix


@dataclass(frozen=True)
class Claim:
    """What has to be true of the processes behind an answer."""

    service: str  # the unit
    main: int  # its main process, 0 when it has none
    peer: int  # the process that listens where the answer came from
    place: str  # directory of the release
    release: str

    @property
    def socket(self) -> str:
        return os.path.join(self.place, "gunicorn.sock")


def doubt(claim: Claim) -> str | None:
    """What speaks against a claim, as the end of the sentence "it answered, but …"; None when nothing does.

    Files of a process that may not be read (a container without CAP_SYS_PTRACE) speak neither way.
    """
    if not claim.main:
        return f"{claim.service} has no process"
    try:
        return _origin(claim) or _started_from(claim) or _other_listener(claim)
    except (FileNotFoundError, ProcessLookupError):
        return f"the main process of {claim.service} has ended"


def _origin(claim: Claim) -> str | None:
    """Whether the process that listens belongs to the service."""
    if claim.peer == claim.main or _in_service(claim.peer, claim.service):
        return None
    if claim.peer == 1:  # the service manager made the socket, and the service takes requests from it
        with suppress(PermissionError):
            if not _holds(claim.main, _sockets(claim.socket)):
                return f"{claim.service} does not take requests from its socket"
        return None
    return f"process {claim.peer} ({_title(claim.peer)}) listens on its socket, not {claim.service}"


def _started_from(claim: Claim) -> str | None:
    """Whether the main process has the release's code, interpreter, packages and variables."""
    folder, main = f"{PROC}/{claim.main}", f"process {claim.main} of {claim.service}"
    source = os.path.join(claim.place, "src")
    environment = os.path.realpath(os.path.join(claim.place, "venv"))
    with suppress(PermissionError):
        if not _same(f"{folder}/cwd", source):
            return f"{main} runs in {os.readlink(f'{folder}/cwd')}, not in {source}"
    with suppress(PermissionError):
        if not _same(f"{folder}/exe", os.path.join(environment, "bin", "python")):
            return (
                f"{main} runs {os.readlink(f'{folder}/exe')}, which is not the interpreter of {environment}"
            )
    arguments = _read(f"{folder}/cmdline").decode(errors="replace").split("\0")
    if not any(_inside(argument, os.path.join(environment, "bin")) for argument in arguments):
        # A process that has given itself a title has lost its arguments; its packages are mapped still.
        with suppress(PermissionError):
            if f" {environment}/".encode() not in _read(f"{folder}/maps"):
                return f"{main} ({_title(claim.main)}) does not run from {environment}"
    with suppress(PermissionError):
        # The same title writes over the variables: then there is not one left.
        variables = [one for one in _read(f"{folder}/environ").split(b"\0") if b"=" in one]
        wanted = f"FLASK_RELEASE={claim.release}".encode()
        if any(one.startswith(b"FLASK_RELEASE=") for one in variables) and wanted not in variables:
            told = next(one for one in variables if one.startswith(b"FLASK_RELEASE=")).decode(
                errors="replace"
            )
            return f"{main} has the variables of another release ({told})"
        if len(variables) > 1 and wanted not in variables:
            return f"{main} has not the variables of the release (no FLASK_RELEASE)"
    return None


def _other_listener(claim: Claim) -> str | None:
    """Whether a process of the app that is not the service's takes requests from the same socket."""
    sockets = _sockets(claim.socket)
    account = os.stat(f"{PROC}/{claim.main}").st_uid
    for pid in _processes(account):
        with suppress(OSError):  # it may end while it is looked at
            if pid != claim.main and not _in_service(pid, claim.service) and _holds(pid, sockets):
                return f"process {pid} ({_title(pid)}) takes requests from its socket beside {claim.service}"
    return None


# -- what the kernel says -------------------------------------------------------------------------


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _same(one: str, other: str) -> bool:
    try:
        wanted = os.stat(other)
    except FileNotFoundError:
        return False
    return os.path.samestat(os.stat(one), wanted)


def _inside(path: str, folder: str) -> bool:
    return path.startswith("/") and os.path.realpath(os.path.dirname(path)) == folder


def _title(pid: int) -> str:
    try:
        told = _read(f"{PROC}/{pid}/cmdline") or _read(f"{PROC}/{pid}/comm")
    except OSError:
        return "it has ended"
    return told.replace(b"\0", b" ").decode(errors="replace").strip()[:80]


def _in_service(pid: int, service: str) -> bool:
    try:
        groups = _read(f"{PROC}/{pid}/cgroup").decode(errors="replace")
    except OSError:
        return False
    return any(service in line.split("/") for line in groups.splitlines())


def _sockets(path: str) -> set[str]:
    """The inodes of all sockets that listen, or did so before their file was replaced, under a path."""
    found = set()
    for line in _read(f"{PROC}/net/unix").decode(errors="replace").splitlines()[1:]:
        fields = line.split(None, 7)
        if len(fields) == 8 and fields[7] == path and (fields[3], fields[4], fields[5]) == LISTENING:
            found.add(fields[6])
    return found


def _holds(pid: int, sockets: set[str]) -> bool:
    folder = f"{PROC}/{pid}/fd"
    wanted = {f"socket:[{inode}]" for inode in sockets}
    for handle in os.listdir(folder):
        with suppress(FileNotFoundError):
            if os.readlink(f"{folder}/{handle}") in wanted:
                return True
    return False


def _processes(account: int) -> Iterator[int]:
    for name in os.listdir(PROC):
        with suppress(FileNotFoundError, ProcessLookupError):
            if name.isdigit() and os.stat(f"{PROC}/{name}").st_uid == account:
                yield int(name)
