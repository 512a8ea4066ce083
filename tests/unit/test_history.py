"""The history of an app: a line for every switch, and no line can hurt a deploy."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.flaskworks.server.plugins.module_utils.release import activation, history, locking
from ansible_collections.flaskworks.server.plugins.module_utils.release.request import ReleaseFailure
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.release_host import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def home(bench: Bench) -> Path:
    return bench.root / "srv/hello"


def lines(bench: Bench) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (home(bench) / "history.jsonl").read_text().splitlines()]


def test_a_deploy_is_noted(bench: Bench) -> None:
    name = bench.deploy()["hello"].release
    assert lines(bench) == [
        {
            "at": "2026-05-28T20:26:40Z",
            "what": "deploy",
            "who": "me@here",
            "from": None,
            "to": name,
            "revision": "",
            "seconds": {"switch": 0.0},
        }
    ]
    assert (home(bench) / "history.jsonl").stat().st_mode & 0o777 == 0o600


def test_what_staging_took_is_noted_with_the_switch(bench: Bench) -> None:
    staged = bench.stage()
    chosen = {"hello": str(staged["hello"].release)}
    releases = [bench.release("hello")]
    outcome = activation.activate(bench.job(), releases, chosen, {"hello": {"build": 1.5, "gate": 0.8}})
    assert outcome["hello"].seconds == {"build": 1.5, "gate": 0.8, "switch": 0.0}
    assert lines(bench)[0]["seconds"] == {"build": 1.5, "gate": 0.8, "switch": 0.0}


def test_every_switch_is_noted_and_nothing_else(bench: Bench) -> None:
    first = bench.deploy()["hello"].release
    bench.deploy()
    bench.code["hello"] = "broken import"
    bench.deploy()
    bench.code["hello"] = "two"
    second = bench.deploy()["hello"].release
    assert [(line["from"], line["to"]) for line in lines(bench)] == [(None, first), (first, second)]


def test_it_says_what_the_switch_was_for(bench: Bench) -> None:
    bench.deploy()
    bench.code["hello"] = "two"
    bench.deploy()
    bench.roll_back()
    assert [line["what"] for line in lines(bench)] == ["deploy", "deploy", "roll back"]


def test_the_outcome_says_what_serves_also_after_a_failure(bench: Bench) -> None:
    assert bench.stage()["hello"].serves is None
    first = bench.deploy()["hello"]
    assert first.serves == first.release
    bench.code["hello"] = "broken health"
    refused = bench.deploy()["hello"]
    assert refused.failure is not None
    assert refused.serves == first.release
    bench.code["hello"] = "two"
    staged = bench.stage()["hello"]
    assert (staged.serves, staged.staged) == (first.release, True)
    bench.host.stop(bench.release("hello").units(str(staged.release)))
    lost = bench.activate({"hello": staged})["hello"]
    assert lost.failure is not None
    assert lost.serves == first.release


@pytest.mark.parametrize(
    ("torn", "whole"),
    [
        (b"", 0),
        (b'{"at": "2026-', 0),
        (b"\0\0\0\0", 0),
        (b'{"at": "2026-01-01T00:00:00Z", "to": "a"}\n{"at"', 1),
        (b'{"at": "2026-01-01T00:00:00Z", "to": "a"}', 1),
        (b'{"at": "2026-01-01T00:00:00Z", "to": "a"}\nnonsense\n', 1),
        (b"[" * 100_000, 0),
    ],
)
def test_a_torn_last_line_is_mended(bench: Bench, torn: bytes, whole: int) -> None:
    (home(bench) / "history.jsonl").write_bytes(torn)
    outcome = bench.deploy()["hello"]
    assert outcome.warning is None
    found = history.last(str(home(bench)), 10)
    assert len(found) == whole + 1
    assert found[-1]["to"] == outcome.release
    assert (home(bench) / "history.jsonl").read_bytes().endswith(b"}\n")


def test_a_history_that_cannot_be_written_is_told_and_fails_nothing(bench: Bench) -> None:
    (home(bench) / "history.jsonl").mkdir()
    outcome = bench.deploy()["hello"]
    assert outcome.failure is None
    assert bench.serving() == "one"
    assert outcome.warning == (
        f"hello: {outcome.release} serves, but its history was not written (Is a directory)"
    )
    assert history.last(str(home(bench)), 1) == []


def test_a_full_disk_leaves_no_half_line(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.deploy()
    before = (home(bench) / "history.jsonl").read_bytes()
    write = os.write

    def half(handle: int, content: bytes) -> int:
        return write(handle, content[: len(content) // 2])

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", half)
        bench.code["hello"] = "two"
        outcome = bench.deploy()["hello"]
    assert outcome.warning is not None
    assert os.strerror(errno.ENOSPC) in outcome.warning
    assert bench.serving() == "two"
    assert (home(bench) / "history.jsonl").read_bytes() == before


def test_the_last_lines_are_read_from_the_end(bench: Bench) -> None:
    with (home(bench) / "history.jsonl").open("w") as file:
        for number in range(5000):
            file.write(json.dumps({"at": "2026-01-01T00:00:00Z", "to": f"release {number}"}) + "\n")
    assert [line["to"] for line in history.last(str(home(bench)), 2)] == ["release 4998", "release 4999"]
    assert history.last(str(home(bench)), 0) == []
    assert history.last(str(home(bench) / "nowhere"), 3) == []


@given(st.binary(max_size=200))
def test_any_content_is_read(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    place = tmp_path_factory.mktemp("home")
    (place / "history.jsonl").write_bytes(content)
    (place / ".lock").write_bytes(content)
    assert history.last(str(place), 5) == []
    assert locking.holder(str(place)) is None
    assert locking.held(str(place)) is None


def test_who_holds_the_lock_is_seen_while_it_is_held(bench: Bench) -> None:
    place = str(home(bench))
    assert locking.held(place) is None
    with locking.locked(bench.host, bench.release("hello"), "ada@laptop", "stage"):
        holder = locking.held(place)
        assert holder is not None
        assert (holder.who, holder.what, holder.pid) == ("ada@laptop", "stage", os.getpid())
        assert holder.since == "2026-05-28 20:26:40 UTC"
    assert locking.held(place) is None


def test_a_killed_holder_holds_nothing(bench: Bench) -> None:
    (home(bench) / ".lock").write_text(
        json.dumps({"who": "ada@laptop", "what": "stage", "since": "2026-05-28 20:26:40 UTC", "pid": 2**30})
    )
    assert locking.holder(str(home(bench))) is not None
    assert locking.held(str(home(bench))) is None


@pytest.mark.parametrize("said", ["", "[]", "null", "7", '{"who": "ada"}', '{"pid": "x"}', "{torn"])
def test_a_lock_that_says_nothing_is_that_of_another_deploy(bench: Bench, said: str) -> None:
    release = bench.release("hello")
    with locking.locked(bench.host, release, "them@there", "stage"):
        (home(bench) / ".lock").write_text(said)
        with (
            pytest.raises(ReleaseFailure, match=r"^locked by another deploy; waited 1 s"),
            locking.locked(bench.host, release, "me@here", "stage"),
        ):
            pass
