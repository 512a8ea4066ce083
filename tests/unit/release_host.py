"""A host without root and without systemd: files in a temporary directory, units in a dictionary."""

# A stand-in takes what the real one takes, and uses less of it.
# ruff: noqa: ARG002

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from ansible_collections.flaskworks.server.plugins.module_utils import environment as environments
from ansible_collections.flaskworks.server.plugins.module_utils.release import alone, rollback
from ansible_collections.flaskworks.server.plugins.module_utils.release.activation import activate
from ansible_collections.flaskworks.server.plugins.module_utils.release.places import Places
from ansible_collections.flaskworks.server.plugins.module_utils.release.ports import Answer, Host, Ran, Unit
from ansible_collections.flaskworks.server.plugins.module_utils.release.proof import Claim
from ansible_collections.flaskworks.server.plugins.module_utils.release.request import Release, parse
from ansible_collections.flaskworks.server.plugins.module_utils.release.staging import Job, Outcome, stage
from ansible_collections.flaskworks.server.plugins.module_utils.tree import Item, digest
from ansible_collections.flaskworks.server.plugins.plugin_utils.sources.base import Entry, Source, items

RELEASE = re.compile(r"^flask-(?P<app>[a-z]+)@(?P<release>[^.]+)\.(?P<kind>socket|service)$")


class Killed(BaseException):
    """What kill -9 is to the module: nothing after it runs."""


class FakeHost(Host):
    """Starts what it is told, answers as the staged code says, and dies at a chosen step."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.root = root
        self.time = 1_780_000_000.0
        self.states: dict[str, Unit] = {}
        self.timers: dict[str, tuple[float, str]] = {}
        self.steps: list[str] = []
        self.die_after: int | None = None
        self.full_at: int | None = None
        self.free: tuple[int, int | None] = (10**12, 10**9)
        self.die_at: str | None = None
        self.sick: set[str] = set()  # code that does not answer rightly any more
        self.ends: dict[str, float] = {}  # when a unit that is stopping has stopped
        self.probed: list[bytes] = []
        self.service = "[Service]\nUser=hello\nWorkingDirectory=/srv/hello/releases/%i/src\n"
        self.hooks: dict[str, str] = {}
        self.unit_files: set[str] = set()
        self.blind = False  # systemd leaves out the credentials that it was to load, without an error

    # -- time and steps ----------------------------------------------------------------------------

    def now(self) -> float:
        return self.time

    def clock(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.pass_time(seconds)

    def pass_time(self, seconds: float) -> None:
        self.time += max(seconds, 0.001)
        for unit in [unit for unit, end in self.ends.items() if end <= self.time]:
            del self.ends[unit], self.states[unit]
        for name, (due, script) in list(self.timers.items()):
            if due <= self.time:
                del self.timers[name]
                found = re.match(r"test (\S+) -ef (\S+) \|\| exec systemctl stop --no-block (.+)$", script)
                assert found is not None
                if os.path.realpath(found[1]) != os.path.realpath(found[2]):
                    self.stop(found[3].split())

    def group(self, name: str) -> int:
        return os.getgid()

    def own(self, path: str | int, gid: int) -> None:
        assert gid >= 0

    def room(self, path: str) -> tuple[int, int | None]:
        assert os.path.isdir(path)
        return self.free

    def step(self, name: str) -> None:
        if name == self.die_at or (self.die_after is not None and len(self.steps) >= self.die_after):
            raise Killed(name)
        self.steps.append(name)
        if self.full_at is not None and len(self.steps) > self.full_at:
            self.full_at = None
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)

    # -- service manager ---------------------------------------------------------------------------

    def units(self, patterns: Sequence[str]) -> dict[str, Unit]:
        timers = {f"{name}.timer": Unit("active", "waiting") for name in self.timers}
        found = {**self.states, **timers}
        return {name: one for name, one in found.items() if any(fnmatchcase(name, each) for each in patterns)}

    def start(self, units: Sequence[str]) -> str | None:
        for unit in units:
            found = RELEASE.match(unit)
            assert found is not None
            place = self.root / "srv" / found["app"] / "releases" / found["release"]
            assert (place / "release.json").exists(), "a unit was started before its release was complete"
            if self.states.get(unit, Unit()).active == "deactivating":
                continue  # the start waits for the end
            (place / "gunicorn.sock").touch()
            broken = "import" in self.behaviour(place)
            self.states[unit] = Unit("failed", "failed", "exit-code") if broken else Unit("active", "running")
        return None

    def stop(self, units: Sequence[str]) -> None:
        for unit in units:
            if self.states.get(unit, Unit()).active != "failed":
                self.states.pop(unit, None)

    def kill(self, units: Sequence[str]) -> None:
        self.stop(units)
        self.forget_failures(units)

    def forget_failures(self, units: Sequence[str]) -> None:
        for unit in units:
            if self.states.get(unit, Unit()).active == "failed":
                del self.states[unit]

    def later(self, name: str, seconds: float, script: str, description: str) -> str | None:
        assert "$" not in script
        if name in self.timers:
            return f"Unit {name}.timer was already loaded"
        self.timers[name] = (self.time + seconds, script)
        return None

    def cancel(self, names: Iterable[str]) -> None:
        for name in names:
            self.timers.pop(name, None)

    def watch(self, unit: str) -> Unit:
        return self.states.get(unit, Unit())

    def unit_text(self, unit: str) -> str:
        return self.service

    def run_unit(self, name: str, text: str) -> Ran:
        self.hooks[name] = text
        self.unit_files.add(name)
        self.states[name] = Unit("activating", "start")
        if "ExecStart=die" in text:
            raise Killed(name)
        if "ExecStart=fail" in text:
            self.states[name] = Unit("failed", "failed", "exit-code")
            return Ran("exit-code", 3)
        del self.states[name]
        return Ran()

    def runtime_units(self) -> list[str]:
        return ["user.slice", *self.unit_files]

    def drop_unit(self, name: str) -> None:
        self.states.pop(name, None)
        self.unit_files.discard(name)

    def journal(self, unit: str, since: float, lines: int) -> list[str]:
        return [f"{unit} said this"]

    def probe(self, path: str, request: bytes, seconds: float, abandon: Callable[[], bool]) -> Answer:
        self.probed.append(request)
        how = self.behaviour(Path(path).parent)
        if "health" in how or any(code in how for code in self.sick):
            return Answer(503, "503 Service Unavailable")
        return Answer(None, "no answer") if "import" in how else Answer(200, "200 OK")

    def seen(self, process: int, path: str) -> bytes | None:
        found = RELEASE.match(Path(path).parent.name)
        if found is None or self.blind:
            return None
        secret = Path(path).name.removeprefix("secret_")
        place = self.root / "srv" / found["app"] / "releases" / found["release"]
        return (place / "credentials" / secret).read_bytes()

    def doubt(self, claim: Claim) -> str | None:
        return "process 4711 listens on its socket" if "stale" in self.behaviour(Path(claim.place)) else None

    # -- what tests ask ----------------------------------------------------------------------------

    def behaviour(self, place: Path) -> str:
        return (place / "src" / "hello.py").read_text() + (place / "environment").read_text()

    def reboot(self) -> None:
        self.states.clear()
        self.timers.clear()
        for link in sorted((self.root / "units").glob("*.wants/*")):
            found = RELEASE.match(link.name)
            assert found is not None
            if (self.root / "srv" / found["app"] / "releases" / found["release"] / "release.json").exists():
                self.start([link.name])

    def running(self, app: str) -> set[str]:
        found = (RELEASE.match(unit) for unit, state in self.states.items() if state.present)
        return {one["release"] for one in found if one and one["app"] == app}


class Bench:
    """One host with provisioned apps, and the verbs of a deploy."""

    def __init__(self, root: Path, apps: Sequence[str] = ("hello",), **settings: Any) -> None:
        self.root = root
        self.host = FakeHost(root)
        self.settings = settings
        self.code = dict.fromkeys(apps, "one")
        self.more: dict[str, str] = {}  # files (path: text) of every app besides
        self.builds = 0
        self.uploads: list[str] = []
        self.moment = ""
        self.redeploy: list[str] = []
        (root / "units").mkdir(parents=True)
        (root / "etc").mkdir()
        for app in apps:
            (root / "srv" / app).mkdir(parents=True)
            (root / "etc" / app).mkdir()
            (root / "etc" / app / "gunicorn.conf.py").write_text("workers = 2\n")
            self.set_variables(app, "FEATURE=one")
            for kind, target in (("socket", "sockets.target"), ("service", "multi-user.target")):
                (root / "units" / f"flask-{app}@.{kind}").write_text(
                    f"[Unit]\n[Install]\nWantedBy={target}\n"
                )

    def set_variables(self, app: str, text: str) -> None:
        (self.root / "etc" / app / "environment").write_text(text)

    def source(self, app: str) -> Source:
        def entry(path: str, text: str) -> Entry:
            return Entry(path, read=text.encode)

        entries = (
            entry("hello.py", self.code[app]),
            entry("static/mark.css", f"/* {self.code[app]} */"),
            entry("static/style.css", "body {}"),
            *(entry(path, text) for path, text in self.more.items()),
        )
        shipped: list[Item] = list(items(entries))
        return Source(digest(shipped), "", "tree", ".", "flask\n", "requirements.txt", None, entries)

    def release(self, app: str) -> Release:
        return parse(self.description(app))

    def description(self, app: str) -> dict[str, Any]:
        """What the action sends of one app."""
        home = self.root / "srv" / app
        data: dict[str, Any] = {
            "name": app,
            "unit": f"flask-{app}",
            "account": app,
            "home": str(home),
            "files": [str(self.root / "etc" / app / "gunicorn.conf.py")],
            "environment_file": str(self.root / "etc" / app / "environment"),
            "credentials_file": None,
            "unit_files": [
                str(self.root / "units" / f"flask-{app}@.{kind}") for kind in ("service", "socket")
            ],
            "source": self.source(app).describe(),
            "static": [{"url": "/static/", "path": "static"}],
            "health": {"path": "/healthz", "status": 200, "timeout": 5, "interval": 0.2, "successes": 3},
            "origin": "https://hello.example.org",
            "keep_releases": 3,
            "linger": 4,
            "output": "-",
            "lock_wait": 1,
            "watch": 0,
            "hooks": {"migrate": [], "before_activate": [], "after_activate": [], "timeout": 600},
            "environment": {
                "directory": str(home / "environments"),
                "interpreter": "python",
                "server": "gunicorn",
            },
        }
        return {**data, **self.settings}

    def build(self, path: str, *_given: Any, **_options: Any) -> environments.Result:
        changed = not environments.is_complete(path)
        if changed:
            self.builds += 1
            os.makedirs(os.path.join(path, "bin"))
            Path(path, "bin", "python").touch()
            Path(path, environments.MARKER).write_text("{}")
        return environments.Result(path, os.path.basename(path), changed, "fake", 0.0)

    def job(self, bundles: dict[str, str] | None = None, check: bool = False, who: str = "me@here") -> Job:
        places = Places(str(self.root / "etc" / ".digest-key"), str(self.root / "units"))
        identify = environments._own_identity
        return Job(
            self.host,
            places,
            who,
            bundles or {},
            check,
            moment=self.moment,
            redeploy=self.redeploy,
            build=self.build,
            identify=lambda _path: identify(),
        )

    def stage(self, check: bool = False, who: str = "me@here") -> dict[str, Outcome]:
        """Both rounds of staging, as the action makes them."""
        releases = [self.release(app) for app in self.code]
        outcomes = stage(self.job(check=check, who=who), releases)
        missing = {outcome.missing for outcome in outcomes.values() if outcome.missing}
        if missing and not any(outcome.failure for outcome in outcomes.values()):
            cache = self.root / "cache"
            bundles = {
                source.digest: str(source.bundle(cache))
                for source in map(self.source, self.code)
                if source.digest in missing
            }
            self.uploads += bundles
            outcomes = stage(self.job(bundles, who=who), releases)
        return outcomes

    def activate(self, staged: dict[str, Outcome]) -> dict[str, Outcome]:
        chosen = {name: str(one.release) for name, one in staged.items() if one.staged}
        if not chosen:
            return {}
        return activate(self.job(), [self.release(app) for app in chosen], chosen)

    def deploy(self) -> dict[str, Outcome]:
        staged = self.stage()
        if any(one.failure for one in staged.values()):
            return staged
        return self.activate(staged) or staged

    def go_back(self, to: str = "previous", check: bool = False) -> dict[str, Outcome]:
        return rollback.stage(self.job(check=check), [self.release(app) for app in self.code], to)

    def roll_back(self, to: str = "previous") -> dict[str, Outcome]:
        """Both tasks of a roll back."""
        staged = self.go_back(to)
        if any(one.failure for one in staged.values()):
            return staged
        return self.activate(staged) or staged

    def ship(self, *, eager: bool = False) -> dict[str, Outcome]:
        """A deploy in one call, as on the only host of a play; all code travels with it, or none."""
        sources = map(self.source, self.code) if eager else ()
        return self.ship_with({one.digest: str(one.bundle(self.root / "cache")) for one in sources})

    def ship_with(self, bundles: dict[str, str]) -> dict[str, Outcome]:
        """A deploy in one call, which brings this code."""
        job, releases = self.job(bundles), [self.release(app) for app in self.code]
        return alone.switch(job, releases, stage(job, releases))

    # -- what tests ask ----------------------------------------------------------------------------

    def pointer(self, name: str, app: str = "hello") -> str | None:
        path = self.root / "srv" / app / name
        return path.resolve().name if path.is_symlink() else None

    def serving(self, app: str = "hello") -> str:
        return (self.root / "srv" / app / "current" / "src" / "hello.py").read_text()

    def releases(self, app: str = "hello") -> list[str]:
        folder = self.root / "srv" / app / "releases"
        return sorted(path.name for path in folder.iterdir()) if folder.exists() else []

    def enabled(self, app: str = "hello") -> set[str]:
        links = (self.root / "units").glob(f"*.wants/flask-{app}@*")
        return {str(RELEASE.match(link.name)["release"]) for link in links}  # type: ignore[index]
