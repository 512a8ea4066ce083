"""Runs playbooks as an operator would, interrupts them as nobody should, and looks at the host afterwards."""

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

from tests.faults.state import State, complaints, fingerprints, strays
from tests.load import Load, Versions

HERE = Path(__file__).parent
PROJECT = HERE.parents[1]
LIMIT = 300.0
"""Seconds after which something that has to come will not come any more."""


@dataclass(frozen=True)
class Play:
    """One run of a playbook that has ended."""

    seconds: float
    code: int
    output: str

    @property
    def changed(self) -> int:
        return sum(int(number) for number in re.findall(r"changed=(\d+)", self.output))


class Running:
    """A run of a playbook that may be interrupted."""

    def __init__(self, command: list[str], output: Path, environment: dict[str, str]) -> None:
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
        victims = [self.process.pid, *(descendants(self.process.pid) if all_of_it else [])]
        for pid in victims:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return self.wait()


class Operator:
    """Works on one host under load. What is asked of the host fails with everything that is known."""

    def __init__(self, container: str, inventory: Path, app: Path, load: Load) -> None:
        self.container = container
        self.inventory = inventory
        self.load = load
        self.versions = Versions(app)
        self.shipped: dict[str, dict[str, str]] = {}
        self._count = 0

    def write(self, version: str, requirement: str = "", **more: str) -> None:
        """Change the source; with a requirement its environment, too."""
        self.versions.write(version, **more)
        lines = "flask==3.1.3\n" + (f"{requirement}\n" if requirement else "")
        (self.versions.directory / "requirements.txt").write_text(lines)
        self.shipped[version] = fingerprints(self.versions.directory)

    def start(self, playbook: str = "deploy", **variables: Any) -> Running:
        """Start a playbook of the collection as a user in the clone would."""
        foreign = ("ANSIBLE_", "MOLECULE_")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self._count += 1
        return Running(
            [
                "ansible-playbook",
                *("-i", str(self.inventory), f"playbooks/{playbook}.yml", "-e", json.dumps(variables)),
            ],
            self.inventory.parent / f"play-{self._count}.log",
            {
                **inherited,
                "PATH": path,
                "ANSIBLE_HOME": str(PROJECT / ".ansible"),
                "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"),
                "ANSIBLE_NOCOLOR": "1",
            },
        )

    def run(self, playbook: str = "deploy", **variables: Any) -> Play:
        """Run a playbook to its end, good or bad."""
        return self.start(playbook, **variables).wait()

    def deploy(self, **variables: Any) -> Play:
        """Deploy what the source is; nothing must stand in the way, and nothing be left."""
        done = self.run(**variables)
        assert done.code == 0, done.output
        state = self.look()
        assert state["static"].strip() == self.written, done.output
        assert not self.wrong(state), f"{self.wrong(state)} after: {done.output}"
        self._ended(drained=False)
        return done

    def refused(self, *told: str, playbook: str = "deploy", **variables: Any) -> Play:
        """Run what has to fail with these words; what served goes on serving, and nothing is left running."""
        before = self.look()["current"]
        done = self.run(playbook, **variables)
        assert done.code != 0, done.output
        missing = [words for words in told if not re.search(words, done.output, re.IGNORECASE)]
        assert not missing, f"{missing} not in: {done.output}"
        state = self.look()
        assert state["current"] == before, done.output
        assert not self.wrong(state), self.wrong(state)
        return done

    @property
    def written(self) -> str:
        """The version that the source is."""
        return (self.versions.directory / "src" / "loaded" / "static" / "release.txt").read_text().strip()

    def look(self) -> State:
        """Return what is there."""
        state: State = json.loads(self.on_host("look.py"))
        return state

    def wrong(self, state: State) -> list[str]:
        """Say what is wrong with what serves."""
        return complaints(state, self.shipped)

    def settled(self) -> State:
        """Wait until only what serves is left, and return what is there then."""
        state = self._ended(drained=True)
        assert not self.wrong(state), self.wrong(state)
        return state

    def _ended(self, *, drained: bool) -> State:
        """Wait until there is no stray: a unit is in no state that has a name while its end begins."""
        end = time.monotonic() + LIMIT
        while left := strays(state := self.look(), drained=drained):
            assert time.monotonic() < end, left
            time.sleep(0.3)
        return state

    def on_host(self, script: str, *arguments: str) -> str:
        """Run one of the scripts beside this file on the host; what it prints."""
        return self.shell_in("python3", "-", *arguments, text=(HERE / script).read_text())

    def shell(self, script: str) -> str:
        """Run a shell script on the host, as root, to the first command that fails; what it prints."""
        return self.shell_in("sh", "-e", text=script)

    def shell_in(self, *command: str, text: str) -> str:
        """Run a command on the host with a text as its input; what it prints."""
        done = subprocess.run(
            ["docker", "exec", "--interactive", self.container, *command],
            input=text,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout

    def until(self, condition: str) -> None:
        """Wait until a shell condition is met on the host."""
        self.shell(
            f"for i in $(seq {LIMIT * 20:.0f}); do if {condition}; then exit 0; fi; sleep 0.05; done; exit 1"
        )

    def drop_connection(self) -> None:
        """End the kept connection to the host, on this side."""
        text = (self.inventory / "connections.yml").read_text()
        for path in re.findall(r"ansible_control_path: (\S+)", text):
            if Path(path).exists():
                subprocess.run(
                    ["ssh", "-O", "exit", "-o", f"ControlPath={path}", "host"],
                    capture_output=True,
                    check=False,
                )


class Killer:
    """Kills a deploy's processes on the host; see kill.py."""

    def __init__(self, operator: Operator, seconds: float, how: str) -> None:
        operator.shell_in("sh", "-c", "cat > /run/kill.py", text=(HERE / "kill.py").read_text())
        self._process = subprocess.Popen(
            [
                *("docker", "exec", "--interactive", operator.container),
                *("python3", "/run/kill.py", f"{seconds:.3f}", how),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def told(self) -> tuple[str, list[str]]:
        """Say what the deploy was doing, and name the killed processes; call it when the play has ended."""
        output, _ = self._process.communicate("enough\n")
        told = json.loads(output)
        return str(told["doing"]), list(told["killed"])


def descendants(pid: int) -> list[int]:
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
