"""A deploy in one call: what two calls promise holds as well."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from ansible_collections.flaskworks.server.plugins.module_utils.release import staging

from tests.unit.release_host import Bench, Killed


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, apps=("hello", "reports"))


def test_one_call_stages_and_switches(bench: Bench) -> None:
    outcomes = bench.ship(eager=True)
    for app in ("hello", "reports"):
        outcome = outcomes[app]
        assert outcome.failure is None
        assert (outcome.changed, outcome.staged) == (True, False)
        assert bench.pointer("current", app) == outcome.release == outcome.serves
        assert set(outcome.seconds) == {"build", "gate", "switch"}
        assert bench.host.running(app) == bench.enabled(app) == {outcome.release}
    assert bench.serving() == "one"


def test_a_second_call_changes_nothing(bench: Bench) -> None:
    bench.ship(eager=True)
    bench.host.steps.clear()
    outcomes = bench.ship()
    assert [outcome.changed for outcome in outcomes.values()] == [False, False]
    assert bench.host.steps == []


def test_without_the_code_nothing_is_begun(bench: Bench) -> None:
    outcomes = bench.ship()
    assert all(outcome.missing for outcome in outcomes.values())
    assert bench.releases() == []
    assert bench.pointer("current") is None


def test_an_app_whose_code_is_missing_stops_all(bench: Bench) -> None:
    bench.ship(eager=True)
    first = bench.pointer("current")
    bench.code["hello"] = bench.code["reports"] = "two"
    changed = bench.source("hello")
    bundles = {changed.digest: str(changed.bundle(bench.root / "cache"))}
    bench.code["reports"] = "three"
    outcomes = bench.ship_with(bundles)
    assert outcomes["hello"].missing is None
    assert outcomes["reports"].missing == bench.source("reports").digest
    assert bench.pointer("current") == first


def test_a_sick_app_holds_all_of_them_back(bench: Bench) -> None:
    assert [one.failure for one in bench.ship(eager=True).values()] == [None, None]
    before = bench.pointer("current"), bench.pointer("current", "reports")
    bench.code.update(hello="two", reports="broken health")
    outcomes = bench.ship(eager=True)
    assert outcomes["reports"].failure is not None
    assert (bench.pointer("current"), bench.pointer("current", "reports")) == before
    assert bench.serving() == "one"


def test_killed_anywhere_something_whole_serves(bench: Bench) -> None:
    bench.ship(eager=True)
    bench.host.steps.clear()
    bench.code["hello"] = "two"
    for number in range(60):
        bench.host.die_after = len(bench.host.steps) + number
        try:
            bench.ship(eager=True)
            break
        except Killed:
            assert bench.serving() in ("one", "two")
            assert bench.pointer("current") in bench.host.running("hello")
        finally:
            bench.host.die_after = None
    else:
        raise AssertionError("the deploy never came to its end")
    assert bench.serving() == "two"


def test_what_cannot_be_taken_back_does_not_hide_the_failure(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.ship(eager=True)
    bench.code.update(hello="two", reports="broken health")

    def fail(*_given: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), "/srv/hello/.staged")

    monkeypatch.setattr(staging, "withdraw", fail)
    outcomes = bench.ship(eager=True)
    assert "503 Service Unavailable" in str(outcomes["reports"].failure)
    assert bench.serving() == "one"
