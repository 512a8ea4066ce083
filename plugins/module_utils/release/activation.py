# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Activate: let what was staged serve.

Order of events for one app, and what kill -9 leaves behind at each point:

1. start the new release at boot       both start at boot; the next deploy puts that right
2. ``previous`` names the old one      the old release serves
3. order the old one to stop later     the order looks before it acts: what serves is never stopped
4. ``current`` names the new one       the new release serves, the old one stops by the order of 3
   (when that took long: order anew)   the same, or the next deploy stops it
5. start the old one no more at boot   put right by the next deploy
6. prune                               hidden leftovers, removed by the next deploy
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Mapping, Sequence
from functools import partial

from . import building, history, marks, places, seal
from .locking import locked, utc
from .ports import Unit
from .request import Release, ReleaseFailure
from .staging import Job, Outcome, cancel_orders, drain, held, noted, patterns, running, side_by_side

SWITCH = 0.25  # seconds that a switch may take before the end of the old release is ordered anew
# How what served is marked, by what it is left for.
LEFT = {history.ROLL_BACK: marks.ROLLED_BACK, history.SWITCH_BACK: marks.BAD}


def activate(
    job: Job,
    releases: Sequence[Release],
    staged: Mapping[str, str],
    spent: Mapping[str, Mapping[str, float]] | None = None,
) -> dict[str, Outcome]:
    """Switch every app to the release that was staged for it.

    ``spent`` are the seconds that staging took, by app: they go into the history.
    """
    spent = spent or {}
    outcomes = {release.name: Outcome(seconds=dict(spent.get(release.name, {}))) for release in releases}
    units = job.host.units([pattern for release in releases for pattern in patterns(release)])

    def work(release: Release) -> None:
        outcome = outcomes[release.name]
        with noted(release, outcome), locked(job.host, release, job.who, "activate") as waited:
            activate_one(job, release, staged[release.name], outcome, None if waited else units)

    side_by_side([partial(work, release) for release in releases])
    return outcomes


def activate_one(
    job: Job, release: Release, name: str, outcome: Outcome, seen: Mapping[str, Unit] | None
) -> None:
    """Switch one app to what was staged for it; ``seen`` are its units. The caller holds the app's lock."""
    host = job.host
    old = places.pointer(release, "current")
    units = seen
    if units is None or running(release, units) - {old, name}:
        units = host.units(patterns(release))  # what was seen before the lock was held will not do
    outcome.release, outcome.previous = name, old
    require_staged(release, name, old, units)
    waiting = places.candidate(release) or {}
    verb = str(waiting.get("verb") or history.DEPLOY)
    wait = held(release) if verb == history.DEPLOY else 0  # nothing else is watched
    begin = ordered = host.clock()
    places.enable(host, release, job.places, name)
    if old != name:
        if old is not None:
            if verb in LEFT:
                marks.mark(host, release, old, LEFT[verb], job.who, str(waiting.get("why", "")))
            cancel_orders(host, release, old, units)
            if not _twins(old, name):  # it was damaged: nobody shall go back to it
                places.point(host, release, "previous", old)
            host.step("order drain")
            ordered = host.clock()
            drain(host, release, old, SWITCH + wait)
        places.note_served(host, release, name)
        places.point(host, release, "current", name)
        places.sync_directory(release.home)
        outcome.changed = True
        if old is not None and host.clock() - ordered > SWITCH:  # the linger counts from the switch
            host.step("order drain anew")
            host.cancel([release.drain(old)])
            drain(host, release, old, wait)
    if release.expiry(name) + ".timer" in units:  # it looks before it acts, but this may not serve for ever
        host.cancel([release.expiry(name)])
    outcome.seconds["switch"] = round(host.clock() - begin, 3)
    if outcome.changed:
        outcome.warning = history.append(host, release, verb, job.who, old, name, outcome.seconds)
    places.disable_others(host, release, job.places, [name])
    places.nominate(host, release, None, job.who)
    marks.unmark(host, release, name, alike=verb == history.DEPLOY)  # somebody wanted it all the same
    prune(job, release, units)


def require_staged(release: Release, name: str, current: str | None, units: Mapping[str, Unit]) -> None:
    """Refuse what is not staged any more, because another deploy came between."""
    if name == current:
        return
    waiting = places.candidate(release)
    if waiting is None or waiting["release"] != name:
        if waiting:
            instead = (
                f"{waiting.get('who')} staged {waiting['release']} at {utc(float(waiting.get('at', 0)))}"
            )
        else:
            instead = f"{current or 'nothing'} serves"
        raise ReleaseFailure(
            f"another deploy came between ({instead}), so {name} was not activated; deploy again"
        )
    if places.record(release, name) is None:
        raise ReleaseFailure(f"release {name} was staged but is not there any more; deploy again")
    damage = seal.damage(os.path.join(release.releases, name))
    if damage:
        raise ReleaseFailure(f"release {name} was damaged since it was staged ({damage}); deploy again")
    for unit in release.units(name):
        if not units.get(unit, Unit()).up:
            raise ReleaseFailure(
                f"{unit} was healthy when it was staged but is not running now, so {name} was not activated; "
                f"see journalctl -u {unit}, and deploy again"
            )


def _twins(one: str, other: str) -> bool:
    """Whether two releases are made of the same: one was built because the other is damaged, or ending."""
    return one.rpartition("-")[2] == other.rpartition("-")[2]


def _damaged(release: Release, name: str) -> bool:
    return seal.damage(os.path.join(release.releases, name)) is not None


def prune(job: Job, release: Release, units: Mapping[str, Unit]) -> None:
    """Remove releases beyond ``keep_releases``, those never flushed, and environments that no release uses.

    Never what serves, what served before, what waits for its activation, or what still drains.
    """
    host = job.host
    waiting = places.candidate(release)
    used = {places.pointer(release, "current"), places.pointer(release, "previous")} | running(release, units)
    if waiting:
        used.add(waiting["release"])
    names = places.names(release)
    surplus = set(names[: max(len(names) - release.keep_releases, 0)])
    surplus |= {name for name in names if not building.flushed(release, name)}  # never used again
    current = places.pointer(release, "current")
    surplus |= {name for name in names if current and _twins(name, current) and _damaged(release, name)}
    for name in sorted(surplus):
        if name not in used and not any(
            state.active == "deactivating" for state in _states(release, name, units)
        ):
            places.discard(host, release, name)
    _prune_environments(job, release)


def _states(release: Release, name: str, units: Mapping[str, Unit]) -> list[Unit]:
    return [units.get(unit, Unit()) for unit in release.units(name)]


def _prune_environments(job: Job, release: Release) -> None:
    used = {
        os.path.basename(os.path.realpath(os.path.join(release.releases, name, "venv")))
        for name in places.names(release)
    }
    try:
        found = os.listdir(release.environments)
    except FileNotFoundError:
        return
    for name in found:
        path = os.path.join(release.environments, name)
        if name.startswith(".trash-"):
            shutil.rmtree(path, ignore_errors=True)
        if name.startswith(".") or name in used or not os.path.isdir(path):
            continue
        lock = os.open(
            os.path.join(release.environments, f".{name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            job.host.step("prune environment")
            trash = os.path.join(release.environments, f".trash-{name}")
            os.rename(path, trash)
            os.unlink(os.path.join(release.environments, f".{name}.lock"))
            shutil.rmtree(trash, ignore_errors=True)
        except BlockingIOError:
            continue  # an orphaned build still writes there
        finally:
            os.close(lock)
