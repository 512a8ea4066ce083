"""A release that is not what it was made is noticed, and replaced."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.flaskworks.server.plugins.module_utils.release import seal

from tests.unit.release_host import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def bytecode(place: Path) -> Path:
    return next((place / "src/__pycache__").iterdir())


def rewritten(path: Path) -> None:
    """Other content of the same size and time, put in its place as an editor does."""
    new = path.with_name("new")
    new.write_bytes(b"#" * path.stat().st_size)
    os.utime(new, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    new.chmod(path.stat().st_mode)
    new.rename(path)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "src/hello.py was changed": lambda place: (place / "src/hello.py").write_text("scribble"),
    "src/hello.py is missing": lambda place: (place / "src/hello.py").unlink(),
    "src/extra.py was added": lambda place: (place / "src/extra.py").touch(),
    "src/__pycache__/": lambda place: bytecode(place).write_bytes(b"?"),
    "static is missing": lambda place: shutil.rmtree(place / "static"),
    "static/static/style.css was changed": lambda place: rewritten(place / "static/static/style.css"),
    "static/static was changed": lambda place: (place / "static/static").chmod(0o700),
    "environment was changed": lambda place: (place / "environment").chmod(0o644),
    "gunicorn.conf.py is missing": lambda place: (place / "gunicorn.conf.py").unlink(),
    "gunicorn.sock is missing": lambda place: (place / "gunicorn.sock").unlink(),
    "venv is missing": lambda place: (place / "venv").unlink(),
    "is not whole": lambda place: shutil.rmtree((place / "venv").resolve()),
    ".seal.json is missing": lambda place: (place / ".seal.json").unlink(),
    ".seal.json cannot be read": lambda place: (place / ".seal.json").write_text('{"format": 1,'),
    ".seal.json has another format": lambda place: (place / ".seal.json").write_text(
        '{"format": 0, "entries": {}}'
    ),
}


@pytest.mark.parametrize("told", DAMAGES)
def test_a_damaged_live_release_is_built_anew(bench: Bench, told: str) -> None:
    first = str(bench.deploy()["hello"].release)
    place = bench.root / "srv/hello/releases" / first
    bench.uploads.clear()
    DAMAGES[told](place)
    foreseen = bench.stage(check=True)["hello"]
    assert foreseen.changed
    again = bench.deploy()["hello"]
    assert again.failure is None
    assert foreseen.damage is not None
    assert foreseen.damage.startswith(f"{first}: ")
    assert told in foreseen.damage
    assert again.release != first
    assert str(again.release)[-11:] == first[-11:]  # the digest is the same
    assert bench.serving() == "one"
    assert (bench.root / "srv/hello/current/static/static/style.css").read_text() == "body {}"
    assert len(bench.uploads) == (1 if told.startswith("src/") and "pycache" not in told else 0)
    bench.host.pass_time(10)
    bench.host.steps.clear()
    assert not bench.deploy()["hello"].changed
    assert bench.host.steps == []
    assert bench.host.running("hello") == {again.release}


def test_nobody_goes_back_to_what_was_damaged(bench: Bench) -> None:
    good = bench.deploy()["hello"].release
    bench.code["hello"] = "two"
    first = bench.deploy()["hello"].release
    for _ in range(2):
        bench.host.pass_time(10)
        (bench.root / "srv/hello/current/static/static/mark.css").unlink()
        last = bench.deploy()["hello"].release
        assert bench.pointer("previous") == good
    assert bench.pointer("current") == last
    assert first not in bench.releases()
    bench.host.pass_time(10)
    bench.code["hello"] = "three"
    bench.deploy()
    assert bench.pointer("previous") == last


def test_a_damaged_candidate_is_not_activated_and_then_replaced(bench: Bench) -> None:
    live = bench.deploy()["hello"].release
    bench.code["hello"] = "two"
    staged = bench.stage()
    candidate = str(staged["hello"].release)
    (bench.root / "srv/hello/releases" / candidate / "gunicorn.conf.py").write_text("workers = 3\n")
    failure = bench.activate(staged)["hello"].failure
    assert failure == (
        f"hello: release {candidate} was damaged since it was staged (gunicorn.conf.py was changed); "
        "deploy again"
    )
    assert bench.pointer("current") == live
    again = bench.deploy()["hello"]
    assert again.release != candidate
    assert bench.serving() == "two"
    bench.host.pass_time(10)
    assert bench.host.running("hello") == {again.release}


def test_what_systemd_and_python_write_is_no_damage(bench: Bench) -> None:
    bench.deploy()
    place = bench.root / "srv/hello/current"
    (place / "src/__pycache__/hello.cpython-399.pyc").touch()
    (place / "core").touch()
    bench.set_variables("hello", "FEATURE=two")  # shares the files of the code
    bench.deploy()
    bench.set_variables("hello", "FEATURE=one")
    bench.deploy()
    for name in bench.releases():
        assert seal.damage(str(bench.root / "srv/hello/releases" / name)) is None
    assert len(bench.releases()) == 2
