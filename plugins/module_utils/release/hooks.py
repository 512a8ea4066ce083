# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Hooks: commands of an app that run beside a deploy, as a service of the new release would.

Each command is a unit of its own. Its settings are those of the app's service (account, sandbox, variables,
directory), its file lies where the next boot forgets it, and it ends with whatever it has started. What a
killed deploy leaves is stopped by the next one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from . import credentials, places
from .activation import require_staged
from .hook_units import describe, failure, settings_of
from .locking import locked
from .request import Release, ReleaseFailure
from .staging import Job, Outcome, noted, patterns, side_by_side


def run(job: Job, kind: str, releases: Sequence[Release], staged: Mapping[str, str]) -> dict[str, Outcome]:
    """Run the hooks of one kind of every app, for the release that was staged."""
    outcomes = {release.name: Outcome() for release in releases}

    def work(release: Release) -> None:
        outcome = outcomes[release.name]
        with noted(release, outcome), locked(job.host, release, job.who, kind):
            _run_one(job, kind, release, staged[release.name], outcome)

    side_by_side([partial(work, release) for release in releases])
    return outcomes


def _run_one(job: Job, kind: str, release: Release, name: str, outcome: Outcome) -> None:
    host = job.host
    current = places.pointer(release, "current")
    outcome.release, outcome.previous = name, current
    if kind == "after_activate":
        if current != name:
            raise ReleaseFailure(
                f"another deploy came between ({current or 'nothing'} serves), "
                f"so {kind} of {name} did not run"
            )
    else:
        require_staged(release, name, current, host.units(patterns(release)))
    service = settings_of(host.unit_text(release.units(name)[1]), name)
    settings = credentials.for_hook(release, name, service)
    begin = host.clock()
    for command in release.hooks.commands(kind):
        unit, text = describe(release, kind, name, command, settings)
        started = host.now()
        host.step(f"hook {kind}")
        ran = host.run_unit(unit, text)
        try:
            if not ran.good:
                raise failure(host, release, kind, unit, command, started, ran)
        finally:
            host.drop_unit(unit)
    outcome.changed = True
    outcome.seconds[kind] = round(host.clock() - begin, 2)
