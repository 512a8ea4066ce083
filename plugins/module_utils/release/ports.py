# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The outside of a host, behind one small interface: service manager, journal, sockets, clock, accounts.

Tests put another implementation in its place and need neither root nor systemd.
"""

from __future__ import annotations

import grp
import os
import select
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from . import proof

RUNTIME_UNITS = "/run/systemd/system"
WATCH_EVERY = 0.25  # seconds between two looks at the service manager, however many apps wait
BODY_SHOWN = 200  # characters of a body that a message shows
BODY_PAUSE = 0.2  # seconds to wait for (more of) a body that is only shown


_SHOWN = (
    "Id",
    "ActiveState",
    "SubState",
    "Result",
    "NRestarts",
    "MainPID",
    "ExecMainStartTimestampMonotonic",
)
_CREDENTIALS = struct.Struct("3i")  # process, user and group of who listens: unix(7), SO_PEERCRED


@dataclass(frozen=True)
class Unit:
    """What the service manager says of a unit."""

    active: str = "inactive"
    sub: str = "dead"
    result: str = "success"
    restarts: int = 0
    main: int = 0  # its main process
    started: float = 0.0  # when that began, by the clock that never runs backwards

    @property
    def up(self) -> bool:
        return self.active in ("active", "reloading")

    @property
    def present(self) -> bool:
        """Whether something runs, starts or has failed under this name."""
        return self.active not in ("inactive", "deactivating")


@dataclass(frozen=True)
class Ran:
    """How a unit's command ended: systemd's word for it, its status or signal; or why it could not start."""

    result: str = "success"
    status: int = 0
    refused: str = ""

    @property
    def good(self) -> bool:
        return self.result == "success" and not self.refused


@dataclass(frozen=True)
class Answer:
    """What a probe got: a status, or in words why there is none; and the process that listens there."""

    status: int | None
    text: str
    peer: int = 0


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, whatever that is; it gets no input."""
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False
    )


class Host:
    """The real host."""

    def __init__(self) -> None:
        self._watch = threading.Lock()
        self._watched: set[str] = set()
        self._seen: dict[str, Unit] = {}
        self._looked = 0.0

    # -- time --------------------------------------------------------------------------------------

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def clock(self) -> float:
        """Seconds that never run backwards."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    # -- accounts and steps ------------------------------------------------------------------------

    def group(self, name: str) -> int:
        """The number of a group; KeyError when there is none."""
        return grp.getgrnam(name).gr_gid

    def own(self, path: str | int, gid: int) -> None:
        """Give a path to root and a group."""
        os.chown(path, 0, gid, **({} if isinstance(path, int) else {"follow_symlinks": False}))

    def room(self, path: str) -> tuple[int, int | None]:
        """Bytes and files that still fit on the file system of a path; None where it does not count files."""
        found = os.statvfs(path)
        return found.f_bavail * found.f_frsize, found.f_favail if found.f_files else None

    def step(self, name: str) -> None:
        """Called before every change of the host; tests stop here as kill -9 would."""

    # -- service manager ---------------------------------------------------------------------------

    def _systemctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return _run("systemctl", *arguments)

    def units(self, patterns: Sequence[str]) -> dict[str, Unit]:
        """Every loaded unit that matches a pattern."""
        listed = self._systemctl(
            "list-units", "--all", "--plain", "--no-legend", "--no-pager", "--full", *patterns
        )
        found = {}
        for line in listed.stdout.splitlines():
            fields = line.split(None, 4)
            if len(fields) >= 4:
                found[fields[0]] = Unit(active=fields[2], sub=fields[3])
        return found

    def start(self, units: Sequence[str]) -> str | None:
        """Begin to start units; in words why that cannot be, else None."""
        done = self._systemctl("start", "--no-block", *units)
        return done.stderr.strip() if done.returncode else None

    def stop(self, units: Sequence[str]) -> None:
        """Begin to stop units and let them finish what they are doing."""
        if units:
            self._systemctl("stop", "--no-block", *units)

    def kill(self, units: Sequence[str]) -> None:
        """Stop units which nobody uses, at once, and forget that they failed."""
        self._systemctl("stop", "--no-block", *units)
        self._systemctl("kill", "--signal=SIGKILL", *(unit for unit in units if unit.endswith(".service")))
        self._systemctl("stop", *units)
        self._systemctl("reset-failed", *units)

    def forget_failures(self, units: Sequence[str]) -> None:
        """Let units start again that failed too often."""
        self._systemctl("reset-failed", *units)

    def later(self, name: str, seconds: float, script: str, description: str) -> str | None:
        """Run a shell script some time from now, whatever becomes of this process; else say why not.

        The script holds no dollar sign: systemd would expand it.
        """
        done = _run(
            "systemd-run",
            "--quiet",
            "--collect",
            f"--unit={name}",
            f"--description={description}",
            f"--on-active={seconds:.3f}s",
            "--timer-property=AccuracySec=100ms",
            "/bin/sh",
            "-c",
            script,
        )
        return done.stderr.strip() if done.returncode else None

    def cancel(self, names: Iterable[str]) -> None:
        """Take back what was to run later."""
        units = [f"{name}.timer" for name in names]
        if units:
            self._systemctl("stop", *units)

    def unit_text(self, unit: str) -> str:
        """The file of a unit and what was dropped in, one after the other."""
        return self._systemctl("cat", "--no-pager", unit).stdout

    def run_unit(self, name: str, text: str) -> Ran:
        """Run a unit of type oneshot until it ends. A new name needs no reload of the service manager."""
        with open(os.path.join(RUNTIME_UNITS, name), "w", encoding="utf-8") as file:
            file.write(text)
        done = self._systemctl("start", name)
        if done.returncode == 0:
            return Ran()
        shown = self._systemctl("show", "--property=Result,ExecMainStatus", name).stdout
        values = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
        result = values.get("Result", "success")
        refused = done.stderr.strip() if result == "success" else ""
        return Ran(result, int(values.get("ExecMainStatus") or 0), refused)

    def runtime_units(self) -> list[str]:
        """The names of the units whose files the next boot forgets, loaded or not."""
        try:
            return os.listdir(RUNTIME_UNITS)
        except FileNotFoundError:
            return []

    def drop_unit(self, name: str) -> None:
        """End a unit that `run_unit` has started, whatever it is doing, and forget it."""
        self._systemctl("stop", name)
        self._systemctl("reset-failed", name)
        with suppress(FileNotFoundError):
            os.unlink(os.path.join(RUNTIME_UNITS, name))

    def watch(self, unit: str) -> Unit:
        """The state of a service, at most a quarter of a second old; one question for all apps that wait."""
        with self._watch:
            if unit not in self._watched or self.clock() - self._looked > WATCH_EVERY:
                self._watched.add(unit)
                self._seen = self._show(sorted(self._watched))
                self._looked = self.clock()
            return self._seen.get(unit, Unit())

    def unwatch(self, unit: str) -> None:
        with self._watch:
            self._watched.discard(unit)

    def _show(self, units: Sequence[str]) -> dict[str, Unit]:
        shown = self._systemctl("show", "--property=" + ",".join(_SHOWN), *units)
        found = {}
        for block in shown.stdout.split("\n\n"):
            values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
            if "Id" in values:
                found[values["Id"]] = Unit(
                    values.get("ActiveState", ""),
                    values.get("SubState", ""),
                    values.get("Result", ""),
                    int(values.get("NRestarts") or 0),
                    int(values.get("MainPID") or 0),
                    int(values.get("ExecMainStartTimestampMonotonic") or 0) / 1_000_000,
                )
        return found

    def journal(self, unit: str, since: float, lines: int) -> list[str]:
        """The last lines that a unit has logged since a time."""
        _run("journalctl", "--sync")
        read = _run(
            "journalctl",
            f"--unit={unit}",
            f"--since=@{since:.3f}",
            f"--lines={lines}",
            "--output=cat",
            "--no-pager",
            "--quiet",
        )
        return read.stdout.splitlines()

    def seen(self, process: int, path: str) -> bytes | None:
        """A file as a process sees it; None where it sees none."""
        try:
            with open(f"/proc/{process}/root{path}", "rb") as file:
                return file.read()
        except OSError:
            return None

    # -- probes ------------------------------------------------------------------------------------

    def probe(self, path: str, request: bytes, seconds: float, abandon: Callable[[], bool]) -> Answer:
        """Send one request to a socket and read the status of the answer, with the first words of a refusal.

        Waits at most so many seconds, and no longer once ``abandon`` says that there is nothing to wait for.
        """
        limit = self.clock() + seconds
        peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            peer.settimeout(max(seconds, 0.01))
            peer.connect(path)
            listener = _CREDENTIALS.unpack(
                peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            )[0]
            peer.sendall(request)
            received = b""
            while b"\r\n" not in received and len(received) < 65536:
                left = limit - self.clock()
                ready, _, _ = select.select([peer], [], [], min(max(left, 0), WATCH_EVERY))
                if not ready and left <= WATCH_EVERY:
                    return Answer(None, f"no answer within {seconds:.1f} s")
                if not ready and abandon():
                    return Answer(None, "no answer")
                if not ready:
                    continue
                part = peer.recv(65536)
                if not part:
                    return Answer(None, "the connection was closed without an answer")
                received += part
            line = received.split(b"\r\n", 1)[0].decode("latin-1")
            fields = line.split(" ", 2)
            if len(fields) < 2 or not fields[0].startswith("HTTP/") or not fields[1].isdigit():
                return Answer(None, f"not an HTTP answer: {line[:80]}", listener)
            shown = "" if fields[1].startswith("2") else _beginning(peer, received)
            return Answer(int(fields[1]), " ".join(fields[1:]) + shown, listener)
        except FileNotFoundError:
            return Answer(None, "the socket is not there yet")
        except OSError as error:
            return Answer(None, f"no connection: {error.strerror or error}")
        finally:
            peer.close()

    def doubt(self, claim: proof.Claim) -> str | None:
        """What speaks against the claim that an answer came from a release."""
        return proof.doubt(claim)


def _beginning(peer: socket.socket, received: bytes) -> str:
    """The first words of a body, on one line; what has not come after a moment is not waited for."""
    while len(received) < 8192 and select.select([peer], [], [], BODY_PAUSE)[0]:
        part = peer.recv(8192)
        if not part:
            break
        received += part
    head, _, body = received.partition(b"\r\n\r\n")
    if b"transfer-encoding: chunked" in head.lower():
        body = body.partition(b"\r\n")[2].partition(b"\r\n")[0]
    text = "".join(letter if letter.isprintable() else " " for letter in body.decode(errors="replace"))
    text = " ".join(text.split())
    return f", {text[:BODY_SHOWN]!r}" if text else ""
