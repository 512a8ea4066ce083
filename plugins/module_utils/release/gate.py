# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether a staged release is healthy, asked on its own socket as the proxy would ask."""

from __future__ import annotations

import os
from collections.abc import Sequence

from .locking import utc
from .ports import Host, Unit
from .request import Release, ReleaseFailure

JOURNAL_LINES = 15  # that a message shows
JOURNAL_READ = 300  # that are read to find them
PROBE_LIMIT = 10.0  # seconds for one answer
SOCKET_PAUSE = 0.02  # seconds between two looks for a socket that systemd is about to make
RESTARTS = 2  # a service that has died so often while starting is not going to be healthy


def request(release: Release) -> bytes:
    """A probe: the headers that the proxy sets for a client who asks over HTTPS."""
    host = release.canonical
    lines = (
        f"GET {release.health.path} HTTP/1.1",
        f"Host: {host}",
        "X-Forwarded-For: 127.0.0.1",
        "X-Forwarded-Proto: https",
        f"X-Forwarded-Host: {host}",
        "X-Forwarded-Port: 443",
        "X-Real-IP: 127.0.0.1",
        "User-Agent: flaskworks-gate",
        "Accept: */*",
        "Connection: close",
    )
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def pass_gate(host: Host, release: Release, name: str) -> None:
    """Return when the release has answered rightly often enough in a row; otherwise fail with the reason."""
    health, begin, started = release.health, host.clock(), host.now()
    service = release.units(name)[1]
    limit = begin + health.timeout
    path = os.path.join(release.releases, name, "gunicorn.sock")
    probe = request(release)

    def look() -> Unit:
        host.unwatch(service)  # what was seen a moment ago will not do
        return host.watch(service)

    restarts = (
        look().restarts
    )  # a count that a unit keeps while it runs, so only what is added tells something

    def dead() -> bool:
        nonlocal restarts
        unit = host.watch(service)
        restarts = min(restarts, unit.restarts)  # the start has set it back
        return unit.active == "failed" or unit.restarts - restarts >= RESTARTS

    last, good, since = "nothing yet", 0, 0
    try:
        while good < health.successes:
            left = limit - host.clock()
            if left <= 0:
                raise _failure(
                    host, release, service, started, f"not healthy within {health.timeout:g} s", last
                )
            answer = host.probe(path, probe, min(left, PROBE_LIMIT), dead)
            if answer.status == health.status:
                good += 1
                if good == 1:
                    since = look().restarts
                if good < health.successes:
                    host.sleep(min(health.interval, max(limit - host.clock(), 0)))
                continue
            good, last = 0, answer.text
            if dead():
                raise _failure(host, release, service, started, "its service failed while starting", last)
            waiting = not os.path.exists(path)
            host.sleep(min(SOCKET_PAUSE if waiting else health.interval, max(limit - host.clock(), 0)))
        unit = look()
        if unit.active == "failed" or unit.restarts > since:
            raise _failure(
                host, release, service, started, "its service failed after the first answers", last
            )
    finally:
        host.unwatch(service)


def _failure(
    host: Host, release: Release, service: str, since: float, what: str, last: str
) -> ReleaseFailure:
    lines = telling(host.journal(service, since - 1, JOURNAL_READ))[-JOURNAL_LINES:]
    told = "\n".join(f"    {line}" for line in lines) or "    (nothing)"
    return ReleaseFailure(
        f"{what}; GET {release.health.path} should answer {release.health.status}, "
        f"the last answer was: {last}.\n"
        f"  Last lines of {service} since {utc(since)}:\n{told}\n"
        "  What served before goes on serving. "
        "Correct the app, its configuration or its health check, and deploy again."
    )


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
