"""In which order the steps of the suite are run, and what becomes of the others when one fails."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tools import bed, environment, steps, suite
from tools.steps import Runner, Step, Stop

Commands = list[tuple[str, str]]


@pytest.fixture(autouse=True)
def _nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "STATE", tmp_path)
    monkeypatch.setattr(suite, "DURATIONS", tmp_path / "durations.json")


def fails(log: Path) -> None:
    raise Stop("it is broken")


def passes(log: Path) -> None:
    pass


def test_a_step_waits_for_the_one_that_it_needs() -> None:
    begun, order = threading.Event(), []

    def slow(log: Path) -> None:
        assert begun.wait(60)
        order.append("slow")

    first = Step("first", slow)
    second = Step("second", lambda _log: order.append("second"), needs=first)
    other = Step("other", lambda _log: begun.set())
    third = Step("third", lambda _log: order.append("third"), needs=second)
    assert Runner().together([first, other, second, third], 2)
    assert order == ["slow", "second", "third"]


def test_what_needs_a_step_that_failed_is_not_run_and_named(capsys: pytest.CaptureFixture[str]) -> None:
    first = Step("first", fails)
    second = Step("second", passes, needs=first)
    third = Step("third", passes, needs=second)
    other = Step("other", passes)
    runner = Runner()
    assert not runner.together([first, second, third, other], 2)
    assert [step.ran for step in (first, second, third, other)] == [True, False, False, True]
    assert runner.summary() == 1
    said = capsys.readouterr().out
    assert "Not run after a failure: second, third\n" in said
    assert "1 passed, 1 failed\n" in said


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Commands]:
    """Return what runs the suite: which commands of Molecule it gave, of which some fail."""

    def everything(*broken: tuple[str, str], without_bed: bool = False) -> Commands:
        given: Commands = []
        lock = threading.Lock()

        def molecule(argv: list[str], log: Path, **_more: object) -> None:
            one = (argv[argv.index("-s") + 1], argv[argv.index("-s") - 1])
            with lock:
                given.append(one)
            if one in broken:
                raise Stop(f"{one} is broken")

        def perform(runner: Runner, step: Step) -> None:
            if callable(step.action):
                step.action(step.log)
            elif "-s" in step.action:
                molecule(list(step.action), step.log)
            else:
                with lock:
                    given.append((step.name, "check"))

        monkeypatch.setattr(environment, "make", passes)
        monkeypatch.setattr(bed, "make", fails if without_bed else passes)
        monkeypatch.setattr(suite, "run_logged", molecule)
        monkeypatch.setattr(Runner, "_perform", perform)
        assert suite.everything() == (1 if broken or without_bed else 0)
        return given

    return everything


def of(name: str, given: Commands) -> list[str]:
    return [command for scenario, command in given if scenario == name]


def test_everything_is_run_and_what_measures_comes_last(run: Callable[..., Commands]) -> None:
    given = run()
    assert of("deploy", given) == ["test"]
    assert of("audit", given) == []
    assert of("unit tests", given) == of("demonstration", given) == ["check"]
    for name in ("zero_downtime", "faults"):
        assert of(name, given) == ["destroy", "converge", "verify", "destroy"]
    assert {name for name, _ in given[-4:]} == {"zero_downtime", "faults"}
    assert [command for _, command in given[-4:]] == ["verify", "destroy", "verify", "destroy"]


@pytest.mark.parametrize(
    ("broken", "commands"),
    [
        ("converge", ["destroy", "converge", "destroy"]),
        ("verify", ["destroy", "converge", "verify", "destroy"]),
    ],
)
def test_hosts_are_removed_whatever_fails(
    run: Callable[..., Commands], broken: str, commands: list[str]
) -> None:
    given = run(("faults", broken))
    assert of("faults", given) == commands
    assert of("zero_downtime", given) == ["destroy", "converge", "verify", "destroy"]


def test_without_a_test_bed_what_needs_no_host_is_checked(run: Callable[..., Commands]) -> None:
    given = run(without_bed=True)
    assert of("ansible-lint", given) == of("unit tests", given) == ["check"]
    assert {command for _, command in given} == {"check"}
    assert of("demonstration", given) == []


def test_scenarios_that_take_long_come_first(run: Callable[..., Commands]) -> None:
    assert suite.scenarios()[:3] == ["acme", "deploy", "hardening"]
    suite.DURATIONS.write_text('{"python": 30.5, "tls": 31.0}')
    assert suite.scenarios()[:3] == ["tls", "python", "acme"]
