"""Going back to a release that is there, without root and without systemd."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from ansible_collections.flaskworks.server.plugins.module_utils.release import marks, rollback
from ansible_collections.flaskworks.server.plugins.module_utils.release.ports import Unit
from ansible_collections.flaskworks.server.plugins.module_utils.release.request import ReleaseFailure
from ansible_collections.flaskworks.server.plugins.plugin_utils.agreement import disagreement

from tests.unit.release_host import Bench, Killed


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A host that has served the codes one, two, three, each for an hour."""
    bench = Bench(tmp_path, keep_releases=5)
    for number, code in enumerate(("one", "two", "three")):
        bench.moment = f"20260528T1{number}0000Z"
        bench.code["hello"] = code
        assert bench.deploy()["hello"].failure is None
        bench.host.pass_time(3600)
    bench.moment = ""
    return bench


def name(bench: Bench, moment: str) -> str:
    [found] = [one for one in bench.releases() if one.startswith(moment)]
    return found


def test_goes_back_to_what_served_before(bench: Bench) -> None:
    left = bench.pointer("current")
    outcome = bench.roll_back()["hello"]
    assert outcome.failure is None
    assert outcome.changed
    assert (outcome.release, outcome.previous) == (name(bench, "20260528T110000Z"), left)
    assert bench.serving() == "two"
    bench.host.pass_time(10)
    assert bench.host.running("hello") == bench.enabled() == {outcome.release}
    assert bench.builds == 1
    assert len(bench.uploads) == 3


def test_each_step_goes_further_back_and_never_to_what_was_left(bench: Bench) -> None:
    served = []
    for _ in range(2):
        bench.roll_back()
        served.append(bench.serving())
    assert served == ["two", "one"]
    failure = bench.roll_back()["hello"].failure
    assert failure is not None
    assert failure.startswith("hello: there is nothing to go back to. What is there:\n")
    lines = failure.splitlines()
    assert lines[1].startswith(f"    {name(bench, '20260528T120000Z')} ")
    assert "rolled back by me@here at 2026-05-28 " in lines[1]
    assert lines[3].startswith(f"    {name(bench, '20260528T100000Z')} ")
    assert lines[3].endswith("serves")
    assert bench.serving() == "one"


def test_says_when_nothing_was_deployed_or_nothing_else(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    assert bench.roll_back()["hello"].failure == (
        "hello: there is nothing to go back to: no release was deployed here yet"
    )
    bench.deploy()
    failure = bench.roll_back()["hello"].failure
    assert failure is not None
    assert failure.startswith("hello: there is nothing to go back to. What is there:\n    20260528T202640Z-")
    assert bench.host.running("hello") == {bench.pointer("current")}


@pytest.mark.parametrize("whole", [True, False])
def test_goes_back_to_the_release_that_is_named(bench: Bench, whole: bool) -> None:
    wanted = name(bench, "20260528T100000Z")
    outcome = bench.roll_back(wanted if whole else "20260528T100000Z")["hello"]
    assert outcome.release == wanted
    assert bench.serving() == "one"


def test_a_named_release_may_be_one_that_was_left(bench: Bench) -> None:
    bench.roll_back()
    bench.roll_back("20260528T120000Z")
    assert bench.serving() == "three"
    assert marks.of(bench.release("hello"), name(bench, "20260528T120000Z")) is None
    assert marks.of(bench.release("hello"), name(bench, "20260528T110000Z")) is not None


def test_stays_where_it_is_when_that_is_named(bench: Bench) -> None:
    bench.host.steps.clear()
    outcome = bench.roll_back("20260528T120000Z")["hello"]
    assert (outcome.changed, outcome.failure) == (False, None)
    assert bench.host.steps == []


@pytest.mark.parametrize("wanted", ["20260101T000000Z", "yesterday", "20260528T100000Z-0000000000"])
def test_lists_what_is_there_when_the_name_is_wrong(bench: Bench, wanted: str) -> None:
    failure = bench.roll_back(wanted)["hello"].failure
    assert failure is not None
    one, two, three = (name(bench, f"20260528T1{number}0000Z") for number in range(3))
    assert failure.splitlines() == [
        f"hello: there is no release {wanted} on this host. What is there:",
        f"    {three}    11 h  no revision   serves",
        f"    {two}    12 h  no revision   served before",
        f"    {one}    13 h  no revision",
    ]
    assert bench.serving() == "three"


def test_skips_what_is_bad_and_what_is_damaged(bench: Bench) -> None:
    marks.mark(bench.host, bench.release("hello"), name(bench, "20260528T110000Z"), marks.BAD, "me@here")
    assert bench.roll_back()["hello"].failure is None
    assert bench.serving() == "one"
    bench.roll_back("20260528T120000Z")
    (bench.root / "srv/hello/releases" / name(bench, "20260528T100000Z") / "src/hello.py").unlink()
    assert "nothing to go back to" in str(bench.roll_back()["hello"].failure)
    failure = bench.roll_back("20260528T100000Z")["hello"].failure
    assert failure is not None
    assert "cannot serve again: src/hello.py is missing. What is there:" in failure
    assert bench.serving() == "three"


def test_skips_what_was_only_ever_staged(bench: Bench) -> None:
    bench.code["hello"] = "staged"
    staged = bench.stage()["hello"].release
    bench.host.pass_time(1)
    bench.code["hello"] = "four"
    bench.deploy()
    bench.roll_back()
    assert bench.serving() == "three"
    bench.roll_back()
    assert bench.serving() == "two"
    assert staged in bench.releases()


def test_the_old_settings_come_back_with_the_old_code(bench: Bench) -> None:
    bench.set_variables("hello", "FEATURE=new")
    bench.deploy()
    bench.roll_back()
    place = bench.root / "srv/hello/current"
    assert (place / "environment").read_text().startswith("FEATURE=one\n")
    failure = bench.deploy()["hello"].failure
    assert failure is not None
    assert "which was rolled back by me@here" in failure


def test_a_deploy_afterwards_does_not_bring_back_what_was_left(bench: Bench) -> None:
    bench.roll_back()
    failure = bench.deploy()["hello"].failure
    assert failure is not None
    assert f"this is {name(bench, '20260528T120000Z')} again, which was rolled back by me@here" in failure
    assert failure.endswith("deploy it all the same with -e flask_redeploy=hello")
    assert bench.serving() == "two"
    bench.code["hello"] = "two"
    assert not bench.deploy()["hello"].changed
    bench.code["hello"] = "three"
    bench.redeploy = ["hello"]
    assert bench.deploy()["hello"].failure is None
    assert bench.serving() == "three"


def test_keeps_what_it_could_not_go_back_to(bench: Bench) -> None:
    bench.host.sick.add("one")
    before = bench.releases()
    outcome = bench.roll_back("20260528T100000Z")["hello"]
    assert outcome.failure is not None
    assert "should answer 200" in outcome.failure
    assert bench.releases() == before
    assert bench.serving() == "three"
    assert bench.host.running("hello") == {bench.pointer("current")}
    assert marks.read(bench.release("hello")) == {}
    bench.host.sick.clear()
    assert bench.roll_back("20260528T100000Z")["hello"].failure is None


def test_a_release_that_still_drains_serves_again_at_once(bench: Bench) -> None:
    bench.code["hello"] = "four"
    bench.deploy()
    bench.host.pass_time(1)
    three = name(bench, "20260528T120000Z")
    assert three in bench.host.running("hello")
    bench.roll_back()
    bench.host.pass_time(60)
    assert bench.host.running("hello") == {three}
    assert bench.serving() == "three"


def test_a_release_that_is_stopping_is_waited_for(bench: Bench) -> None:
    unit = f"flask-hello@{name(bench, '20260528T110000Z')}.service"
    bench.host.states[unit] = Unit("deactivating", "stop-sigterm")
    bench.host.ends[unit] = bench.host.time + 7
    outcome = bench.roll_back()["hello"]
    assert outcome.failure is None
    assert bench.serving() == "two"
    assert bench.pointer("current") in bench.host.running("hello")


def test_a_check_changes_nothing(bench: Bench) -> None:
    steps = list(bench.host.steps)
    outcome = bench.go_back(check=True)["hello"]
    assert outcome.staged
    assert outcome.release == name(bench, "20260528T110000Z")
    assert outcome.before != outcome.after
    assert bench.host.steps == steps
    assert bench.host.running("hello") == {bench.pointer("current")}


def test_a_deploy_in_between_is_told(bench: Bench) -> None:
    staged = bench.go_back()
    bench.code["hello"] = "four"
    bench.deploy()
    failure = bench.activate(staged)["hello"].failure
    assert failure is not None
    assert "another deploy came between" in failure
    assert bench.serving() == "four"


def test_switches_back_from_a_release_that_turned_out_bad(bench: Bench) -> None:
    three = name(bench, "20260528T120000Z")
    outcome = rollback.switch_back(bench.job(), bench.release("hello"), three, "it restarted 3 times")
    assert (outcome.release, outcome.previous) == (name(bench, "20260528T110000Z"), three)
    assert outcome.serves == outcome.release
    assert bench.serving() == "two"
    failure = bench.deploy()["hello"].failure
    assert failure is not None
    assert f"this is {three} again, which was marked bad by me@here at" in failure
    assert "(it restarted 3 times)" in failure
    with pytest.raises(ReleaseFailure, match=f"{three} does not serve any more, but {outcome.release}"):
        rollback.switch_back(bench.job(), bench.release("hello"), three, "it restarted 3 times")


def steps_of_a_roll_back(root: Path) -> int:
    bench = Bench(root)
    bench.deploy()
    bench.code["hello"] = "two"
    bench.deploy()
    bench.host.pass_time(60)
    before = len(bench.host.steps)
    bench.roll_back()
    return len(bench.host.steps) - before


STEPS = 20  # at least as many as a roll back has


@pytest.mark.parametrize("number", range(STEPS))
def test_killed_at_any_step(tmp_path: Path, number: int) -> None:
    """What serves runs; the same command again brings what was meant, and no deploy undoes it unasked."""
    bench = Bench(tmp_path)
    bench.deploy()
    first = bench.pointer("current")
    bench.code["hello"] = "two"
    bench.deploy()
    second = bench.pointer("current")
    bench.host.pass_time(60)
    bench.host.die_after = len(bench.host.steps) + number
    with suppress(Killed):
        bench.roll_back()
    bench.host.die_after = None
    serves = bench.pointer("current")
    assert serves in (first, second)
    assert serves in bench.host.running("hello")
    assert serves in bench.enabled()
    if serves == first:
        assert bench.deploy()["hello"].failure is not None
    else:
        assert not bench.deploy()["hello"].changed
    assert bench.roll_back(str(first).partition("-")[0])["hello"].failure is None
    assert bench.serving() == "one"
    bench.host.pass_time(60)
    bench.deploy()
    assert bench.serving() == "one"
    bench.code["hello"] = "one"
    assert bench.deploy()["hello"].failure is None
    bench.host.pass_time(60)
    assert bench.host.running("hello") == bench.enabled() == {first}


def test_a_roll_back_was_killed_at_all_its_steps(tmp_path: Path) -> None:
    assert 8 < steps_of_a_roll_back(tmp_path) <= STEPS


def test_goes_back_when_a_kill_left_both_pointers_the_same(bench: Bench) -> None:
    bench.code["hello"] = "four"
    staged = bench.stage()
    steps = bench.host.steps
    bench.host.die_at = "order drain"
    with pytest.raises(Killed):
        bench.activate(staged)
    bench.host.die_at = None
    assert steps[-1] == "point previous"
    assert bench.pointer("previous") == bench.pointer("current")
    bench.roll_back()
    assert bench.serving() == "two"


def result(serves: str, goes: str, *there: str) -> dict[str, object]:
    return {"apps": {"hello": {"release": goes, "previous": serves, "there": [serves, goes, *there]}}}


def test_hosts_agree_by_moment() -> None:
    assert disagreement({}) == ""
    assert disagreement({"a": {}, "b": {"apps": {}}}) == ""
    assert (
        disagreement(
            {
                "a": result("20260528T120000Z-aaaaaaaaaa", "20260528T110000Z-aaaaaaaaaa"),
                "b": result("20260528T120000Z-bbbbbbbbbb", "20260528T110000Z-bbbbbbbbbb"),
                "c": {"changed": False, "apps": {}},
            }
        )
        == ""
    )


def test_hosts_that_would_go_back_to_different_releases() -> None:
    assert disagreement(
        {
            "web1": result("20260528T120000Z-aa", "20260528T110000Z-aa", "20260528T100000Z-aa"),
            "web10": result("20260528T110000Z-bb", "20260528T100000Z-bb"),
            "web2": result("20260528T110000Z-cc", "20260528T110000Z-cc", "20260528T100000Z-cc"),
        }
    ).splitlines() == [
        "hello: not all hosts would go back to the same release, so none of them was switched:",
        "    web1   serves 20260528T120000Z and would go back to 20260528T110000Z",
        "    web10  serves 20260528T110000Z and would go back to 20260528T100000Z",
        "    web2   serves 20260528T110000Z and would stay with it",
        "  Name one that all of them have: -e release=20260528T110000Z or 20260528T100000Z",
    ]


def test_hosts_without_a_release_in_common() -> None:
    told = disagreement(
        {"a": result("20260528T120000Z-aa", "20260528T110000Z-aa"), "b": result("x-1", "y-1")}
    )
    assert told.splitlines()[-1] == (
        "  They have no release in common: go back host by host, with --limit and -e release="
    )


def test_hosts_with_different_apps() -> None:
    assert disagreement({"a": {"apps": {"hello": {}}}, "b": {"apps": {"shop": {}}}}) == (
        "the hosts of this play have several apps (hello, shop); say which one goes back, as in -e app=hello"
    )
