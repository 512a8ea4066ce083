# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Switch in the call that staged, where no other host has to be healthy first."""

from __future__ import annotations

from collections.abc import Sequence

from .activation import activate
from .request import Release
from .staging import Job, Outcome


def switch(job: Job, releases: Sequence[Release], outcomes: dict[str, Outcome]) -> dict[str, Outcome]:
    """Switch to everything that was staged, when all of it is healthy.

    What kill -9 leaves behind is what it leaves behind in either half; see there.
    """
    if job.check or any(outcome.failure or outcome.missing for outcome in outcomes.values()):
        return outcomes
    waiting = [one for one in releases if one.name in outcomes and outcomes[one.name].staged]
    chosen = {release.name: str(outcomes[release.name].release) for release in waiting}
    spent = {release.name: dict(outcomes[release.name].seconds) for release in waiting}
    for name, switched in activate(job, waiting, chosen, spent).items() if waiting else ():
        outcome = outcomes[name]
        outcome.failure, outcome.serves = switched.failure, switched.serves
        outcome.seconds.update(switched.seconds)
        outcome.warning = "\n".join(filter(None, (outcome.warning, switched.warning))) or None
        outcome.staged = switched.failure is not None
    return outcomes
