"""What is on the hosts, as an operator sees it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.flaskworks.server.plugins.module_utils.release import listing, locking, marks, places
from ansible_collections.flaskworks.server.plugins.module_utils.release.request import ReleaseFailure
from ansible_collections.flaskworks.server.plugins.plugin_utils import release_table

from tests.unit.release_host import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def describe(bench: Bench) -> dict[str, Any]:
    return listing.describe(bench.host, bench.release("hello"))


def test_a_host_without_releases(bench: Bench) -> None:
    nothing: dict[str, Any] = {
        "current": None,
        "previous": None,
        "staged": None,
        "lock": None,
        "last": None,
        "releases": [],
    }
    assert describe(bench) == nothing
    (bench.root / "srv/hello").rmdir()
    assert describe(bench) == nothing


def test_all_that_is_there_newest_first(bench: Bench) -> None:
    first = str(bench.deploy()["hello"].release)
    bench.host.pass_time(3600)
    bench.code["hello"] = "two"
    second = str(bench.deploy()["hello"].release)
    bench.code["hello"] = "three"
    third = str(bench.stage()["hello"].release)
    marks.mark(bench.host, bench.release("hello"), first, "bad", "me@here", "it fell over")
    bench.host.pass_time(60)
    bench.host.steps.clear()
    found = describe(bench)
    assert bench.host.steps == []
    assert (found["current"], found["previous"], found["staged"]) == (second, first, third)
    assert [one["release"] for one in found["releases"]] == [third, second, first]
    assert found["last"]["to"] == second
    assert found["releases"][2]["age"] >= 3660
    assert found["releases"][2]["by"] == "me@here"
    assert found["releases"][2]["mark"]["state"] == "bad"
    assert "it fell over" in found["releases"][2]["mark"]["told"]
    assert [one["mark"] for one in found["releases"][:2]] == [None, None]
    assert [one["damage"] for one in found["releases"]] == [None, None, None]


def test_sizes_count_a_file_once(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 1000)
    os.link(tmp_path / "a", tmp_path / "b")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/c").write_bytes(b"x" * 10)
    assert listing.size(str(tmp_path)) == 1010
    (tmp_path / "folder/link").symlink_to("/etc")
    assert listing.size(str(tmp_path)) == 1014
    assert listing.size(str(tmp_path / "nowhere")) == 0


def test_the_lock_is_listed_while_it_is_held(bench: Bench) -> None:
    bench.deploy()
    with locking.locked(bench.host, bench.release("hello"), "ada@laptop", "stage"):
        lock = describe(bench)["lock"]
    assert lock == {
        "who": "ada@laptop",
        "what": "stage",
        "since": lock["since"],
        "pid": os.getpid(),
    }
    assert describe(bench)["lock"] is None


@pytest.mark.parametrize("torn", ["", "[]", "null", '{"release": 7, "digest": []}', "{"])
def test_files_that_say_nothing_are_survived(bench: Bench, torn: str) -> None:
    name = str(bench.deploy()["hello"].release)
    home = bench.root / "srv/hello"
    for file in (".lock", ".staged", ".marks.json", "history.jsonl", f"releases/{name}/release.json"):
        (home / file).write_text(torn)
    (home / f"releases/{name}/.seal.json").write_text(torn)
    (home / "releases/20260231T101500Z-aaaaaaaaaa").mkdir()  # no release: there is no such day
    found = describe(bench)
    assert [one["release"] for one in found["releases"]] == [name]
    assert found["releases"][0]["damage"] is not None
    assert release_table.lines(["web1"], {"web1": {"apps": {"hello": found}}})


def test_who_may_not_read_is_told_the_way_out(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> list[str]:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "listdir", refuse)
    with pytest.raises(ReleaseFailure) as failure:
        describe(bench)
    assert str(failure.value) == (
        f"hello: {bench.root}/srv/hello may be read by root only; run this with become: true "
        "(ansible-playbook --become)"
    )


def entry(release: str, age: int, **more: Any) -> dict[str, Any]:
    told = {"release": release, "age": age, "revision": "1.0", "by": "me@here", "size": 1_250_000}
    return {**told, "environment_size": 45_600_000, "mark": None, "damage": None, **more}


A = "20261121T101500Z-aaaaaaaaaa"
B = "20261121T111500Z-bbbbbbbbbb"
LAST = {"at": "2026-11-21T11:15:07Z", "what": "deploy", "who": "ada@laptop", "from": A, "to": B}


def test_one_table_for_all_hosts() -> None:
    bad = {"state": "bad", "told": "marked bad by ada@desk at 2026-11-21 10:20:00 UTC (it fell)"}
    one = {"current": B, "previous": A, "staged": None, "lock": None, "last": LAST}
    lock = {"who": "bob@desk", "what": "stage", "since": "2026-11-21 12:00:00 UTC", "pid": 7}
    found: dict[str, dict[str, Any]] = {
        "web1": {"apps": {"hello": {**one, "releases": [entry(B, 7200), entry(A, 10800, mark=bad)]}}},
        "web2": {
            "apps": {"hello": {**one, "lock": lock, "releases": [entry(B, 7200, damage="src is gone")]}}
        },
        "web3": {
            "apps": {
                "hello": {
                    "current": None,
                    "previous": None,
                    "staged": None,
                    "lock": None,
                    "last": None,
                    "releases": [],
                }
            }
        },
        "web4": {"failed": True, "msg": "…"},
        "web5": {"unreachable": True},
    }
    assert release_table.lines(["web1", "web2", "web3", "web4", "web5", "web6"], found) == [
        "app    host  release                      state             age  revision    size  environment",
        "hello  web1  20261121T111500Z-bbbbbbbbbb  current           2 h  1.0       1.2 MB      45.6 MB",
        "hello  web1  20261121T101500Z-aaaaaaaaaa  previous, bad     3 h  1.0       1.2 MB      45.6 MB",
        "hello  web2  20261121T111500Z-bbbbbbbbbb  current, damaged  2 h  1.0       1.2 MB      45.6 MB",
        "hello  web3  -                            no release yet      -  -              -            -",
        "hello: 20261121T101500Z was marked bad by ada@desk at 2026-11-21 10:20:00 UTC (it fell) [web1]",
        (
            "hello: last switch at 2026-11-21 11:15 UTC by ada@laptop: deploy, "
            "20261121T101500Z → 20261121T111500Z [web1, web2]"
        ),
        "hello: 20261121T111500Z is damaged, src is gone [web2]",
        "hello: locked by bob@desk since 2026-11-21 12:00:00 UTC (stage, process 7) [web2]",
        "web4: not listed, it failed",
        "web5: not listed, it cannot be reached",
        "web6: not listed, it was lost before",
    ]


def test_sizes_as_people_read_them() -> None:
    sizes = [0, 1499, 840_000, 999_600, 1_250_000, 123_456_789, 999_600_000, 3_400_000_000]
    assert [release_table.size(one) for one in sizes] == [
        "0 kB",
        "1 kB",
        "840 kB",
        "1.0 MB",
        "1.2 MB",
        "123 MB",
        "1.0 GB",
        "3.4 GB",
    ]


def test_a_history_of_strange_types_is_shown(bench: Bench) -> None:
    bench.deploy()
    line = json.dumps({"at": "x\u001b[31m", "to": "y", "who": ["z"], "from": 7, "what": None})
    (bench.root / "srv/hello/history.jsonl").write_text(line + "\n")
    lines = release_table.lines(["web1"], {"web1": {"apps": {"hello": describe(bench)}}})
    assert all(one.isprintable() for one in lines)
    assert places.pointer(bench.release("hello"), "current") is not None
