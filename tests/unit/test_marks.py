"""Names of releases, the moment of a run, and what keeps a bad release from being deployed again."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from ansible_collections.flaskworks.server.plugins.module_utils.release import ids, marks
from ansible_collections.flaskworks.server.plugins.plugin_utils import runs

from tests.unit.release_host import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_an_id_is_a_moment_and_a_digest() -> None:
    name = ids.make(1_780_000_000, "3fb1c0de42a7")
    assert name == "20260528T202640Z-3fb1c0de42"
    assert ids.moment(name) == ids.moment("20260528T202640Z") == 1_780_000_000
    assert ids.is_id(name)
    assert not ids.is_id("20261399T202640Z-3fb1c0de42")
    assert not ids.is_id("20260528T202640Z")
    assert not ids.is_id("20260528T202640Z-3fb1c0de4")
    assert not ids.is_id(f"{name}\n")
    assert ids.same(name, "20260528T202640Z")
    assert ids.same(name, name)
    assert not ids.same(name, "20260528T202640Z-0000000000")


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (-3, "0 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (3599, "59 min"),
        (3 * 3600, "3 h"),
        (86400, "1 d"),
        (86400 * 400, "400 d"),
    ],
)
def test_an_age_is_told_in_its_largest_unit(seconds: float, told: str) -> None:
    assert ids.age(seconds) == told


def test_all_workers_of_a_run_get_one_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_780_000_000.0)
    assert runs.run_moment(tmp_path) == "20260528T202640Z"
    monkeypatch.setattr(time, "time", lambda: 1_780_000_099.0)
    assert runs.run_moment(tmp_path) == "20260528T202640Z"
    monkeypatch.setattr(os, "getppid", os.getpid)  # another run: its workers have another parent
    assert runs.run_moment(tmp_path) == "20260528T202819Z"


def test_the_moment_of_a_run_long_past_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs.run_moment(tmp_path)
    [old] = (tmp_path / "answers").iterdir()
    os.utime(old, (1, 1))
    monkeypatch.setattr(os, "getppid", os.getpid)
    runs.run_moment(tmp_path)
    assert len(list((tmp_path / "answers").iterdir())) == 1
    assert not old.exists()


def test_a_release_is_named_by_the_moment_when_the_deploy_began(bench: Bench) -> None:
    bench.moment = "20260528T120000Z"
    assert str(bench.deploy()["hello"].release).startswith("20260528T120000Z-")
    bench.code["hello"] = "two"
    assert str(bench.deploy()["hello"].release).startswith("20260528T120001Z-")  # a moment names one release


def back_to_one(bench: Bench, state: str = marks.ROLLED_BACK) -> str:
    """Deploy two releases, hold something against the second, and let the first serve again."""
    bench.deploy()
    bench.code["hello"] = "two"
    second = str(bench.deploy()["hello"].release)
    bench.code["hello"] = "one"
    bench.deploy()
    marks.mark(bench.host, bench.release("hello"), second, state, "me@here", "it sold tickets twice")
    bench.code["hello"] = "two"
    return second


def test_what_is_marked_is_not_deployed_again(bench: Bench) -> None:
    second = back_to_one(bench)
    steps, uploads = list(bench.host.steps), list(bench.uploads)
    outcome = bench.deploy()["hello"]
    assert outcome.failure == (
        f"hello: this is {second} again, which was rolled back by me@here at 2026-05-28 20:26:41 UTC "
        "(it sold tickets twice); change the code or the configuration, or deploy it all the same with "
        "-e flask_redeploy=hello"
    )
    assert bench.stage(check=True)["hello"].failure == outcome.failure
    assert bench.host.steps == steps
    assert bench.uploads == uploads
    assert bench.serving() == "one"


def test_what_serves_is_left_alone(bench: Bench) -> None:
    back_to_one(bench)
    bench.code["hello"] = "one"
    assert not bench.deploy()["hello"].changed


def test_another_code_or_another_setting_is_another_release(bench: Bench) -> None:
    back_to_one(bench, marks.BAD)
    bench.code["hello"] = "three"
    assert bench.deploy()["hello"].failure is None
    bench.code["hello"] = "two"
    bench.set_variables("hello", "FEATURE=corrected")
    assert bench.deploy()["hello"].failure is None
    assert bench.serving() == "two"


def test_an_upgraded_interpreter_or_unit_file_makes_nothing_good(bench: Bench) -> None:
    second = back_to_one(bench, marks.BAD)
    for kind in ("service", "socket"):
        with (bench.root / "units" / f"flask-hello@.{kind}").open("a") as file:
            file.write("# another line\n")
    bench.settings = {
        "environment": {
            "directory": str(bench.root / "srv/hello/environments"),
            "interpreter": "python",
            "server": "gunicorn>=99",
        }
    }
    failure = bench.deploy()["hello"].failure
    assert failure is not None
    assert f"this is {second} again, which was marked bad by me@here" in failure


def test_the_word_to_deploy_it_all_the_same_is_needed_once(bench: Bench) -> None:
    back_to_one(bench)
    bench.redeploy = ["hello"]
    assert bench.deploy()["hello"].failure is None
    assert bench.serving() == "two"
    bench.redeploy = []
    assert marks.read(bench.release("hello")) == {}
    bench.code["hello"] = "one"
    bench.deploy()
    bench.code["hello"] = "two"
    assert bench.deploy()["hello"].failure is None


def test_marks_outlive_their_release(bench: Bench) -> None:
    second = back_to_one(bench)
    for code in ("a", "b", "c", "d"):
        bench.code["hello"] = code
        bench.host.pass_time(60)
        bench.deploy()
    assert second not in bench.releases()
    bench.code["hello"] = "two"
    failure = bench.deploy()["hello"].failure
    assert failure is not None
    assert f"this is {second} again" in failure


@pytest.mark.parametrize("content", ["", "[]", '{"a": 1}', '{"a": {"release": "x"}}'])
def test_a_file_of_marks_that_cannot_be_read_stops_no_deploy(bench: Bench, content: str) -> None:
    second = back_to_one(bench)
    (bench.root / "srv/hello/.marks.json").write_text(content)
    release = bench.release("hello")
    assert marks.read(release) == {}
    marks.mark(bench.host, release, second, marks.BAD, "me@here")
    mark = marks.of(release, second)
    assert mark is not None
    assert (mark.release, mark.state, mark.who) == (second, "bad", "me@here")
    marks.unmark(bench.host, release, second)
    assert marks.of(release, second) is None


def test_the_oldest_marks_are_forgotten(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(marks, "KEPT", 1)
    second = back_to_one(bench)
    release = bench.release("hello")
    bench.host.pass_time(1)
    marks.mark(bench.host, release, str(bench.pointer("current")), marks.BAD, "me@here")
    assert marks.of(release, second) is None
