# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Roll back: let a release serve again that is there already, through the gate and the switch of any other.

What is left is marked under the lock and before the switch, so there is no moment at which a deploy could
bring it back unasked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from . import activation, building, history, places, staging, target
from .locking import locked
from .ports import Unit
from .request import Release, ReleaseFailure
from .staging import Job, Outcome

PAUSE = 0.05  # seconds between two looks at a release that still ends its requests


def stage(job: Job, releases: Sequence[Release], to: str) -> dict[str, Outcome]:
    """Have the release to go back to run beside the one that serves, and prove it healthy.

    ``to`` is ``previous``, an id or a moment. The outcome's ``there`` are the ids that could be named.
    """
    job = replace(job, verb=history.ROLL_BACK)
    outcomes = {release.name: Outcome() for release in releases}
    units = job.host.units([pattern for release in releases for pattern in staging.patterns(release)])

    def work(release: Release) -> None:
        outcome = outcomes[release.name]
        with staging.noted(release, outcome, staging.UNTOUCHED):
            outcome.there = places.names(release)
            if job.check:
                _foresee(job, release, to, outcome, units)
                return
            with locked(job.host, release, job.who, job.verb):
                _stage_one(job, release, to, outcome)

    staging.side_by_side([partial(work, release) for release in releases])
    if any(outcome.failure for outcome in outcomes.values()):
        staging.take_back(job, releases, outcomes)
    return outcomes


def switch_back(job: Job, release: Release, left: str, why: str) -> Outcome:
    """Leave a release that turned out bad after its switch, for the one that served before it.

    Takes the app's lock, marks ``left`` as bad, and fails (ReleaseFailure, OSError) when ``left`` does not
    serve any more, or when what served before does not become healthy: ``left`` serves on then, unmarked.
    """
    job = replace(job, verb=history.SWITCH_BACK, why=why)
    outcome = Outcome()
    try:
        with locked(job.host, release, job.who, job.verb):
            current = places.pointer(release, "current")
            if current != left:
                raise ReleaseFailure(f"{left} does not serve any more, but {current}; nothing was done")
            _stage_one(job, release, target.PREVIOUS, outcome)
            if outcome.staged and outcome.release:
                outcome.staged = False
                activation.activate_one(job, release, outcome.release, outcome, None)
    finally:
        outcome.serves = places.pointer(release, "current")
    return outcome


def _foresee(
    job: Job, release: Release, to: str, outcome: Outcome, units: Mapping[str, Unit]
) -> tuple[str | None, str]:
    """Choose, and say what that means; looks only."""
    current = places.pointer(release, "current")
    chosen = target.choose(job.host, release, to)
    known = places.record(release, chosen) or {}
    outcome.release, outcome.previous = chosen, current
    outcome.revision = str(known.get("revision") or "")
    if chosen == current and all(units.get(unit, Unit()).up for unit in release.units(chosen)):
        return current, chosen
    outcome.before = building.summary(places.record(release, current)) if current else {}
    outcome.after = building.summary(known)
    outcome.changed = outcome.staged = True
    return current, chosen


def _stage_one(job: Job, release: Release, to: str, outcome: Outcome) -> None:
    host = job.host
    units = host.units(staging.patterns(release))
    current, chosen = _foresee(job, release, to, outcome, units)
    wanted, outcome.changed, outcome.staged = outcome.staged, False, False
    if staging.cancel_orders(host, release, chosen, units):
        units = host.units(staging.patterns(release))
    staging.tidy(job, release, current, chosen, units, spare_candidate=False)
    if not wanted:
        return
    units = _ended(job, release, chosen, units)
    staging.prove(job, release, outcome, chosen, current, units, made=False)


def _ended(job: Job, release: Release, name: str, units: dict[str, Unit]) -> dict[str, Unit]:
    """Wait for a release that is stopping: it would only start when its last requests have been answered.

    systemd sees to it that this ends, by the TimeoutStopSec of the service.
    """
    while any(units.get(unit, Unit()).active == "deactivating" for unit in release.units(name)):
        job.host.sleep(PAUSE)
        units = job.host.units(staging.patterns(release))
    return units
