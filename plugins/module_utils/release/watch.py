# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Watch what was switched to for a while, and switch back by itself when it gets into trouble.

The app's lock is not held meanwhile: a deploy or a roll back that comes between ends the watch. So does
kill -9, and what serves then goes on serving.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial

from . import places, rollback
from .gate import PROBE_LIMIT, request, told
from .ports import Host, Unit
from .request import Release, ReleaseFailure, in_words
from .staging import Job, Outcome, side_by_side

PAUSE = 0.5  # seconds between two probes, unless the app's own interval is longer
FAILED = 3  # failed probes in a row that are trouble; one may be lost on a machine that is busy


def watch(
    job: Job, releases: Sequence[Release], live: Mapping[str, str], elapsed: float = 0
) -> dict[str, Outcome]:
    """Watch the live releases side by side, each for as long as its app says.

    ``live`` are their ids by app, ``elapsed`` the seconds that have passed since the switch at least. The
    outcome's ``failure`` tells what the trouble was and what serves now.
    """
    outcomes = {release.name: Outcome(release=live[release.name]) for release in releases}

    def work(release: Release) -> None:
        outcome, name, begin = outcomes[release.name], live[release.name], job.host.now()
        try:
            trouble = _Watch(job.host, release, name, elapsed).trouble()
        finally:
            job.host.unwatch(release.units(name)[1])
        if trouble:
            outcome.trouble = trouble
            said = told(job.host, release, name, begin)
            outcome.failure = (
                f"{release.name}: {name} got into trouble after the switch: {trouble}.\n{said}\n"
                f"  {_leave(job, release, name, trouble, outcome)}"
            )
        outcome.serves = places.pointer(release, "current")

    side_by_side([partial(work, release) for release in releases], workers=len(releases))
    return outcomes


def withdraw(
    job: Job, releases: Sequence[Release], live: Mapping[str, str], why: Mapping[str, str]
) -> dict[str, Outcome]:
    """Switch back what got into trouble on another host. What cannot be is a warning: the play has failed."""
    outcomes = {release.name: Outcome(release=live[release.name]) for release in releases}

    def work(release: Release) -> None:
        outcome = outcomes[release.name]
        said = _leave(job, release, live[release.name], why[release.name], outcome)
        if not outcome.changed:
            outcome.warning = f"{release.name}: {said}"
        outcome.serves = places.pointer(release, "current")

    side_by_side([partial(work, release) for release in releases])
    return outcomes


def _leave(job: Job, release: Release, name: str, why: str, outcome: Outcome) -> str:
    """Switch back; what came of it in words."""
    try:
        back = rollback.switch_back(job, release, name, why)
    except (ReleaseFailure, OSError) as error:
        reason = in_words(error) if isinstance(error, OSError) else str(error)
        serves = places.pointer(release, "current")
        return f"It was not switched back: {reason}\n  {serves} serves."
    outcome.changed, outcome.previous, outcome.warning = True, name, back.warning
    return (
        f"It was switched back to {back.release}, and {name} is marked bad. Correct the app or its "
        f"configuration and deploy again, or ship it all the same with -e flask_redeploy={release.name}"
    )


class _Watch:
    """One live release, watched."""

    def __init__(self, host: Host, release: Release, name: str, elapsed: float) -> None:
        self.host, self.release, self.name = host, release, name
        self.service = release.units(name)[1]
        self.socket = os.path.join(release.releases, name, "gunicorn.sock")
        self.end = host.clock() + release.watch
        self.pause = max(PAUSE, release.health.interval)
        self.first = self.look()
        self.again = host.clock() - self.first.started < elapsed

    def look(self) -> Unit:
        self.host.unwatch(self.service)  # what was seen a moment ago will not do
        return self.host.watch(self.service)

    def ended(self, unit: Unit) -> str | None:
        """What is wrong with the service."""
        if unit.active == "failed":
            return f"its service failed ({unit.result})"
        if self.again or unit.restarts > self.first.restarts or (unit.main and unit.main != self.first.main):
            return "its service ended and was started again"
        return None if unit.up else f"its service does not run ({unit.active}, {unit.result})"

    def trouble(self) -> str | None:
        """What went wrong within the time of the watch; None when nothing did, or another switch came."""
        probe, failed = request(self.release), 0
        while places.pointer(self.release, "current") == self.name:
            # Twice: the service manager may be too busy to answer, and that is no trouble of the app.
            if self.ended(self.host.watch(self.service)) and (ended := self.ended(self.look())):
                return ended
            answer = self.host.probe(self.socket, probe, PROBE_LIMIT, self.dead)
            if answer.status == self.release.health.status:
                failed = 0
                if self.host.clock() >= self.end:
                    return None
            else:
                failed += 1
                if failed >= FAILED:
                    health = self.release.health
                    return self.ended(self.look()) or (
                        f"GET {health.path} should answer {health.status} and did not, {FAILED} times in a "
                        f"row; the last answer was: {answer.text}"
                    )
            self.host.sleep(self.pause)
        return None

    def dead(self) -> bool:
        return self.ended(self.host.watch(self.service)) is not None
