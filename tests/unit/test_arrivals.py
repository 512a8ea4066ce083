"""What the controller remembers of hosts, so that changed code travels with the first call."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.flaskworks.server.plugins.plugin_utils.arrivals import Arrivals

PLACE = ("web-1", "192.0.2.1", "22")


def test_of_an_unknown_host_nothing_is_supposed(tmp_path: Path) -> None:
    assert not Arrivals(tmp_path, PLACE).lacks("hello", "a1")


def test_what_has_arrived_is_there_and_nothing_else(tmp_path: Path) -> None:
    Arrivals(tmp_path, PLACE).note({"hello": "a1", "reports": "b1"})
    known = Arrivals(tmp_path, PLACE)
    assert not known.lacks("hello", "a1")
    assert known.lacks("hello", "a2")
    assert known.lacks("hello", "b1")
    assert known.lacks("another", "a1")


def test_older_code_is_remembered_for_a_while(tmp_path: Path) -> None:
    for number in range(1, 11):
        Arrivals(tmp_path, PLACE).note({"hello": f"a{number}"})
    known = Arrivals(tmp_path, PLACE)
    assert [number for number in range(1, 11) if known.lacks("hello", f"a{number}")] == [1, 2]


def test_hosts_are_told_apart_by_name_and_address(tmp_path: Path) -> None:
    Arrivals(tmp_path, PLACE).note({"hello": "a1"})
    for other in (("web-2", "192.0.2.1", "22"), ("web-1", "192.0.2.2", "22"), ("web-1", "192.0.2.1", "2222")):
        assert not Arrivals(tmp_path, other).lacks("hello", "a2")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"hello": 5}', "null"])
def test_a_damaged_memory_is_none(tmp_path: Path, content: str) -> None:
    Arrivals(tmp_path, PLACE).note({"hello": "a1"})
    (path,) = (tmp_path / "arrivals").iterdir()
    path.write_text(content)
    assert not Arrivals(tmp_path, PLACE).lacks("hello", "a2")
    Arrivals(tmp_path, PLACE).note({"hello": "a1"})
    assert Arrivals(tmp_path, PLACE).lacks("hello", "a2")


def test_a_memory_that_cannot_be_written_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "arrivals").write_text("a file where a directory should be")
    Arrivals(tmp_path, PLACE).note({"hello": "a1"})
    assert not Arrivals(tmp_path, PLACE).lacks("hello", "a2")
