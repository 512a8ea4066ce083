"""Run ansible-playbook as its users do, with a clock and, when asked, with a count of the round trips."""

from __future__ import annotations

import collections
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CALLBACKS = ROOT / "tests" / "plugins" / "callback"
LONGEST = 1800.0
"""Seconds after which a playbook is given up."""

_CHANGED = re.compile(r"changed=(\d+)")


class PlayError(RuntimeError):
    """A playbook failed; the message ends with the last lines of its output."""


@dataclass(frozen=True)
class Play:
    """How one run went."""

    seconds: float
    changed: int
    output: str
    trips: tuple[str, ...] = ()
    """The task of every round trip, in their order, with the kind: "Install the sites (execute)"."""

    def by_task(self) -> dict[str, int]:
        """Return how many round trips each task took."""
        return dict(collections.Counter(self.trips))


def play(playbook: Path, inventory: Path, *, count: bool = False, limit: str = "") -> Play:
    """Run a playbook against an inventory, or those hosts of it; with `count`, note every round trip.

    Raises:
        PlayError: when the playbook fails.
    """
    # Settings of whoever calls this, such as Molecule's, are not those of a reader in a clone.
    strange = ("ANSIBLE_", "PYTHON")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(strange)}
    environment |= {"ANSIBLE_HOME": str(ROOT / ".ansible"), "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    # The environment's programs must be found by name, also when the reader has not activated it.
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment.get('PATH', os.defpath)}"
    environment["ANSIBLE_NOCOLOR"] = "1"
    with tempfile.TemporaryDirectory(prefix="flaskworks-trips-") as directory:
        trips = Path(directory) / "trips.jsonl"
        if count:
            environment |= {
                "ANSIBLE_CALLBACK_PLUGINS": str(CALLBACKS),
                "ANSIBLE_CALLBACKS_ENABLED": "round_trips",
                "FLASKWORKS_ROUND_TRIPS": str(trips),
            }
            trips.touch()
        command = [str(Path(sys.executable).parent / "ansible-playbook"), str(playbook), "-i", str(inventory)]
        begin = time.monotonic()
        done = subprocess.run(
            [*command, "--limit", limit] if limit else command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LONGEST,
            check=False,
        )
        seconds = time.monotonic() - begin
        if done.returncode != 0:
            tail = "\n".join(done.stdout.splitlines()[-60:])
            raise PlayError(f"{playbook.name} failed after {seconds:.1f} s:\n{tail}")
        lines = [json.loads(line) for line in trips.read_text().splitlines()] if count else []
    return Play(
        seconds=seconds,
        changed=sum(int(number) for number in _CHANGED.findall(done.stdout)),
        output=done.stdout,
        trips=tuple(f"{line['task']} ({line['kind']})" for line in lines),
    )
