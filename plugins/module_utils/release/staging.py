# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Stage: have the new release of every app run beside the one that serves, and prove it healthy.

Order of events for one app, and what kill -9 leaves behind at each point:

1. lock, look, reap           nothing
2. build the environment      a directory without marker: built again
3. write the release          a hidden directory: removed by the next deploy
4. rename it into place       a complete release that nobody uses: used again, or pruned
5. note it as the candidate   the same
6. order its end, should      the same
   nobody activate it
7. start its units, probe     a running release that does not serve: used again, or stopped by the next deploy
                              or by that order
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from .. import environment as environments
from . import building, history, ids, marks, places, room, seal
from .gate import pass_gate
from .hook_units import reap_hooks
from .locking import locked
from .places import Places
from .ports import Host, Unit
from .request import HOOKS, Release, ReleaseFailure, in_words

# Seconds for which a candidate may wait: hooks and other batches of hosts come before its activation.
CANDIDATE_LIFE = 7200
# Seconds for which what served before is kept running beyond the time of a watch: a release that hangs is
# found out only after three probes of ten seconds.
HELD = 30
UNTOUCHED = "; nothing that serves was touched"
WORKERS = 6


@dataclass
class Outcome:
    """What became of one app."""

    release: str | None = None
    previous: str | None = None
    serves: str | None = None
    changed: bool = False
    staged: bool = False
    missing: str | None = None
    failure: str | None = None
    revision: str = ""
    there: list[str] = field(default_factory=list)
    trouble: str | None = None
    warning: str | None = None
    damage: str | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    before: dict[str, str] = field(default_factory=dict)
    after: dict[str, str] = field(default_factory=dict)

    def result(self) -> dict[str, Any]:
        told: dict[str, Any] = {
            "release": self.release,
            "previous": self.previous,
            "serves": self.serves,
            "changed": self.changed,
            "staged": self.staged,
            "revision": self.revision,
            "there": self.there,
            "seconds": self.seconds,
        }
        if self.damage:
            told["damage"] = self.damage
        if self.trouble:
            told["trouble"] = self.trouble
        return told


@dataclass(frozen=True)
class Job:
    """What one call of the module is given besides the releases."""

    host: Host
    places: Places
    who: str
    bundles: Mapping[str, str]
    check: bool = False
    moment: str = ""  # when the deploy began, as ids hold it; empty for now
    redeploy: Collection[str] = ()  # apps to deploy although what they would get is marked
    build: Callable[..., environments.Result] = environments.build
    identify: Callable[[str], dict[str, str]] = environments.identity
    verb: str = history.DEPLOY  # what a switch is for
    why: str = ""  # what made it necessary


@dataclass(frozen=True)
class Look:
    """What was found before anything was done to one app."""

    identity: dict[str, str]
    environment: str
    parts: dict[str, str]
    digest: str
    current: str | None
    known: dict[str, Any] | None
    key: bytes
    damage: str | None


def patterns(release: Release) -> list[str]:
    """Names of all units of an app, its hooks and the timers that stop a release included."""
    timers = (release.drain("*"), release.expiry("*"))
    hooks = [f"{release.hook(kind)}-*.service" for kind in HOOKS]
    services = [f"{release.unit}@*.socket", f"{release.unit}@*.service"]
    return [*services, *(f"{name}.timer" for name in timers), *hooks]


def stage(job: Job, releases: Sequence[Release]) -> dict[str, Outcome]:
    """Stage all releases of a host side by side."""
    outcomes = {release.name: Outcome() for release in releases}
    identities: dict[str, dict[str, str] | str] = {}
    for interpreter in {release.interpreter for release in releases}:
        try:
            identities[interpreter] = job.identify(interpreter)
        except environments.EnvironmentFailure as error:
            identities[interpreter] = str(error)
    units = job.host.units([pattern for release in releases for pattern in patterns(release)])
    key = _key(job, releases)

    def work(release: Release, act: bool) -> None:
        outcome = outcomes[release.name]
        with noted(release, outcome, UNTOUCHED):
            identity = identities[release.interpreter]
            if isinstance(identity, str):
                if not job.check:
                    raise ReleaseFailure(identity)
                identity = {}  # a bare host has no interpreter yet
            _guarded(job, release, outcome, identity, key, units, act)

    if not job.check:
        # First look for code that is neither here nor brought; nothing is begun that could wait for it.
        side_by_side([partial(work, release, False) for release in releases])
        if any(outcome.missing or outcome.failure for outcome in outcomes.values()):
            return outcomes
    side_by_side([partial(work, release, True) for release in releases])
    if any(outcome.failure for outcome in outcomes.values()):
        take_back(job, releases, outcomes)
    return outcomes


@contextmanager
def noted(release: Release, outcome: Outcome, rest: str = "") -> Iterator[None]:
    """Note what stops one app as its outcome's failure, and in any case what serves when this ends.

    ``rest`` ends the sentence that tells an error of the operating system.
    """
    try:
        yield
    except (ReleaseFailure, environments.EnvironmentFailure) as error:
        outcome.failure = f"{release.name}: {error}"
    except OSError as error:
        outcome.failure = f"{release.name}: {in_words(error)}{rest}"
        if room.full(error):
            outcome.failure += f". Free some room below {release.home}, and run again"
    finally:
        outcome.serves = places.pointer(release, "current")


def side_by_side(jobs: Sequence[Callable[[], None]], workers: int = WORKERS) -> None:
    """Run jobs in a few threads; an error that is not a failure of one app ends the whole call."""
    if len(jobs) < 2:
        for job in jobs:
            job()
        return
    waiting, guard = list(reversed(jobs)), threading.Lock()
    errors: list[BaseException] = []

    def worker() -> None:
        while True:
            with guard:
                if not waiting or errors:
                    return
                job = waiting.pop()
            try:
                job()
            except BaseException as error:  # noqa: BLE001 - raised again below, in the thread that waits
                errors.append(error)

    threads = [threading.Thread(target=worker) for _ in range(min(workers, len(jobs)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def _key(job: Job, releases: Sequence[Release]) -> bytes:
    folder = os.path.dirname(job.places.digest_key)
    create = not job.check and os.path.isdir(folder) and bool(releases)
    return places.digest_key(job.host, job.places, create)


def _guarded(
    job: Job,
    release: Release,
    outcome: Outcome,
    identity: dict[str, str],
    key: bytes,
    units: Mapping[str, Unit],
    act: bool,
) -> None:
    if job.check or not act:
        look = _look(release, identity, key, units)
        _refuse_marked(job, release, look)
        if job.check:
            _foresee(release, outcome, look, units)
        else:
            missing = _missing(release, look, units)
            outcome.missing = None if missing in job.bundles else missing
        return
    with locked(job.host, release, job.who, "stage") as waited:
        if waited:
            units = job.host.units(patterns(release))
        look = _look(release, identity, key, units)
        _refuse_marked(job, release, look)
        _stage_one(job, release, outcome, look, units)


def _look(release: Release, identity: dict[str, str], key: bytes, units: Mapping[str, Unit]) -> Look:
    wanted = _wanted(release, None)
    name = environments.content_hash(wanted, identity)
    found = places.parts(release, name, key)
    current = places.pointer(release, "current")
    known = places.record(release, current) if current else None
    digest = places.total(found)
    damage = None
    if current and known and known.get("digest") == digest:
        damage = _damage(release, current, units)
    return Look(identity, name, found, digest, current, known, key, damage)


def _damage(release: Release, name: str, units: Mapping[str, Unit]) -> str | None:
    """What is wrong with a release on the disk, if anything is."""
    root = os.path.join(release.releases, name)
    listens = units.get(release.units(name)[0], Unit()).up
    if listens and not os.path.lexists(os.path.join(root, "gunicorn.sock")):
        return "gunicorn.sock is missing"  # systemd does not notice, and no proxy gets through
    return seal.damage(root)


def _refuse_marked(job: Job, release: Release, look: Look) -> None:
    """What serves is marked only where a roll back was killed before its switch; that changes nothing."""
    if look.known is None or look.known.get("digest") != look.digest:
        marks.require_unmarked(release, look.parts, job.redeploy)


def _wanted(release: Release, wheel: str | None) -> environments.Wanted:
    source = release.source
    wheels = (environments.Wheel(str(source.wheel), source.digest, wheel),) if source.kind == "wheel" else ()
    return environments.Wanted(
        interpreter=release.interpreter,
        requirements=source.requirements,
        origin=source.origin,
        wheels=wheels,
        server=release.server,
    )


def _live(release: Release, look: Look, units: Mapping[str, Unit]) -> bool:
    """Whether what is wanted is what serves."""
    if look.current is None or look.known is None or look.known.get("digest") != look.digest or look.damage:
        return False
    return all(units.get(unit, Unit()).up for unit in release.units(look.current))


def _describe(release: Release, outcome: Outcome, look: Look) -> None:
    outcome.previous = look.current
    outcome.damage = look.damage and f"{look.current}: {look.damage}"
    outcome.before = building.summary(look.known)
    outcome.after = building.summary({"parts": look.parts, "revision": release.source.revision})


def _foresee(release: Release, outcome: Outcome, look: Look, units: Mapping[str, Unit]) -> None:
    """What a run would do; looks only."""
    if _live(release, look, units):
        outcome.release = outcome.previous = look.current
        return
    _describe(release, outcome, look)
    outcome.changed = outcome.staged = True


def _missing(release: Release, look: Look, units: Mapping[str, Unit]) -> str | None:
    """The digest of a bundle that this host needs, if it needs one."""
    absent = places.missing_files(release)
    if absent:
        raise ReleaseFailure(
            f"{', '.join(absent)} {'is' if len(absent) == 1 else 'are'} not there; provision the host first "
            "(the roles flaskworks.server.app and flaskworks.server.gunicorn write them)"
        )
    if _live(release, look, units) or _reusable(release, look, units):
        return None
    if release.source.kind == "wheel":
        whole = environments.is_complete(os.path.join(release.environments, look.environment))
        return None if whole else release.source.digest
    return None if building.code_on_host(release) else release.source.digest


def _reusable(release: Release, look: Look, units: Mapping[str, Unit]) -> str | None:
    """A complete release that is exactly what is wanted; the live one first, then the newest.

    Not one that still ends its requests: it would start again only when they are done.
    """
    candidates = [look.current] if look.current else []
    candidates += [name for name in reversed(places.names(release)) if name != look.current]
    for name in candidates:
        if any(units.get(unit, Unit()).active == "deactivating" for unit in release.units(name)):
            continue
        known = places.record(release, name)
        if known and known.get("digest") == look.digest:
            if not environments.is_complete(os.path.join(release.environments, look.environment)):
                continue
            if not building.flushed(release, name) or _damage(release, name, units):
                continue
            if building.intact(release, os.path.join(release.releases, name, "src")):
                return name
    return None


def _stage_one(job: Job, release: Release, outcome: Outcome, look: Look, units: Mapping[str, Unit]) -> None:
    host = job.host
    live = _live(release, look, units)
    if not live or running(release, units) != {look.current}:
        # What was seen before the lock was held will not do for a change.
        units = host.units(patterns(release))
        live = _live(release, look, units)
    chosen = look.current if live else _reusable(release, look, units)
    if chosen and not live and cancel_orders(host, release, chosen, units):
        units = host.units(patterns(release))  # it may have begun to stop just before
        chosen = _reusable(release, look, units)
    tidy(job, release, look.current, chosen, units, spare_candidate=live)
    if live:
        outcome.release = outcome.previous = look.current
        return
    _describe(release, outcome, look)
    begin = host.clock()
    made = chosen is None
    if chosen is None:
        chosen = _build(job, release, look)
    outcome.seconds["build"] = round(host.clock() - begin, 2)
    prove(job, release, outcome, chosen, look.current, units, made=made)


def prove(
    job: Job,
    release: Release,
    outcome: Outcome,
    chosen: str,
    current: str | None,
    units: Mapping[str, Unit],
    *,
    made: bool,
) -> None:
    """Start a complete release, pass it through the gate, and let it wait for its activation.

    One that fails is stopped. A deploy removes it then, too; a roll back keeps what it could not go back to.
    """
    host = job.host
    begin = host.clock()
    flusher = building.Flusher(os.path.join(release.releases, chosen))
    if made:
        flusher.start()
    try:
        places.nominate(host, release, chosen, job.who, job.verb, job.why)
        if chosen != current:
            host.step("order expiry")
            expire(host, release, chosen)
        _start(host, release, chosen, units)
        pass_gate(host, release, chosen)
        if made:
            flusher.finish()
    except (ReleaseFailure, OSError):
        if chosen != current:
            host.step("stop failed")
            before = chosen == places.pointer(release, "previous")
            (host.stop if before else host.kill)(release.units(chosen))  # requests may be open still
            host.cancel([release.expiry(chosen)])
            places.nominate(host, release, None, job.who)
            if not before and job.verb == history.DEPLOY:
                places.discard(host, release, chosen)
        raise
    finally:
        if made:
            flusher.join()
    outcome.seconds["gate"] = round(host.clock() - begin, 2)
    outcome.release, outcome.changed, outcome.staged = chosen, True, True


def _start(host: Host, release: Release, name: str, units: Mapping[str, Unit]) -> None:
    if any(units.get(unit, Unit()).active == "failed" for unit in release.units(name)):
        host.forget_failures(release.units(name))
    host.step("start")
    refused = host.start(release.units(name))
    if refused:
        raise ReleaseFailure(f"systemd does not start {' and '.join(release.units(name))}: {refused}")


def _build(job: Job, release: Release, look: Look) -> str:
    host = job.host
    gid = places.require_group(host, release)
    for folder, mode in ((release.releases, 0o711), (release.environments, 0o750)):
        if not os.path.isdir(folder):
            host.step("folder")
            os.mkdir(folder)
            host.own(folder, gid)
            os.chmod(folder, mode)
    environment = os.path.join(release.environments, look.environment)
    bundle = job.bundles.get(release.source.digest)
    code = _code(release, bundle)
    build = None if environments.is_complete(environment) else environment
    room.require(host, release, code.bundle, code.tree, build)
    # Not beside the bundle: that may lie where the operator's account removes what it has uploaded, and
    # could not remove what root has unpacked there.
    unpacked = os.path.join(release.releases, f"{building.PARTIAL}wheel")
    try:
        wheel = (
            _unpacked_wheel(release, bundle, unpacked) if build and release.source.kind == "wheel" else None
        )
        host.step("build environment")
        built = job.build(
            environment, _wanted(release, wheel), look.environment, gid=gid, lock_wait=release.lock_wait
        )
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)
    name = _new_name(job, release, look.digest)

    def unchanged() -> bool:
        return places.parts(release, look.environment, look.key) == look.parts

    try:
        building.write_release(
            host, release, name, code, environment, look.parts, job.who, look.identity, unchanged
        )
    except (ReleaseFailure, OSError) as error:
        for path in places.leftovers(release):
            shutil.rmtree(path, ignore_errors=True)
        if built.changed and room.full(error):
            environments.remove(environment)  # others may need the room
        raise
    return name


def _code(release: Release, bundle: str | None) -> building.Code:
    """Where the code comes from: what was uploaded, or else a release that has it."""
    if bundle is not None or release.source.kind != "tree":
        return building.Code(bundle, None)
    there = building.code_on_host(release)
    if there is None:
        raise ReleaseFailure("another deploy removed the code this one was to use; run again")
    return building.Code(None, there)


def _unpacked_wheel(release: Release, bundle: str | None, folder: str) -> str:
    if bundle is None:
        raise ReleaseFailure("the environment of this wheel vanished meanwhile; run again")
    building.unpack(bundle, folder)
    return os.path.join(folder, str(release.source.wheel))


def _new_name(job: Job, release: Release, digest: str) -> str:
    """The moment when the deploy began, moved on where a release of this host has it already."""
    taken = {ids.moment(name) for name in places.names(release)}
    moment = ids.moment(job.moment) if job.moment else float(int(job.host.now()))
    while moment in taken:
        moment += 1
    return ids.make(moment, digest)


def tidy(
    job: Job,
    release: Release,
    current: str | None,
    chosen: str | None,
    units: Mapping[str, Unit],
    *,
    spare_candidate: bool,
) -> None:
    """Clear away what killed deploys left: strays that run but do not serve, halves, links for the boot."""
    host = job.host
    for path in places.leftovers(release):
        host.step("remove leftover")
        shutil.rmtree(path, ignore_errors=True)
    reap_hooks(host, release, units)
    keep = {name for name in (current, chosen) if name}
    waiting, runs, spared = places.candidate(release), running(release, units), None
    if waiting and waiting["release"] not in keep:
        fresh = host.now() - float(waiting.get("at", 0)) < CANDIDATE_LIFE
        if spare_candidate and fresh and waiting["release"] in runs:
            spared = waiting["release"]
            keep.add(spared)
        else:
            places.nominate(host, release, None, job.who)
    elif waiting and waiting["release"] == current:
        places.nominate(host, release, None, job.who)
    strays = runs - keep
    previous = places.pointer(release, "previous")
    for name in sorted(strays):
        if release.drain(name) + ".timer" in units:
            continue
        host.step("reap")
        states = [units.get(unit, Unit()) for unit in release.units(name)]
        if name == previous and any(state.up for state in states):
            drain(host, release, name)  # connections may be open still: the switch may have been just before
        else:
            host.stop(release.units(name))
        if any(state.active == "failed" for state in states):
            host.forget_failures(release.units(name))  # or it would never be pruned
    idle = [*_orders(release.expiry(""), units, {spared}), *_orders(release.drain(""), units, strays)]
    if idle:
        host.step("cancel idle orders")
        host.cancel(idle)
    if current:
        places.enable(host, release, job.places, current)
        places.disable_others(host, release, job.places, [current])


def _orders(prefix: str, units: Mapping[str, Unit], due: Collection[str | None]) -> list[str]:
    """The timers with such a name that would stop something else than what is due to be stopped."""
    timers = [unit.removesuffix(".timer") for unit in units if unit.endswith(".timer")]
    return [timer for timer in timers if timer.startswith(prefix) and timer.removeprefix(prefix) not in due]


def running(release: Release, units: Mapping[str, Unit]) -> set[str]:
    """The releases of an app with a unit that runs, starts or has failed."""
    found = set()
    for unit, state in units.items():
        if unit.startswith(f"{release.unit}@") and state.present:
            found.add(unit.partition("@")[2].rpartition(".")[0])
    return found


def held(release: Release) -> float:
    """Seconds for which what served before keeps running, ready to serve again if it must."""
    return release.watch + HELD if release.watch else 0


def drain(host: Host, release: Release, name: str, more: float = 0) -> None:
    """Stop a release when the linger (and some time more) is over, unless it serves again by then."""
    _stop_later(host, release, name, release.drain(name), release.linger + more, "Drain")


def expire(host: Host, release: Release, name: str) -> None:
    """Stop a candidate in the end, if its deploy goes no further: another host failed, the play was lost."""
    _stop_later(host, release, name, release.expiry(name), CANDIDATE_LIFE, "Give up candidate")


def _stop_later(host: Host, release: Release, name: str, timer: str, seconds: float, what: str) -> None:
    mine = os.path.join(release.releases, name)
    units = " ".join(release.units(name))
    script = f"test {release.home}/current -ef {mine} || exec systemctl stop --no-block {units}"
    refused = host.later(timer, seconds, script, f"{what} {name} of {release.name}")
    if refused and "already loaded" not in refused:
        raise ReleaseFailure(f"systemd does not take the order to stop {name} later: {refused}")


def cancel_orders(host: Host, release: Release, name: str, units: Mapping[str, Unit]) -> bool:
    """Take back every order to stop a release later; says whether there was one."""
    ordered = [timer for timer in (release.drain(name), release.expiry(name)) if f"{timer}.timer" in units]
    if ordered:
        host.step("cancel orders")
        host.cancel(ordered)
    return bool(ordered)


def take_back(job: Job, releases: Sequence[Release], outcomes: Mapping[str, Outcome]) -> None:
    """One app failed, so none is activated: stop the others and keep them on disk for the next deploy."""
    for release in releases:
        outcome = outcomes[release.name]
        if outcome.failure or not outcome.staged or outcome.release is None:
            continue
        try:
            with locked(job.host, release, job.who, "take back"):
                withdraw(job, release, outcome.release)
        except (ReleaseFailure, OSError):
            pass  # another deploy holds the app by now; the candidate is its to clear away
        outcome.staged = False


def withdraw(job: Job, release: Release, name: str) -> None:
    waiting = places.candidate(release)
    if name != places.pointer(release, "current") and waiting and waiting["release"] == name:
        job.host.step("take back")
        places.nominate(job.host, release, None, job.who)
        job.host.stop(release.units(name))
        job.host.cancel([release.expiry(name)])
