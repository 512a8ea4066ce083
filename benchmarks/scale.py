"""Round trips to a host of 1, 10 and 50 apps: a run with nothing to do, and deploys of changed code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.apps import Inventory, tiny_names
from benchmarks.plays import Play, play
from benchmarks.seconds import DEPLOY, SITE, changed, unchanged


def count(inventory: Inventory, number: int, revision: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Provision a host of this many apps, then count what no-ops and deploys send to it."""
    names = tiny_names(number)
    inventory.describe_tiny_apps(number)
    built = play(SITE, inventory.directory)
    say(f"{number} apps: provisioned in {built.seconds:.1f} s")
    no_op = unchanged(play(SITE, inventory.directory, count=True))
    inventory.change_tiny_apps(names[:1], revision)
    one = changed(play(DEPLOY, inventory.directory, count=True))
    inventory.change_tiny_apps(names, revision + 1)
    every = changed(play(DEPLOY, inventory.directory, count=True))
    idle = unchanged(play(DEPLOY, inventory.directory, count=True))
    say(
        f"{number} apps: no-op {len(no_op.trips)} round trips in {no_op.seconds:.1f} s, "
        f"deploy of one {len(one.trips)} in {one.seconds:.1f} s, "
        f"of all {len(every.trips)} in {every.seconds:.1f} s"
    )
    return {
        "apps": number,
        "provisioning": built.seconds,
        "no_op": _counted(no_op),
        "deploy_one": _counted(one),
        "deploy_all": _counted(every),
        "no_op_deploy": _counted(idle),
    }


def _counted(done: Play) -> dict[str, Any]:
    return {"trips": len(done.trips), "seconds": done.seconds, "tasks": done.by_task()}
