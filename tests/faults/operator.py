"""Works on one host as an operator would, does to it what nobody should, and looks at it afterwards."""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import yaml

from tests.faults.state import State, complaints, fingerprints, strays
from tests.load import Load, Versions
from tests.plays import Play, Running, start

HERE = Path(__file__).parent
LIMIT = 300.0
"""Seconds after which something that has to come will not come any more."""


class Operator:
    """Works on one host under load. What is asked of the host fails with everything that is known."""

    def __init__(self, name: str, container: str, inventory: Path, app: Path, load: Load) -> None:
        self.name = name
        self.container = container
        self.inventory = inventory
        self.load = load
        self.versions = Versions(app)
        self.shipped: dict[str, dict[str, str]] = {}
        self.state: State = {}
        """What was there when it was looked at last."""
        self._count = 0

    def write(self, version: str, requirement: str = "", **more: str) -> None:
        """Change the source; with a requirement its environment, too."""
        self.versions.write(version, **more)
        lines = "flask==3.1.3\n" + (f"{requirement}\n" if requirement else "")
        (self.versions.directory / "requirements.txt").write_text(lines)
        self.shipped[version] = fingerprints(self.versions.directory)

    def start(self, playbook: str = "deploy", **variables: Any) -> Running:
        """Start a playbook of the collection as a user in the clone would."""
        self._count += 1
        output = self.inventory.parent / f"play-{self.name}-{self._count}.log"
        return start(self.inventory, playbook, "--limit", self.name, output=output, variables=variables)

    def run(self, playbook: str = "deploy", **variables: Any) -> Play:
        """Run a playbook to its end, good or bad."""
        return self.start(playbook, **variables).wait()

    def deploy(self, **variables: Any) -> Play:
        """Deploy what the source is; nothing must stand in the way, and nothing be left."""
        done = self.run(**variables)
        assert done.code == 0, done.output
        state = self._ended(drained=False)
        assert state["static"].strip() == self.written, done.output
        assert not self.wrong(state), f"{self.wrong(state)} after: {done.output}"
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
        self.state = json.loads(self.on_host("look.py"))
        return self.state

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
        hosts = yaml.safe_load((self.inventory / "connections.yml").read_text())["all"]["hosts"]
        path = Path(hosts[self.name]["ansible_control_path"])
        if path.exists():
            command = ["ssh", "-O", "exit", "-o", f"ControlPath={path}", "host"]
            subprocess.run(command, capture_output=True, check=False)


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
