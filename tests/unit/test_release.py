"""Releases on a host, without root and without systemd."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.flaskworks.server.plugins.module_utils import environment as environments
from ansible_collections.flaskworks.server.plugins.module_utils.release import (
    building,
    gate,
    locking,
    staging,
)
from ansible_collections.flaskworks.server.plugins.module_utils.release.gate import excerpt, telling
from ansible_collections.flaskworks.server.plugins.module_utils.release.ports import Answer, Unit
from ansible_collections.flaskworks.server.plugins.module_utils.release.request import (
    ReleaseFailure,
    in_words,
    parse,
)
from ansible_collections.flaskworks.server.plugins.plugin_utils.sources.base import Entry, Source

from tests.unit.release_host import Bench, Killed


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_first_deploy_serves(bench: Bench) -> None:
    outcome = bench.deploy()["hello"]
    assert outcome.changed
    assert bench.serving() == "one"
    assert bench.pointer("current") == outcome.release
    assert bench.pointer("previous") is None
    assert bench.host.running("hello") == bench.enabled() == {outcome.release}


def test_a_release_holds_everything_that_it_runs_with(bench: Bench) -> None:
    name = bench.deploy()["hello"].release
    place = bench.root / "srv/hello/releases" / str(name)
    assert (place / "static/static/style.css").read_text() == "body {}"
    assert (place / "gunicorn.conf.py").read_text() == "workers = 2\n"
    assert (
        place / "environment"
    ).read_text() == f"FEATURE=one\nFLASK_RELEASE={name}\nPYTHONPATH={place}/src\n"
    assert (place / "environment").stat().st_mode & 0o777 == 0o600
    assert (place / "venv/bin/python").exists()
    assert list((place / "src/__pycache__").iterdir())


def test_a_static_file_is_dated_by_the_release_that_brought_its_content(bench: Bench) -> None:
    """A proxy makes its validators of time and size: equal times would serve stale copies of equal size."""

    def dates() -> tuple[int, int]:
        static = bench.root / "srv/hello/current/static/static"
        return int((static / "style.css").stat().st_mtime), int((static / "mark.css").stat().st_mtime)

    bench.deploy()
    first = dates()
    assert first == (1_780_000_000, 1_780_000_000)
    bench.code["hello"] = "two"
    bench.host.pass_time(100)
    bench.deploy()
    second = dates()
    assert second[0] == first[0]
    assert second[1] >= first[1] + 100


def test_nothing_new_changes_nothing(bench: Bench) -> None:
    first = bench.deploy()["hello"]
    bench.host.steps.clear()
    again = bench.deploy()["hello"]
    assert not again.changed
    assert again.release == first.release
    assert bench.host.steps == []


def test_the_old_release_drains_after_the_linger(bench: Bench) -> None:
    old = bench.deploy()["hello"].release
    bench.code["hello"] = "two"
    new = bench.deploy()["hello"]
    assert new.previous == bench.pointer("previous") == old
    bench.host.pass_time(3.9)
    assert bench.host.running("hello") == {old, new.release}
    bench.host.pass_time(0.5)
    assert bench.host.running("hello") == bench.enabled() == {new.release}


def test_going_back_in_the_linger_keeps_what_serves(bench: Bench) -> None:
    first = bench.deploy()["hello"].release
    for code in ("two", "one", "three", "one"):
        bench.code["hello"] = code
        bench.deploy()
        bench.host.pass_time(1)
    bench.host.pass_time(60)
    assert bench.pointer("current") == first
    assert bench.host.running("hello") == {first}


@pytest.mark.parametrize("how", ["import", "health"])
def test_a_broken_release_leaves_no_trace(bench: Bench, how: str) -> None:
    good = bench.deploy()["hello"].release
    bench.code["hello"] = f"broken {how}"
    outcome = bench.stage()["hello"]
    assert outcome.failure is not None
    assert "hello: " in outcome.failure
    assert "said this" in outcome.failure
    assert bench.releases() == [good]
    assert bench.host.running("hello") == bench.enabled() == {good}
    assert bench.serving() == "one"


def test_a_broken_app_takes_the_others_back(tmp_path: Path) -> None:
    bench = Bench(tmp_path, ("hello", "other", "third"))
    assert not any(one.failure for one in bench.deploy().values())
    before = {app: bench.pointer("current", app) for app in bench.code}
    bench.code.update(hello="two", other="broken health", third="broken import")
    outcomes = bench.stage()
    assert [app for app, one in outcomes.items() if one.failure] == ["other", "third"]
    assert not any(one.staged for one in outcomes.values())
    assert {app: bench.pointer("current", app) for app in bench.code} == before
    assert bench.host.running("hello") == {before["hello"]}
    bench.uploads.clear()
    bench.code.update(other="three", third="three")
    bench.deploy()
    assert bench.serving("hello") == "two"
    assert bench.source("hello").digest not in bench.uploads


def test_changed_variables_are_a_release_with_the_same_code(bench: Bench) -> None:
    first = bench.deploy()["hello"].release
    bench.uploads.clear()
    bench.set_variables("hello", "FEATURE=two")
    second = bench.deploy()["hello"].release
    assert first != second
    assert bench.uploads == []
    assert bench.builds == 1
    inodes = {
        (bench.root / "srv/hello/releases" / str(name) / "src/hello.py").stat().st_ino
        for name in (first, second)
    }
    assert len(inodes) == 1


def test_damaged_code_is_sent_again(bench: Bench) -> None:
    name = str(bench.deploy()["hello"].release)
    (bench.root / "srv/hello/releases" / name / "src/hello.py").write_text("scribble")
    bench.uploads.clear()
    bench.set_variables("hello", "FEATURE=two")
    bench.deploy()
    assert bench.uploads == [bench.source("hello").digest]
    assert bench.serving() == "one"


def test_secrets_are_digested_with_a_key_of_the_host(tmp_path: Path) -> None:
    digests = []
    for name in ("a", "b"):
        bench = Bench(tmp_path / name)
        release = bench.deploy()["hello"].release
        record = json.loads((bench.root / "srv/hello/releases" / str(release) / "release.json").read_text())
        digests.append(record["parts"]["variables"])
        assert (bench.root / "etc/.digest-key").stat().st_mode & 0o777 == 0o600
    assert digests[0] != digests[1]


def test_check_mode_foresees_and_writes_nothing(bench: Bench) -> None:
    outcome = bench.stage(check=True)["hello"]
    assert outcome.changed
    assert outcome.after["variables"] == "not digested"[:12]
    assert bench.host.steps == []
    assert bench.releases() == []
    bench.deploy()
    assert not bench.stage(check=True)["hello"].changed
    bench.code["hello"] = "two"
    foreseen = bench.stage(check=True)["hello"]
    assert foreseen.changed
    assert [key for key in foreseen.after if foreseen.after[key] != foreseen.before[key]] == ["source"]
    assert len(bench.uploads) == 1


def test_check_mode_on_a_bare_host(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    for path in (*tmp_path.glob("etc/hello/*"), *tmp_path.glob("units/*")):
        path.unlink()
    (tmp_path / "etc/hello").rmdir()
    (tmp_path / "srv/hello").rmdir()
    assert bench.stage(check=True)["hello"].changed
    failure = bench.stage()["hello"].failure
    assert failure is not None
    assert "provision the host first" in failure


def test_a_dead_live_release_is_started_again(bench: Bench) -> None:
    name = bench.deploy()["hello"].release
    bench.host.states.clear()
    outcome = bench.deploy()["hello"]
    assert outcome.release == name
    assert bench.host.running("hello") == {name}
    assert bench.pointer("previous") is None


def test_two_deploys_between_each_other(bench: Bench) -> None:
    bench.deploy()
    bench.code["hello"] = "mine"
    mine = bench.stage(who="me@here")
    bench.code["hello"] = "theirs"
    theirs = bench.stage(who="them@there")
    failure = bench.activate(mine)["hello"].failure
    assert failure is not None
    assert "them@there" in failure
    assert bench.activate(theirs)["hello"].failure is None
    assert bench.serving() == "theirs"
    bench.host.pass_time(10)
    assert bench.host.running("hello") == {theirs["hello"].release}


def test_a_deploy_with_nothing_to_do_spares_the_candidate_of_another(bench: Bench) -> None:
    bench.deploy()
    bench.code["hello"] = "mine"
    mine = bench.stage()
    bench.code["hello"] = "one"
    assert not bench.deploy()["hello"].changed
    assert bench.activate(mine)["hello"].failure is None
    assert bench.serving() == "mine"


def test_an_abandoned_candidate_is_stopped_in_the_end(bench: Bench) -> None:
    live = bench.deploy()["hello"].release
    bench.code["hello"] = "abandoned"
    bench.stage()
    bench.code["hello"] = "one"
    bench.host.pass_time(8000)
    bench.deploy()
    assert bench.host.running("hello") == {live}


def test_the_lock_names_its_holder(bench: Bench) -> None:
    release = bench.release("hello")
    with locking.locked(bench.host, release, "them@there", "stage"):
        assert "locked by them@there" in str(bench.stage()["hello"].failure)
    bench.deploy()
    bench.code["hello"] = "two"
    with locking.locked(bench.host, release, "them@there", "stage"):
        failure = bench.stage()["hello"].failure
    assert failure is not None
    assert "locked by them@there since 20" in failure


def test_old_releases_and_their_environments_are_pruned(bench: Bench) -> None:
    first = str(bench.deploy()["hello"].release)
    for number in range(6):
        bench.code["hello"] = f"number {number}"
        bench.deploy()
        bench.host.pass_time(10)
    assert len(bench.releases()) == 3
    assert first not in bench.releases()
    assert bench.pointer("previous") in bench.releases()


def test_probes_look_like_requests_through_the_proxy(bench: Bench) -> None:
    bench.deploy()
    assert len(bench.host.probed) == 3
    lines = bench.host.probed[0].decode().split("\r\n")
    assert lines[0] == "GET /healthz HTTP/1.1"
    assert "Host: hello.example.org" in lines
    assert "X-Forwarded-Proto: https" in lines
    assert "X-Forwarded-Port: 443" in lines


def test_a_probe_names_a_port_that_is_not_the_usual_one(tmp_path: Path) -> None:
    bench = Bench(tmp_path, origin="https://hello.example.org:8443")
    lines = gate.request(bench.release("hello")).decode().split("\r\n")
    assert "Host: hello.example.org:8443" in lines
    assert "X-Forwarded-Host: hello.example.org:8443" in lines
    assert "X-Forwarded-Port: 8443" in lines


def test_an_answer_of_another_process_proves_nothing(bench: Bench) -> None:
    bench.deploy()
    bench.code["hello"] = "stale"
    failure = bench.deploy()["hello"].failure
    assert failure is not None
    assert "the answers do not come from this release" in failure
    assert "the last answer was: 200 OK, but process 4711 listens on its socket." in failure
    assert bench.serving() == "one"
    assert len(bench.host.probed) == 3 + 3  # a few are enough: no other process will take its place


@pytest.mark.parametrize(
    ("earlier", "shown"),
    [
        (["Booting worker with pid: 5"], "    Booting worker with pid: 5\n"),
        ([], "    (none; systemd says: active (running), success, 0 restarts)\n"),
    ],
)
def test_a_silent_service_is_not_told_as_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, earlier: list[str], shown: str
) -> None:
    monkeypatch.setattr(bench.host, "journal", lambda _unit, since, _lines: [] if since else earlier)
    bench.code["hello"] = "broken health"
    failure = bench.deploy()["hello"].failure
    assert failure is not None
    assert shown in failure
    assert "(nothing)" not in failure


def test_what_an_app_has_written_to_its_own_log_is_told(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.host, "journal", lambda *_: ["Started hello."])
    bench.settings["output"] = str(bench.root / "output.log")
    when = datetime.fromtimestamp(bench.host.now(), tz=UTC)
    stamps = [f"[{one:%Y-%m-%d %H:%M:%S %z}] [5] [ERROR]" for one in (when - timedelta(seconds=60), when)]
    (bench.root / "output.log").write_text(f"{stamps[0]} of old\nlong ago\n{stamps[1]} KeyError\nprinted\n")
    bench.code["hello"] = "broken health"
    failure = bench.deploy()["hello"].failure
    assert failure is not None
    assert f"    Started hello.\n    {stamps[1]} KeyError\n    printed\n" in failure
    assert "long ago" not in failure


@pytest.mark.parametrize("number", range(60))
def test_killed_at_any_step_of_a_deploy(tmp_path: Path, number: int) -> None:
    bench = Bench(tmp_path)
    old = bench.deploy()["hello"].release
    bench.code["hello"] = "two"
    bench.host.steps.clear()
    bench.host.die_after = number
    with contextlib.suppress(Killed):
        bench.deploy()
    bench.host.die_after = None
    assert bench.serving() in ("one", "two")
    assert bench.pointer("current") in bench.host.running("hello")
    bench.deploy()
    assert bench.serving() == "two"
    bench.host.pass_time(10)
    assert bench.host.running("hello") == bench.enabled() == {bench.pointer("current")}
    assert old in bench.releases()
    assert not [name for name in bench.releases() if name.startswith(".")]


@pytest.mark.parametrize("number", range(60))
def test_the_deploy_after_a_killed_one_leaves_no_order_for_what_is_gone(tmp_path: Path, number: int) -> None:
    bench = Bench(tmp_path)
    bench.deploy()
    bench.code["hello"] = "two"
    bench.host.steps.clear()
    bench.host.die_after = number
    with contextlib.suppress(Killed):
        bench.deploy()
    bench.host.die_after = None
    bench.code["hello"] = "three"
    assert bench.deploy()["hello"].failure is None
    assert set(bench.host.timers) <= {f"flask-hello-drain-{name}" for name in bench.host.running("hello")}
    bench.host.pass_time(10)
    assert bench.host.timers == {}


@pytest.mark.parametrize("number", range(26))
def test_killed_at_any_step_of_the_first_deploy(tmp_path: Path, number: int) -> None:
    bench = Bench(tmp_path)
    bench.host.die_after = number
    with contextlib.suppress(Killed):
        bench.deploy()
    bench.host.die_after = None
    # Either nothing is promised yet, or what is promised also runs.
    killed_at = bench.pointer("current")
    assert killed_at is None or killed_at in bench.host.running("hello")
    outcome = bench.deploy()["hello"]
    assert outcome.failure is None
    assert bench.serving() == "one"
    assert bench.pointer("current") == (killed_at or outcome.release)
    assert bench.pointer("previous") is None
    bench.host.pass_time(8000)
    assert not bench.deploy()["hello"].changed
    assert bench.host.running("hello") == bench.enabled() == {bench.pointer("current")}
    assert bench.releases() == [bench.pointer("current")]


def test_the_first_deploy_was_killed_at_all_its_steps(bench: Bench) -> None:
    bench.deploy()
    assert 10 < len(bench.host.steps) < 26


def test_the_apps_own_traceback_is_shown() -> None:
    lines = [
        "Traceback (most recent call last):",
        '  File "hello.py", line 1',
        '  File "<frozen importlib._bootstrap>", line 1',
        "RuntimeError: broken",
        "[ERROR] Worker (pid:2) exited with code 3.",
        "Traceback (most recent call last):",
        '  File "arbiter.py", line 1',
        "gunicorn.errors.HaltServer: <HaltServer 'Worker failed to boot.' 3>",
        "During handling of the above exception, another exception occurred:",
        "Traceback (most recent call last):",
        '  File "arbiter.py", line 2',
        "gunicorn.errors.HaltServer: <HaltServer 'Worker failed to boot.' 3>",
    ]
    assert telling(lines) == [lines[0], lines[1], lines[3], lines[4]]


def test_the_chatter_of_a_restart_does_not_hide_the_traceback() -> None:
    error = ["Traceback (most recent call last):", '  File "hello.py", line 1', "RuntimeError: broken"]
    chatter = [f"[INFO] line {number}" for number in range(1, 41)]
    assert excerpt([*chatter, *error, *chatter[:12]]) == [*error, *chatter[:12]]
    assert excerpt([*chatter, *error, *chatter]) == [*error, "…", *chatter[36:]]
    long = [error[0], *(f"  line {number}" for number in range(1, 31)), error[2]]
    shown = [*(f"  line {number}" for number in range(22, 31)), error[2], "…", *chatter[36:]]
    assert excerpt([*long, *chatter]) == shown
    assert excerpt(chatter) == chatter[25:]


def test_links_that_leave_the_source_are_refused_on_the_host(tmp_path: Path) -> None:
    """The controller refuses them too; root copies static files, so the host does not rely on that."""
    source = tmp_path / "src"
    (source / "a/b/c").mkdir(parents=True)
    (source / "static").mkdir()
    (source / "a/b/c/up").symlink_to("../../..")
    (source / "static/inside").symlink_to("../a")
    building._refuse_escapes(str(source), str(source))
    (source / "static/leak").symlink_to("../a/b/c/up/../outside")
    with pytest.raises(ReleaseFailure, match="the link static/leak leads out of the source"):
        building._refuse_escapes(str(source), str(source))
    with pytest.raises(ReleaseFailure, match="the link leak leads out of the source"):
        building._refuse_escapes(str(source / "static"), str(source))


def test_a_release_that_still_ends_its_requests_is_not_started_again(bench: Bench) -> None:
    first = str(bench.deploy()["hello"].release)
    bench.code["hello"] = "two"
    bench.deploy()
    bench.host.pass_time(5)
    service = f"flask-hello@{first}.service"
    bench.host.states[service] = ending = Unit("deactivating", "stop-sigterm")
    bench.code["hello"] = "one"
    bench.uploads.clear()
    again = bench.deploy()["hello"]
    assert again.failure is None
    assert again.release != first
    assert bench.serving() == "one"
    assert bench.uploads == []
    assert bench.host.states[service] == ending


def test_a_release_that_begins_to_stop_meanwhile_is_not_started_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = str(bench.deploy()["hello"].release)
    bench.code["hello"] = "two"
    bench.deploy()
    service = f"flask-hello@{first}.service"

    def too_late(names: Iterable[str]) -> None:
        bench.host.timers.clear()
        bench.host.states[service] = Unit("deactivating", "stop-sigterm")

    monkeypatch.setattr(bench.host, "cancel", too_late)
    bench.code["hello"] = "one"
    again = bench.stage()["hello"]
    assert again.failure is None
    assert again.release != first


def test_restarts_count_from_the_start_of_the_gate(bench: Bench) -> None:
    name = bench.deploy()["hello"].release
    service = f"flask-hello@{name}.service"
    bench.host.states[service] = Unit("active", "running", restarts=7)
    gate.pass_gate(bench.host, bench.release("hello"), str(name))


def test_successes_are_apart_and_nothing_restarts_between_them(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = str(bench.deploy()["hello"].release)
    service = f"flask-hello@{name}.service"
    begin = bench.host.clock()
    gate.pass_gate(bench.host, bench.release("hello"), name)
    assert round(bench.host.clock() - begin, 3) == 0.4
    answer = bench.host.probe

    def crashing(*given: Any) -> Answer:
        bench.host.states[service] = Unit("active", "running", restarts=len(bench.host.probed) // 2)
        return answer(*given)

    bench.host.probed.clear()
    monkeypatch.setattr(bench.host, "probe", crashing)
    with pytest.raises(ReleaseFailure, match="failed after the first answers"):
        gate.pass_gate(bench.host, bench.release("hello"), name)


@pytest.mark.parametrize("seconds", [3.0, 30.0])
def test_the_linger_counts_from_the_switch(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    old = bench.deploy()["hello"].release
    bench.code["hello"] = "two"
    step = bench.host.step

    def slow(name: str) -> None:
        step(name)
        if name == "point current":
            bench.host.pass_time(seconds)

    monkeypatch.setattr(bench.host, "step", slow)
    new = bench.deploy()["hello"].release
    bench.host.pass_time(3.9)
    assert bench.host.running("hello") == {old, new}
    bench.host.pass_time(0.5)
    assert bench.host.running("hello") == {new}


def test_what_was_seen_before_the_lock_is_looked_at_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other deploy has ordered the drain after this one listed the units."""
    bench.deploy()
    bench.code["hello"] = "two"
    bench.deploy()
    units, looks = bench.host.units, []

    def late(patterns: Sequence[str]) -> dict[str, Unit]:
        found = units(patterns)
        looks.append(found)
        return found if len(looks) > 1 else {name: one for name, one in found.items() if "drain" not in name}

    monkeypatch.setattr(bench.host, "units", late)
    bench.host.steps.clear()
    outcome = bench.deploy()["hello"]
    assert outcome.failure is None
    assert not outcome.changed
    assert bench.host.steps == []


def test_a_failed_stray_is_forgotten(bench: Bench) -> None:
    first = str(bench.deploy()["hello"].release)
    for code in ("two", "three"):
        bench.code["hello"] = code
        bench.deploy()
        bench.host.pass_time(10)
    for name in (first, bench.pointer("previous")):
        bench.host.states[f"flask-hello@{name}.service"] = Unit("failed", "failed", "exit-code")
    bench.code["hello"] = "four"
    bench.deploy()
    bench.host.pass_time(10)
    assert bench.host.running("hello") == {bench.pointer("current")}


def test_errors_of_many_files_are_told_in_words(tmp_path: Path) -> None:
    (tmp_path / "from").mkdir()
    (tmp_path / "from/dangling").symlink_to("gone")
    with pytest.raises(shutil.Error) as caught:
        shutil.copytree(tmp_path / "from", tmp_path / "to")
    assert in_words(caught.value) == f"[Errno 2] No such file or directory: '{tmp_path}/from/dangling'"
    assert in_words(FileNotFoundError(2, "No such file", "there")) == "No such file: there"


def test_a_candidate_that_nobody_activates_stops_by_itself(bench: Bench) -> None:
    live = bench.deploy()["hello"].release
    bench.code["hello"] = "two"
    candidate = bench.stage()["hello"].release
    bench.host.pass_time(staging.CANDIDATE_LIFE - 10)
    assert bench.host.running("hello") == {live, candidate}
    bench.host.pass_time(20)
    assert bench.host.running("hello") == {live}
    again = bench.deploy()["hello"]
    assert again.release == candidate
    bench.host.pass_time(5)
    assert bench.host.timers == {}
    assert bench.host.running("hello") == {candidate}


@pytest.mark.parametrize("end", ["gate", "withdrawn", "superseded"])
def test_no_order_outlives_a_candidate(tmp_path: Path, end: str) -> None:
    bench = Bench(tmp_path, ("hello", "other"))
    bench.deploy()
    bench.code.update({"gate": {"hello": "broken health"}}.get(end, {"hello": "two"}))
    if end == "withdrawn":
        bench.code["other"] = "broken health"
    bench.stage()
    if end == "superseded":
        bench.code["hello"] = "three"
        bench.deploy()
        bench.host.pass_time(5)
    assert bench.host.timers == {}
    assert bench.host.running("hello") == {bench.pointer("current")}


def test_a_release_that_never_reached_the_disk_is_not_used_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.deploy()
    bench.code["hello"] = "two"
    flush = building.flush
    monkeypatch.setattr(building, "flush", lambda _path: None)  # the power goes first
    lost = str(bench.stage()["hello"].release)
    monkeypatch.setattr(building, "flush", flush)
    bench.host.reboot()
    (bench.root / "srv/hello/releases" / lost / "environment").write_text("")
    bench.uploads.clear()
    again = bench.deploy()["hello"]
    assert again.release != lost
    assert bench.uploads == []
    assert "FEATURE=one" in (bench.root / "srv/hello/current/environment").read_text()


def test_a_wheel_is_unpacked_where_the_next_deploy_clears_away(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not beside the bundle, which may lie where only another account than root removes files."""
    upload = tmp_path / "upload"
    upload.mkdir()
    entry = Entry("hello-1.0-py3-none-any.whl", read=lambda: b"a wheel")
    wheel = Source("d" * 64, "hello-1.0", "wheel", None, "", entry.path, entry.path, (entry,))
    bundle = wheel.bundle(tmp_path / "cache").rename(upload / "bundle.tar.gz")
    release = parse({**bench.description("hello"), "source": wheel.describe(), "static": []})
    found: list[tuple[str, bytes]] = []

    def build(path: str, wanted: environments.Wanted, *given: Any, **options: Any) -> environments.Result:
        [one] = wanted.wheels
        assert one.file is not None
        found.append((one.file, Path(one.file).read_bytes()))
        return bench.build(path, wanted, *given, **options)

    job = replace(bench.job({wheel.digest: str(bundle)}), build=build)
    monkeypatch.setattr(bench.host, "behaviour", lambda _place: "")  # it reads the code of a tree
    outcome = staging.stage(job, [release])["hello"]
    assert outcome.failure is None
    releases = f"{tmp_path}/srv/hello/releases"
    assert found == [(f"{releases}/.partial-wheel/hello-1.0-py3-none-any.whl", b"a wheel")]
    assert [one.name for one in upload.iterdir()] == ["bundle.tar.gz"]
    assert bench.releases() == [outcome.release]
