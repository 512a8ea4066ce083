"""Compressed copies of static files."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import stat
from pathlib import Path

import pytest
from ansible_collections.flaskworks.server.plugins.module_utils.release import assets

from tests.unit.release_host import Bench

STYLE = b".a { color: red; }\n" * 200


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of static files, on a host without brotli."""
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    (tmp_path / "static/css").mkdir(parents=True)
    (tmp_path / "static/css/style.css").write_bytes(STYLE)
    os.utime(tmp_path / "static/css/style.css", ns=(1_780_000_000_123_456_789, 1_780_000_000_123_456_789))
    return tmp_path / "static"


def test_a_copy_has_the_content_and_the_time_of_its_file(folder: Path) -> None:
    assert assets.compress(str(folder), None) == [".gz"]
    packed = folder / "css/style.css.gz"
    assert gzip.decompress(packed.read_bytes()) == STYLE
    assert packed.stat().st_mtime_ns == 1_780_000_000_123_456_789
    assert stat.S_IMODE(packed.stat().st_mode) == 0o644
    assert packed.read_bytes()[4:8] == b"\0\0\0\0"  # no time in the header: the same content, the same bytes


def test_only_what_gets_smaller_is_copied(folder: Path) -> None:
    (folder / "small.css").write_bytes(b"x" * 1023)
    (folder / "large.css").write_bytes(b"x" * 1024)
    (folder / "photo.jpg").write_bytes(b"x" * 5000)
    (folder / "noise.txt").write_bytes(os.urandom(5000))
    (folder / "own.js").write_bytes(b"x" * 5000)
    (folder / "own.js.gz").write_bytes(b"the author's")
    (folder / "UPPER.SVG").write_bytes(b"x" * 5000)
    assets.compress(str(folder), None)
    found = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.gz"))
    assert found == ["UPPER.SVG.gz", "css/style.css.gz", "large.css.gz", "own.js.gz"]
    assert (folder / "own.js.gz").read_bytes() == b"the author's"


def again(folder: Path) -> Path:
    """The next release with the same file."""
    new = folder.parent / "new"
    (new / "css").mkdir(parents=True)
    (new / "css/style.css").write_bytes(STYLE)
    os.utime(new / "css/style.css", ns=(1_780_000_000_123_456_789, 1_780_000_000_123_456_789))
    return new


def test_what_did_not_change_is_shared_with_the_live_release(folder: Path) -> None:
    assets.compress(str(folder), None)
    new = again(folder)
    assets.compress(str(new), str(folder))
    assert (new / "css/style.css.gz").samefile(folder / "css/style.css.gz")


def test_what_changed_is_compressed_anew(folder: Path) -> None:
    assets.compress(str(folder), None)
    new = again(folder)
    (new / "css/style.css").write_bytes(STYLE + b"/**/")
    assets.compress(str(new), str(folder))
    assert gzip.decompress((new / "css/style.css.gz").read_bytes()) == STYLE + b"/**/"


def test_a_wrong_copy_of_the_author_is_not_handed_on(folder: Path) -> None:
    (folder / "css/style.css.gz").write_bytes(gzip.compress(b"something else"))
    new = again(folder)
    assets.compress(str(new), str(folder))
    assert gzip.decompress((new / "css/style.css.gz").read_bytes()) == STYLE


def stand_in(tmp_path: Path, script: str) -> str:
    """A program in the place of brotli."""
    tool = tmp_path / "brotli"
    tool.write_text(f"#!/bin/sh\nshift 4\nfor file; do {script}; done\n")
    tool.chmod(0o755)
    return str(tool)


def test_brotli_is_used_where_it_is(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = stand_in(tmp_path, 'printf small >"$file.br"')
    monkeypatch.setattr(shutil, "which", lambda _name: tool)
    assert assets.compress(str(folder), None) == [".gz", ".br"]
    packed = folder / "css/style.css.br"
    assert packed.read_bytes() == b"small"
    assert packed.stat().st_mtime_ns == 1_780_000_000_123_456_789
    new = again(folder)
    assets.compress(str(new), str(folder))
    assert (new / "css/style.css.br").samefile(packed)


@pytest.mark.parametrize("script", ["exit 1", 'printf torn >"$file.br"; exit 1', 'cat "$file" >"$file.br"'])
def test_a_brotli_that_fails_or_gains_nothing_leaves_gzip(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    tool = stand_in(tmp_path, script)
    monkeypatch.setattr(shutil, "which", lambda _name: tool)
    assets.compress(str(folder), None)
    assert sorted(path.name for path in (folder / "css").iterdir()) == ["style.css", "style.css.gz"]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A host with an app that has one large static file which never changes."""
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    bench = Bench(tmp_path / "host")
    bench.more["static/large.css"] = STYLE.decode()
    return bench


def packed(bench: Bench) -> Path:
    return bench.root / "srv/hello/current/static/static/large.css.gz"


def test_a_release_shares_the_copies_of_the_live_one(bench: Bench) -> None:
    name = bench.deploy()["hello"].release
    first = packed(bench).stat().st_ino
    record = json.loads((bench.root / f"srv/hello/releases/{name}/release.json").read_text())
    assert record["compressed"] == [".gz"]
    bench.code["hello"] = "two"
    bench.deploy()
    assert packed(bench).stat().st_ino == first
    assert gzip.decompress(packed(bench).read_bytes()) == STYLE


def test_a_damaged_release_hands_nothing_on(bench: Bench) -> None:
    bench.deploy()
    content = packed(bench).read_bytes()
    packed(bench).write_bytes(content[:20] + b"??" + content[22:])  # the checksum at the end still is right
    assert bench.deploy()["hello"].changed
    assert gzip.decompress(packed(bench).read_bytes()) == STYLE
