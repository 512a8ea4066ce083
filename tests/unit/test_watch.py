"""What was switched to is watched for a while, and left again when it gets into trouble."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.flaskworks.server.plugins.module_utils.release import history, marks, watch
from ansible_collections.flaskworks.server.plugins.module_utils.release.ports import Answer, Unit
from ansible_collections.flaskworks.server.plugins.module_utils.release.staging import Outcome

from tests.unit.release_host import Bench

FINE = Answer(200, "200 OK")
BUSY = Answer(503, "503 Service Unavailable, 'no database'")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A host on which a first release was replaced by a second a moment ago."""
    bench = Bench(tmp_path, watch=30)
    bench.deploy()
    bench.host.pass_time(100)
    bench.code["hello"] = "two"
    bench.deploy()
    bench.host.probed.clear()
    return bench


def watched(bench: Bench, elapsed: float = 0) -> Outcome:
    live = {"hello": str(bench.pointer("current"))}
    return watch.watch(bench.job(), [bench.release("hello")], live, elapsed)["hello"]


def service(bench: Bench) -> str:
    return f"flask-hello@{bench.pointer('current')}.service"


def answers(bench: Bench, monkeypatch: pytest.MonkeyPatch, answer: Callable[[int], Answer]) -> None:
    """Let the release that serves now answer its n-th probe so; others are fine."""
    place, asked = str(bench.pointer("current")), [0]

    def probe(path: str, *_more: object) -> Answer:
        if place not in path:
            return FINE
        asked[0] += 1
        return answer(asked[0])

    monkeypatch.setattr(bench.host, "probe", probe)


def test_a_good_release_is_watched_for_its_time(bench: Bench) -> None:
    begin, name = bench.host.clock(), bench.pointer("current")
    outcome = watched(bench)
    assert (outcome.failure, outcome.changed, outcome.serves) == (None, False, name)
    assert 30 <= bench.host.clock() - begin < 31
    assert len(bench.host.probed) == 61  # every half a second


@pytest.mark.parametrize("lost", [{1, 2}, {5, 6, 8, 9}, {60, 61}])
def test_lost_probes_are_no_trouble(bench: Bench, monkeypatch: pytest.MonkeyPatch, lost: set[int]) -> None:
    answers(bench, monkeypatch, lambda number: BUSY if number in lost else FINE)
    assert watched(bench).failure is None
    assert bench.serving() == "two"


@pytest.mark.parametrize("first", [1, 20, 60])
def test_three_failed_probes_in_a_row_switch_back(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, first: int
) -> None:
    """Also when the time of the watch is over with the second of them."""
    old, bad = bench.pointer("previous"), bench.pointer("current")
    answers(bench, monkeypatch, lambda number: BUSY if number >= first else FINE)
    outcome = watched(bench)
    assert (outcome.changed, outcome.serves, outcome.previous) == (True, old, bad)
    assert outcome.trouble == (
        "GET /healthz should answer 200 and did not, 3 times in a row; "
        "the last answer was: 503 Service Unavailable, 'no database'"
    )
    assert str(outcome.failure).startswith(f"hello: {bad} got into trouble after the switch: GET /healthz")
    assert f"flask-hello@{bad}.service said this" in str(outcome.failure)
    assert f"It was switched back to {old}, and {bad} is marked bad." in str(outcome.failure)
    assert bench.serving() == "one"
    assert bench.pointer("previous") == bad
    mark = marks.of(bench.release("hello"), str(bad))
    assert mark is not None
    assert (mark.state, mark.who) == ("bad", "me@here")
    assert history.last(str(bench.root / "srv/hello"), 1)[0]["what"] == "switch back"
    bench.host.pass_time(100)
    assert bench.host.running("hello") == bench.enabled() == {old}


def test_what_was_left_is_not_deployed_again_unasked(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(bench, monkeypatch, lambda _number: BUSY)
    watched(bench)
    failure = bench.deploy()["hello"].failure
    assert "marked bad by me@here" in str(failure)
    assert "flask_redeploy=hello" in str(failure)
    assert bench.serving() == "one"


def test_the_release_before_is_kept_running_for_the_watch(bench: Bench) -> None:
    old = str(bench.pointer("previous"))
    bench.host.pass_time(30)
    assert old in bench.host.running("hello")
    bench.host.pass_time(40)
    assert bench.host.running("hello") == {bench.pointer("current")}


def test_one_that_has_stopped_is_started_for_the_way_back(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.host.pass_time(1000)
    old = bench.pointer("previous")
    assert old not in bench.host.running("hello")
    answers(bench, monkeypatch, lambda _number: BUSY)
    assert watched(bench).changed
    assert (bench.pointer("current"), bench.serving()) == (old, "one")
    assert old in bench.host.running("hello")


@pytest.mark.parametrize(
    ("unit", "told"),
    [
        (Unit("failed", "failed", "exit-code"), "its service failed (exit-code)"),
        (Unit("active", "running", restarts=1), "its service ended and was started again"),
        (Unit("active", "running", main=77), "its service ended and was started again"),
        (Unit("activating", "auto-restart", "signal"), "its service does not run (activating, signal)"),
    ],
)
def test_a_service_that_ends_switches_back(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, unit: Unit, told: str
) -> None:
    name = service(bench)

    def answer(number: int) -> Answer:
        if number == 10:
            bench.host.states[name] = unit
        return FINE

    answers(bench, monkeypatch, answer)
    assert watched(bench).trouble == told
    assert bench.serving() == "one"


def test_a_service_that_was_started_again_before_the_watch_began(bench: Bench) -> None:
    bench.host.states[service(bench)] = Unit("active", "running", started=bench.host.clock() - 2)
    assert watched(bench, elapsed=3).trouble == "its service ended and was started again"
    assert bench.serving() == "one"


def test_a_service_that_started_before_the_switch_is_fine(bench: Bench) -> None:
    bench.host.states[service(bench)] = Unit("active", "running", restarts=1, started=bench.host.clock() - 4)
    assert watched(bench, elapsed=3).failure is None


def test_a_service_manager_that_does_not_answer_once_is_no_trouble(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, asked = bench.host.watch, [0]

    def busy(unit: str) -> Unit:
        asked[0] += 1
        return Unit() if asked[0] == 7 else real(unit)

    monkeypatch.setattr(bench.host, "watch", busy)
    assert watched(bench).failure is None


def test_another_switch_ends_the_watch(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(number: int) -> Answer:
        if number == 3:
            bench.code["hello"] = "three"
            bench.deploy()
        return BUSY if number == 3 else FINE

    begin = bench.host.clock()
    answers(bench, monkeypatch, answer)
    outcome = watched(bench)
    assert outcome.failure is None
    assert bench.host.clock() - begin < 10
    assert bench.serving() == "three"


def test_without_a_release_before_it_the_bad_one_serves_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, watch=30)
    bench.deploy()
    answers(bench, monkeypatch, lambda _number: BUSY)
    outcome = watched(bench)
    assert "It was not switched back: there is nothing to go back to" in str(outcome.failure)
    assert str(outcome.failure).endswith(f"{bench.pointer('current')} serves.")
    assert not outcome.changed
    assert bench.serving() == "one"


def test_when_both_are_unwell_the_new_one_serves_on(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that is away is no fault of the release."""
    bad = bench.pointer("current")
    monkeypatch.setattr(bench.host, "probe", lambda *_given: BUSY)
    outcome = watched(bench)
    assert "It was not switched back: not healthy within 5 s" in str(outcome.failure)
    assert (outcome.changed, outcome.serves) == (False, bad)
    assert marks.of(bench.release("hello"), str(bad)) is None
    assert {str(bad)} <= bench.host.running("hello")


def test_other_hosts_switch_back_too(bench: Bench) -> None:
    old, bad = bench.pointer("previous"), str(bench.pointer("current"))
    releases = [bench.release("hello")]
    outcome = watch.withdraw(bench.job(), releases, {"hello": bad}, {"hello": "on web1: it crashed"})["hello"]
    assert (outcome.failure, outcome.warning) == (None, None)
    assert (outcome.changed, outcome.serves) == (True, old)
    mark = marks.of(bench.release("hello"), bad)
    assert mark is not None
    assert (mark.state, mark.why) == ("bad", "on web1: it crashed")
    again = watch.withdraw(bench.job(), releases, {"hello": bad}, {"hello": "on web1: it crashed"})["hello"]
    assert not again.changed
    assert "does not serve any more" in str(again.warning)
    assert again.serves == old


def test_all_apps_are_watched_at_once(tmp_path: Path) -> None:
    names = [f"app{letter}" for letter in "abcdefgh"]
    bench = Bench(tmp_path, names, watch=2)
    bench.deploy()
    live = {name: str(bench.pointer("current", name)) for name in names}
    outcomes = watch.watch(bench.job(), [bench.release(name) for name in names], live)
    assert [outcome.failure for outcome in outcomes.values()] == [None] * 8
