"""Playbooks of the collection, run as an operator in the clone would, and killed as nobody should."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[1]

LIMIT = 600.0
"""Seconds after which a play that has not ended will not end any more, on any machine."""


@dataclass(frozen=True)
class Play:
    """One run of a playbook that has ended.

    Attributes:
        seconds: from its start to its end.
        code: its exit status.
        output: what it said.
    """

    seconds: float
    code: int
    output: str

    @property
    def changed(self) -> int:
        """Tasks that changed something, on all hosts."""
        return sum(int(number) for number in re.findall(r"changed=(\d+)", self.output))


class Running:
    """A run of a playbook that may be interrupted."""

    def __init__(self, command: list[str], environment: dict[str, str], output: Path) -> None:
        self.begin = time.monotonic()
        self._output = output
        # A file: an orphan that is left of a killed run keeps a pipe open.
        with output.open("w") as file:
            self.process = subprocess.Popen(
                command,
                cwd=PROJECT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait(self, seconds: float = LIMIT) -> Play:
        """Wait for its end.

        Raises:
            subprocess.TimeoutExpired: when it does not end.
        """
        code = self.process.wait(seconds)
        return Play(time.monotonic() - self.begin, code, self._output.read_text())

    def kill(self, *, all_of_it: bool) -> Play:
        """Kill ansible-playbook alone, or all of its processes but the kept connection, which is no child."""
        victims = [self.process.pid, *(_descendants(self.process.pid) if all_of_it else [])]
        for pid in victims:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return self.wait()


def start(
    inventory: Path, playbook: str, *arguments: str, output: Path, variables: dict[str, Any] | None = None
) -> Running:
    """Start a playbook of the collection, such as "deploy"; what it says goes to a file of its own."""
    foreign = ("ANSIBLE_", "MOLECULE_")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    chosen = ["-i", str(inventory), "-e", json.dumps(variables or {}), *arguments]
    environment = {
        **inherited,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "ANSIBLE_HOME": str(PROJECT / ".ansible"),
        "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"),
        "ANSIBLE_NOCOLOR": "1",
    }
    return Running(["ansible-playbook", f"playbooks/{playbook}.yml", *chosen], environment, output)


def _descendants(pid: int) -> list[int]:
    """Return the processes that a process has started, and theirs."""
    found = []
    waiting = [pid]
    while waiting:
        above = waiting.pop()
        with suppress(OSError):
            for thread in Path(f"/proc/{above}/task").iterdir():
                children = [int(word) for word in (thread / "children").read_text().split()]
                found += children
                waiting += children
    return found
