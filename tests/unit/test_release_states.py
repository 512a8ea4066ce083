"""Any order of deploys, kills, waits and restarts keeps what a release promises."""

from __future__ import annotations

import json
import shutil
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from ansible_collections.flaskworks.server.plugins.module_utils import environment as environments
from ansible_collections.flaskworks.server.plugins.module_utils.release import hooks, seal, withdrawal
from ansible_collections.flaskworks.server.plugins.module_utils.release.request import Hooks
from ansible_collections.flaskworks.server.plugins.module_utils.release.staging import Outcome
from ansible_collections.flaskworks.server.plugins.module_utils.tree import digest, walk
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.unit.release_host import Bench, Killed

CODES = st.sampled_from(["one", "two", "three", "broken import", "broken health"])


class Deploys(RuleBasedStateMachine):
    """One host with one app; deploys may die anywhere, overlap, and be followed by a restart of the host."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="flaskworks-"))
        self.bench = Bench(self.root)
        self.staged: dict[str, Outcome] | None = None
        self.served = False

    def teardown(self) -> None:
        shutil.rmtree(self.root)

    @rule(code=CODES)
    def edit(self, code: str) -> None:
        self.bench.code["hello"] = code

    @rule(value=st.sampled_from(["a", "b"]))
    def configure(self, value: str) -> None:
        self.bench.set_variables("hello", f"FEATURE={value}")

    @rule()
    def deploy(self) -> None:
        outcome = self.bench.deploy()["hello"]
        broken = self.bench.code["hello"].startswith("broken")
        assert bool(outcome.failure) == broken
        if not broken:
            assert self.bench.serving() == self.bench.code["hello"]
            assert seal.damage(str(self.root / "srv/hello/current")) is None
            assert not [name for name in self.bench.releases() if name.startswith(".")]
            assert len(self.bench.releases()) <= 3 + 2  # what serves and what served before stay in any case

    @rule(number=st.integers(0, 40))
    def deploy_and_die(self, number: int) -> None:
        self.bench.host.die_after = len(self.bench.host.steps) + number
        try:
            self.bench.deploy()
        except Killed:
            pass
        finally:
            self.bench.host.die_after = None

    @rule(number=st.integers(0, 4))
    def damage(self, number: int) -> None:
        names = [name for name in self.bench.releases() if not name.startswith(".")]
        if names:
            place = self.root / "srv/hello/releases" / names[number % len(names)]
            (place / "static/static/style.css").write_text(f"damaged {number}")

    @rule()
    def stage(self) -> None:
        self.staged = self.bench.stage()

    @rule()
    def activate(self) -> None:
        if self.staged:
            self.bench.activate(self.staged)

    @rule(command=st.sampled_from(["true", "fail", "die"]))
    def run_a_hook(self, command: str) -> None:
        chosen = {name: str(one.release) for name, one in (self.staged or {}).items() if one.staged}
        if chosen:
            release = replace(self.bench.release("hello"), hooks=Hooks(migrate=(command,)))
            with suppress(Killed):
                hooks.run(self.bench.job(), "migrate", [release], chosen)

    @rule()
    def give_up(self) -> None:
        chosen = {name: str(one.release) for name, one in (self.staged or {}).items() if one.staged}
        withdrawal.give_up(self.bench.job(), [self.bench.release("hello")], chosen)

    @rule(seconds=st.sampled_from([1, 5, 8000]))
    def wait(self, seconds: int) -> None:
        self.bench.host.pass_time(seconds)

    @rule()
    def restart_the_host(self) -> None:
        self.bench.host.reboot()

    @rule()
    def settle(self) -> None:
        """After a deploy that ends well and a pause, only what serves runs, now and after a restart."""
        self.bench.code["hello"] = "one"
        assert self.bench.deploy()["hello"].failure is None
        self.bench.host.pass_time(8000)
        self.bench.deploy()  # clears away a candidate that somebody forgot
        self.bench.host.pass_time(10)
        assert self.bench.host.running("hello") == self.bench.enabled() == {self.bench.pointer("current")}
        assert not [unit for unit in self.bench.host.states if "-migrate-" in unit]

    @invariant()
    def what_serves_is_complete_and_runs(self) -> None:
        current = self.bench.pointer("current")
        self.served = self.served or current is not None
        if not self.served:
            return
        assert current is not None
        place = self.root / "srv/hello/releases" / current
        record = json.loads((place / "release.json").read_text())
        assert record["release"] == current
        assert digest(walk(str(place / "src"))) == record["parts"]["source"]
        assert environments.is_complete(str((place / "venv").resolve()))
        assert current in self.bench.host.running("hello")
        assert current in self.bench.enabled()
        assert not (place / "src" / "hello.py").read_text().startswith("broken")


Deploys.TestCase.settings = settings(max_examples=60, stateful_step_count=20)
test_states = Deploys.TestCase
