"""Round trips are what an operator waits for: few of them, and no more for ten apps than for one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from benchmarks import scale
from benchmarks.apps import Inventory

NUMBERS = (1, 10)


@pytest.fixture(scope="module")
def counts(platforms: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, Any]]:
    """Return what was counted for each number of apps, on a host that gets more and more of them."""
    reached = {
        "ansible_connection": "community.docker.docker",
        "ansible_host": platforms["trixie"].container,
    }
    inventory = Inventory(tmp_path_factory.mktemp("round_trips") / "inventory", reached)
    return {
        number: scale.count(inventory, number, revision, print)
        for number, revision in zip(NUMBERS, (1, 3), strict=True)
    }


@pytest.mark.parametrize("number", NUMBERS)
def test_a_run_with_nothing_to_do_takes_15_at_most(counts: dict[int, dict[str, Any]], number: int) -> None:
    no_op = counts[number]["no_op"]
    assert 1 <= no_op["trips"] <= 15, no_op["tasks"]


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("kind", ["deploy_one", "deploy_all"])
def test_a_deploy_of_changed_code_takes_3_at_most(
    counts: dict[int, dict[str, Any]], number: int, kind: str
) -> None:
    deploy = counts[number][kind]
    assert 1 <= deploy["trips"] <= 3, deploy["tasks"]


@pytest.mark.parametrize("kind", ["no_op", "deploy_one", "deploy_all"])
def test_ten_apps_take_as_many_as_one(counts: dict[int, dict[str, Any]], kind: str) -> None:
    assert counts[10][kind]["tasks"] == counts[1][kind]["tasks"]
