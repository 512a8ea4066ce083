"""Round trips are what an operator waits for: few of them, and no more for ten apps than for one."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks import scale
from benchmarks.apps import Inventory

NUMBERS = (1, 10)


STAGE = "flaskworks.server.deploy : Stage the releases and prove them healthy (execute)"
SWITCH = "flaskworks.server.deploy : Switch to the staged releases (execute)"


def reached(platform: Any) -> dict[str, str]:
    """How Ansible reaches a host."""
    return {"ansible_connection": "community.docker.docker", "ansible_host": platform.container}


@pytest.fixture(scope="module")
def counts(platforms: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, Any]]:
    """Return what was counted for each number of apps, on a host that gets more and more of them."""
    place = tmp_path_factory.mktemp("round_trips") / "inventory"
    inventory = Inventory(place, reached(platforms["trixie"]))
    return {
        number: scale.count(inventory, number, revision, print)
        for number, revision in zip(NUMBERS, (1, 3), strict=True)
    }


@pytest.fixture(scope="module")
def together(
    platforms: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
    counts: dict[int, dict[str, Any]],
) -> dict[str, Any]:
    """Return what was counted when two hosts are deployed to in one play."""
    place = tmp_path_factory.mktemp("together") / "inventory"
    inventory = Inventory(place, *(reached(platforms[name]) for name in ("trixie", "another")))
    return scale.count(inventory, 1, 5, print)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_run_with_nothing_to_do_takes_15_at_most(counts: dict[int, dict[str, Any]], number: int) -> None:
    no_op = counts[number]["no_op"]
    assert 1 <= no_op["trips"] <= 15, no_op["tasks"]


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("kind", ["deploy_one", "deploy_all", "no_op_deploy"])
def test_a_deploy_to_one_host_takes_1(counts: dict[int, dict[str, Any]], number: int, kind: str) -> None:
    assert counts[number][kind]["tasks"] == {STAGE: 1}


def test_a_deploy_to_two_hosts_takes_2_on_each(together: dict[str, Any]) -> None:
    assert together["deploy_one"]["tasks"] == {STAGE: 2, SWITCH: 2}


def test_a_deploy_with_nothing_to_do_takes_1_on_each(together: dict[str, Any]) -> None:
    assert together["no_op_deploy"]["tasks"] == {STAGE: 2}


@pytest.mark.parametrize("kind", ["no_op", "no_op_deploy", "deploy_one", "deploy_all"])
def test_ten_apps_take_as_many_as_one(counts: dict[int, dict[str, Any]], kind: str) -> None:
    assert counts[10][kind]["tasks"] == counts[1][kind]["tasks"]
