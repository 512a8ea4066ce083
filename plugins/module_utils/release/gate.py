# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether a release is healthy, asked on its own socket as the proxy would ask."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Sequence
from datetime import datetime

from .. import liveness
from . import credentials
from .locking import utc
from .ports import Host, Unit
from .proof import Claim
from .request import Release, ReleaseFailure

JOURNAL_LINES = 15  # that a message shows
LATEST_LINES = 4  # of them that come after a traceback further up
JOURNAL_READ = 300  # that are read to find them
OUTPUT_READ = 64 * 1024  # bytes of a log that are
_STAMP = re.compile(r"\[(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4})\]")
PROBE_LIMIT = 10.0  # seconds for one answer
SOCKET_PAUSE = 0.02  # seconds between two looks for a socket that systemd is about to make
AGENT = "flaskworks-gate"
DOUBTS = 3  # right answers in a row from a wrong process; one may come from a service that just restarts
RESTARTS = 2  # a service that has died so often while starting is not going to be healthy


def request(release: Release) -> bytes:
    """A probe of a release."""
    return liveness.request(release.origin, release.health.path, secrets.token_hex(16), AGENT)


def pass_gate(host: Host, release: Release, name: str) -> None:
    """Return when the release has answered rightly often enough in a row; otherwise fail with the reason."""
    gate = _Gate(host, release, name)
    try:
        gate.run()
    finally:
        host.unwatch(gate.service)


class _Gate:
    """One release at the gate."""

    def __init__(self, host: Host, release: Release, name: str) -> None:
        self.host, self.release, self.name = host, release, name
        self.health = release.health
        self.service = release.units(name)[1]
        self.place = os.path.join(release.releases, name)
        self.socket = os.path.join(self.place, "gunicorn.sock")
        self.since = host.now()
        self.limit = host.clock() + self.health.timeout
        self.last = "nothing yet"
        self.peer = 0  # the process that listens on the socket
        # A count that a unit keeps while it runs, so only what is added tells something.
        self.restarts = self.look().restarts

    def look(self) -> Unit:
        self.host.unwatch(self.service)  # what was seen a moment ago will not do
        return self.host.watch(self.service)

    def dead(self) -> bool:
        unit = self.host.watch(self.service)
        self.restarts = min(self.restarts, unit.restarts)  # the start has set it back
        return unit.active == "failed" or unit.restarts - self.restarts >= RESTARTS

    def pause(self, seconds: float) -> None:
        self.host.sleep(min(seconds, max(self.limit - self.host.clock(), 0)))

    def run(self) -> None:
        probe, good, doubts = request(self.release), 0, 0
        proven = Unit()
        while good < self.health.successes:
            left = self.limit - self.host.clock()
            if left <= 0:
                raise self.failure(f"not healthy within {self.health.timeout:g} s")
            answer = self.host.probe(self.socket, probe, min(left, PROBE_LIMIT), self.dead)
            if answer.status == self.health.status:
                if good == 0 or answer.peer != self.peer:
                    proven, self.peer = self.look(), answer.peer
                    doubt = self.doubt(proven)
                    if doubt:
                        good, doubts, self.last = 0, doubts + 1, f"{answer.text}, but {doubt}"
                        if doubts >= DOUBTS:
                            raise self.failure("the answers do not come from this release")
                        self.pause(self.health.interval)
                        continue
                    self.require_secrets(proven)
                good, doubts = good + 1, 0
                if good < self.health.successes:
                    self.pause(self.health.interval)
                continue
            good, self.last = 0, answer.text
            if self.dead():
                raise self.failure("its service failed while starting")
            self.pause(self.health.interval if os.path.exists(self.socket) else SOCKET_PAUSE)
        unit = self.look()
        if unit.active == "failed" or unit.restarts > proven.restarts or unit.main != proven.main:
            raise self.failure("its service failed after the first answers")

    def doubt(self, unit: Unit) -> str | None:
        claim = Claim(self.service, unit.main, self.peer, self.place, self.name)
        return self.host.doubt(claim)

    def require_secrets(self, unit: Unit) -> None:
        """systemd can leave out what it was to load, without an error."""
        absent = credentials.missing(self.host, self.release, self.name, unit.main)
        if absent:
            raise self.failure(
                f"systemd has not given {', '.join(absent)} to its service, although the unit says so "
                "(LoadCredential=); where the host cannot do that, set secrets_via: environment"
            )

    def failure(self, what: str) -> ReleaseFailure:
        health = self.health
        return ReleaseFailure(
            f"{what}; GET {health.path} should answer {health.status}, the last answer was: {self.last}.\n"
            f"{told(self.host, self.release, self.name, self.since)}\n"
            "  What served before goes on serving. "
            "Correct the app, its configuration or its health check, and deploy again."
        )


def told(host: Host, release: Release, name: str, since: float) -> str:
    """What the service of a release said since a moment, as the indented end of a message.

    One that has said nothing (it runs since long before, or is silent) is shown by what it said earlier, or
    else by what the service manager says of it.
    """
    service = release.units(name)[1]
    lines, when = telling(host.journal(service, since - 1, JOURNAL_READ)), f" since {utc(since)}"
    lines += telling(written(release.output, since - 1))
    if not lines:
        lines, when = telling(host.journal(service, 0, JOURNAL_READ)), ""
    if not lines:
        host.unwatch(service)
        unit = host.watch(service)
        lines = [f"(none; systemd says: {unit.active} ({unit.sub}), {unit.result}, {unit.restarts} restarts)"]
    return f"  Last lines of {service}{when}:\n" + "\n".join(f"    {line}" for line in excerpt(lines))


def written(output: str, since: float) -> list[str]:
    """The lines of an app's log that were written since a moment, by whichever of its releases.

    They count from the first on that gunicorn wrote, which begins its lines with their time.
    """
    try:
        with open(output, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - OUTPUT_READ))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return []  # it goes to the journal, or nothing was said yet
    for number, line in enumerate(lines):
        stamp = _STAMP.match(line)
        if stamp and datetime.strptime(stamp[1], "%Y-%m-%d %H:%M:%S %z").timestamp() >= int(since):
            return lines[number:]
    return []


def excerpt(lines: Sequence[str]) -> list[str]:
    """The last lines; where the last traceback ended before them, its end and fewer of them.

    A service that has failed is started again at once, and what gunicorn says of that can be long.
    """
    tail = list(lines[-JOURNAL_LINES:])
    starts = [number for number, line in enumerate(lines) if line.startswith("Traceback (most recent")]
    if not starts:
        return tail
    end = next(
        (number for number in range(starts[-1] + 1, len(lines)) if not lines[number].startswith(" ")),
        len(lines) - 1,
    )
    if end >= len(lines) - JOURNAL_LINES:
        return tail
    first = max(starts[-1], end - JOURNAL_LINES + LATEST_LINES + 2)
    return [*lines[first : end + 1], "…", *lines[-LATEST_LINES:]]


def telling(lines: Sequence[str]) -> list[str]:
    """The lines of a journal that tell something about the app.

    When a worker cannot import the app, gunicorn adds two tracebacks of itself; the app's own is above them.
    """
    kept: list[str] = []
    block: list[str] | None = None
    for line in lines:
        if line.startswith("Traceback (most recent call last):"):
            kept += block or []
            block = [line]
        elif block is not None and (line.startswith(" ") or not line):
            block.append(line)
        elif block is not None:
            if not line.startswith("gunicorn.errors.HaltServer"):
                kept += [*block, line]
            block = None
        elif not line.startswith("During handling of the above exception"):
            kept.append(line)
    kept += block or []
    return [
        line
        for line in kept
        if line.strip(" ~^") and "<frozen importlib" not in line and "Scheduled restart" not in line
    ]
