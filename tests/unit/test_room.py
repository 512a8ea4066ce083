"""A disk that is too small, or full, leaves everything as it was."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.flaskworks.server.plugins.module_utils import environment as environments
from ansible_collections.flaskworks.server.plugins.module_utils.release import building
from ansible_collections.flaskworks.server.plugins.module_utils.release.ports import Host

from tests.unit.release_host import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def listing(bench: Bench) -> list[str]:
    """Everything below the app's directory, but the lock that any deploy leaves there."""
    home = bench.root / "srv/hello"
    found = [str(path.relative_to(home)) for path in home.rglob("*")]
    return sorted(path for path in found if path != ".lock")


def other_environment(bench: Bench) -> None:
    bench.settings["environment"] = {
        "directory": str(bench.root / "srv/hello/environments"),
        "interpreter": "python",
        "server": "gunicorn[gevent]",
    }


def test_a_first_release_that_does_not_fit_is_refused(bench: Bench) -> None:
    bench.host.free = (40_000_000, None)
    failure = bench.stage()["hello"].failure
    # One block of code, compiled, and two static files of one block each: 8192 + 2 x 2.4 x 4096 bytes.
    assert failure == (
        f"hello: the disk of {bench.root}/srv/hello has no room for another release, which needs 64 MB "
        "(code 0.0 MB, environment 64 MB); 40 MB are free. Free some, or keep fewer releases "
        "(keep_releases is 3), and deploy again; nothing was changed"
    )
    assert bench.builds == 0
    assert bench.host.running("hello") == set()
    bench.host.free = (64_100_000, None)
    assert bench.deploy()["hello"].failure is None


def test_the_environment_counts_only_when_it_is_built(bench: Bench) -> None:
    bench.deploy()
    bench.code["hello"] = "# " + "x" * 1_000_000
    bench.host.free = (5_000_000, None)
    failure = str(bench.stage()["hello"].failure)
    # Code, its bytecode, a static file that is as long, that compressed; and a fifth more.
    assert "which needs 5.3 MB (code 4.4 MB); 5.0 MB are free" in failure
    bench.host.free = (5_400_000, None)
    assert bench.deploy()["hello"].failure is None
    # With the same code, only its bytecode and its static files are made anew.
    bench.set_variables("hello", "FEATURE=two")
    bench.host.free = (3_000_000, None)
    assert bench.deploy()["hello"].failure is None


def test_an_environment_needs_as_much_as_the_one_before(bench: Bench) -> None:
    bench.deploy()
    current = (bench.root / "srv/hello/current/venv").resolve()
    (current / "library.so").write_bytes(b"x" * 20_000_000)
    other_environment(bench)
    bench.host.free = (15_000_000, None)
    assert "environment 20 MB); 15 MB are free" in str(bench.stage()["hello"].failure)


def test_files_count_too(bench: Bench) -> None:
    bench.host.free = (10**12, 100)
    failure = str(bench.stage()["hello"].failure)
    assert "which needs 4008 files; 100 files are free" in failure


def test_what_is_there_needs_no_room(bench: Bench) -> None:
    bench.deploy()
    bench.host.free = (0, 0)
    assert not bench.deploy()["hello"].changed


@pytest.mark.parametrize("number", range(30))
def test_a_disk_that_gets_full_while_staging_leaves_everything_as_it_was(bench: Bench, number: int) -> None:
    old = bench.deploy()["hello"].release
    before = listing(bench)
    bench.code["hello"] = "two"
    other_environment(bench)
    bench.host.steps.clear()
    bench.host.full_at = number
    outcome = bench.stage()["hello"]
    if bench.host.full_at is None:
        assert re.fullmatch(
            r"hello: No space left on device: [a-z .]+; nothing that serves was touched\. "
            rf"Free some room below {bench.root}/srv/hello, and run again",
            str(outcome.failure),
        )
        assert bench.host.running("hello") == bench.enabled() == {old}
        assert bench.host.timers == {}
        after = [path for path in listing(bench) if "gunicorn.sock" not in path]
        extra = set(after) - set(before)
        assert {path for path in extra if not path.startswith("environments/")} == set()
        if "write" in bench.host.steps[-1]:
            assert extra == set()
    bench.host.full_at = None
    assert bench.deploy()["hello"].failure is None
    assert bench.serving() == "two"


def test_the_disk_got_full_at_all_steps_of_staging(bench: Bench) -> None:
    bench.deploy()
    bench.code["hello"] = "two"
    bench.host.steps.clear()
    bench.stage()
    assert 10 < len(bench.host.steps) < 30


def test_what_does_not_reach_the_disk_is_not_activated(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    old = bench.deploy()["hello"].release

    def full(_path: str) -> None:
        raise OSError(28, "No space left on device", "somewhere")

    monkeypatch.setattr(building, "flush", full)
    bench.code["hello"] = "two"
    assert "No space left on device: somewhere" in str(bench.deploy()["hello"].failure)
    assert bench.releases() == [old]
    assert bench.host.running("hello") == {old}


def test_an_environment_that_cannot_be_finished_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_given: Any) -> None:
        raise OSError(28, "No space left on device", "marker")

    monkeypatch.setattr(environments, "_write_marker", full)
    monkeypatch.setattr(environments, "_install", lambda *_given: "uv")
    with pytest.raises(OSError, match="No space left"):
        environments.build(str(tmp_path / "there"), environments.Wanted("python"), "there")
    assert not (tmp_path / "there").exists()


def test_an_installer_without_room_is_explained(tmp_path: Path) -> None:
    said = "error: Failed to install: numpy\n  Caused by: No space left on device (os error 28)"
    assert environments._way_out(said).startswith("The disk is full: free some room")


def test_a_real_disk_says_what_is_free(tmp_path: Path) -> None:
    free, files = Host().room(str(tmp_path))
    assert 0 < free <= os.statvfs(tmp_path).f_blocks * os.statvfs(tmp_path).f_frsize
    assert files is None or files > 0
