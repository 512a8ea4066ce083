# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Withdraw: stop what was staged and will not be switched to, because the play fails; and say what serves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from . import places
from .hook_units import reap_hooks
from .locking import locked
from .request import Release, ReleaseFailure
from .staging import Job, Outcome, patterns, withdraw


def give_up(job: Job, releases: Sequence[Release], staged: Mapping[str, str]) -> dict[str, Outcome]:
    """Stop the candidates of a play that fails. They stay on disk, for the next deploy.

    Never fails: it is called to say what became of another failure.
    """
    outcomes = {}
    for release in releases:
        name = staged.get(release.name)
        if name:
            try:
                with locked(job.host, replace(release, lock_wait=0), job.who, "give up"):
                    reap_hooks(job.host, release, job.host.units(patterns(release)))
                    withdraw(job, release, name)
            except (ReleaseFailure, OSError):
                pass  # another deploy holds the app by now; the candidate is its to clear away
        current = places.pointer(release, "current")
        outcomes[release.name] = Outcome(
            release=current, previous=places.pointer(release, "previous"), serves=current
        )
    return outcomes
