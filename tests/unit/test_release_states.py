"""Any order of deploys, roll backs, kills, waits and restarts keeps what a release promises."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from ansible_collections.flaskworks.server.plugins.module_utils import environment as environments
from ansible_collections.flaskworks.server.plugins.module_utils.release import (
    hooks,
    rollback,
    seal,
    withdrawal,
)
from ansible_collections.flaskworks.server.plugins.module_utils.release.request import Hooks, ReleaseFailure
from ansible_collections.flaskworks.server.plugins.module_utils.release.staging import Outcome
from ansible_collections.flaskworks.server.plugins.module_utils.tree import digest, walk
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

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
        self.feature = "one"
        # What was left for a reason (code and setting), and what may count as left because of a kill.
        self.left: set[tuple[str, str]] = set()
        self.perhaps: set[tuple[str, str]] = set()

    def serves(self) -> tuple[str, str] | None:
        """The code and the setting that serve."""
        if self.bench.pointer("current") is None:
            return None
        variables = (self.root / "srv/hello/current/environment").read_text()
        return self.bench.serving(), variables.partition("\n")[0].removeprefix("FEATURE=")

    def wanted(self) -> tuple[str, str]:
        return self.bench.code["hello"], self.feature

    def note(self, before: tuple[str, str] | None, back: bool) -> None:
        """Take down what a switch means for what may be deployed."""
        now = self.serves()
        if now == before or now is None:
            return
        self.left.discard(now)
        self.perhaps.discard(now)
        if back and before is not None:
            self.left.add(before)

    def undecided(self, *pairs: tuple[str, str] | None) -> None:
        found = {pair for pair in pairs if pair is not None}
        self.left -= found
        self.perhaps |= found

    def die(self, number: int, work: Callable[[], object]) -> None:
        self.bench.host.die_after = len(self.bench.host.steps) + number
        try:
            with suppress(Killed):
                work()
        finally:
            self.bench.host.die_after = None

    def teardown(self) -> None:
        shutil.rmtree(self.root)

    @initialize(deploys=st.sampled_from([0, 1, 3]))
    def begin(self, deploys: int) -> None:
        for code in ("one", "two", "three")[:deploys]:
            self.bench.code["hello"] = code
            self.deploy(anyway=False)

    @rule(code=CODES)
    def edit(self, code: str) -> None:
        self.bench.code["hello"] = code

    @rule(value=st.sampled_from(["a", "b"]))
    def configure(self, value: str) -> None:
        self.feature = value
        self.bench.set_variables("hello", f"FEATURE={value}")

    @rule(anyway=st.booleans())
    def deploy(self, anyway: bool) -> None:
        before, wanted = self.serves(), self.wanted()
        self.bench.redeploy = ["hello"] if anyway else []
        outcome = self.bench.deploy()["hello"]
        self.bench.redeploy = []
        broken = self.bench.code["hello"].startswith("broken")
        refused = " again, which was " in str(outcome.failure)
        assert bool(outcome.failure) == (broken or refused)
        if wanted == before or anyway:
            assert not refused
        elif refused:
            assert wanted in self.left | self.perhaps
        else:
            assert wanted not in self.left
        if outcome.failure:
            assert self.serves() == before
        else:
            self.undecided(wanted)  # what serves may have been started again, which forgives it
            self.note(before, back=False)
            assert self.bench.serving() == self.bench.code["hello"]
            assert seal.damage(str(self.root / "srv/hello/current")) is None
            assert not [name for name in self.bench.releases() if name.startswith(".")]
            assert len(self.bench.releases()) <= 3 + 2  # what serves and what served before stay in any case
            self.no_order_is_left_behind()

    def no_order_is_left_behind(self) -> None:
        """What is to be stopped later runs, and does not serve; or it waits for its activation."""
        current, running = self.bench.pointer("current"), self.bench.host.running("hello")
        waiting = self.root / "srv/hello/.staged"
        candidate = json.loads(waiting.read_text())["release"] if waiting.exists() else None
        for timer in self.bench.host.timers:
            kind, _, name = timer.removeprefix("flask-hello-").partition("-")
            assert name != current
            assert name in running
            assert kind == "drain" or name == candidate

    @rule(number=st.integers(0, 40), anyway=st.booleans())
    def deploy_and_die(self, number: int, anyway: bool) -> None:
        before = self.serves()
        self.bench.redeploy = ["hello"] if anyway else []
        self.die(number, self.bench.deploy)
        self.bench.redeploy = []
        if anyway or self.wanted() == before:
            self.undecided(self.wanted())
        else:
            assert self.serves() == before or self.wanted() not in self.left

    @rule(again=st.booleans())
    def roll_back(self, again: bool) -> None:
        before, old = self.serves(), self.bench.pointer("current")
        failure = self.bench.roll_back()["hello"].failure
        if failure:
            assert "nothing to go back to" in failure
            assert self.bench.pointer("current") == old
            return
        assert self.serves() != before
        assert self.serves() not in self.left
        self.note(before, back=True)
        if again and before is not None:
            self.edit(before[0])
            self.configure(before[1])
            self.deploy(anyway=False)

    @rule(number=st.integers(0, 20))
    def roll_back_and_die(self, number: int) -> None:
        before = self.serves()
        self.die(number, self.bench.roll_back)
        self.was_left(before)

    @rule(number=st.integers(0, 30))
    def switch_back_and_die(self, number: int) -> None:
        """What the watch does, to its end or not."""
        before, old = self.serves(), str(self.bench.pointer("current"))
        release, job = self.bench.release("hello"), self.bench.job()
        with suppress(ReleaseFailure):
            self.die(number, lambda: rollback.switch_back(job, release, old, "it fell over"))
        self.was_left(before)

    def was_left(self, before: tuple[str, str] | None) -> None:
        """As soon as something else serves, what was left is marked; before that it may be."""
        assert self.serves() == before or self.serves() not in self.left
        self.undecided(before, self.serves())
        if before is not None and self.serves() != before:
            self.left.add(before)

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
    def stage_a_roll_back(self) -> None:
        self.staged = self.bench.go_back()

    @rule()
    def activate(self) -> None:
        if self.staged:
            before = self.serves()
            waiting = self.root / "srv/hello/.staged"
            back = waiting.exists() and json.loads(waiting.read_text())["verb"] == "roll back"
            self.bench.activate(self.staged)
            self.undecided(self.serves())
            self.note(before, back)

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
        self.bench.redeploy = ["hello"]
        before = self.serves()
        assert self.bench.deploy()["hello"].failure is None
        self.bench.host.pass_time(8000)
        self.bench.deploy()  # clears away a candidate that somebody forgot
        self.bench.redeploy = []
        self.undecided(self.wanted())
        self.note(before, back=False)
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
