"""Run steps one after another or side by side, and say what is going on while they run.

The output of each step goes to a file of its own under .bed/logs. On the screen there is a line when a step
starts, one when it ends, one every half minute in between, and the telling part of a failed step's output.
"""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / ".bed"
"""What the tools keep in the clone: logs, durations, a private uv. Not in git."""

HEARTBEAT = 30.0
"""Seconds of silence before a running step says that it is still running."""

EXCERPT = 25
"""Lines of a failed step's output that are shown from its first complaint on, and again from its end."""

_TROUBLE = re.compile(r"\[ERROR\]|^fatal: |^E  |^=+ (ERRORS|FAILURES) =|Traceback|[Ee]rror:|^FAILED")

_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class Stop(Exception):
    """Ends the command with one sentence that says what to do."""


@dataclass
class Step:
    """One thing to do: a command, or a function that is given an open log file's path."""

    name: str
    action: Sequence[str] | Callable[[Path], None]
    cwd: Path = ROOT
    env: Mapping[str, str] = field(default_factory=dict)
    show: bool = False
    """Whether the output appears on the screen as well."""
    needs: Step | None = None
    """A step that is given before this one; unless it passes, this one is not run."""
    seconds: float = 0.0
    error: str | None = None
    ran: bool = False
    over: threading.Event = field(default_factory=threading.Event)
    """Set when it has been run, or will not be."""

    @property
    def passed(self) -> bool:
        """Whether it has been run, and well."""
        return self.ran and self.error is None

    @property
    def log(self) -> Path:
        """The file that holds the step's output."""
        return STATE / "logs" / (re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-") + ".log")


class Runner:
    """Runs steps, remembers how they ended and prints the summary."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.left_out: list[Step] = []
        self._started = time.monotonic()
        self._lock = threading.Lock()

    def run(self, step: Step) -> bool:
        """Run one step, after the one that it needs; true when it passed."""
        try:
            if step.needs is not None:
                step.needs.over.wait()
                if not step.needs.passed:
                    self.left_out.append(step)
                    return False
            return self._run(step)
        finally:
            step.over.set()

    def _run(self, step: Step) -> bool:
        with self._lock:
            self.steps.append(step)
        self._say(f"  …  {step.name}")
        step.log.parent.mkdir(parents=True, exist_ok=True)
        step.log.write_text("")
        begin = time.monotonic()
        over = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(step, begin, over), daemon=True)
        watcher.start()
        try:
            self._perform(step)
        except Stop as stop:
            step.error = str(stop)
        except OSError as error:
            step.error = f"{error.strerror or error}: {error.filename or step.name}"
        finally:
            over.set()
            watcher.join()
        step.ran = True
        step.seconds = time.monotonic() - begin
        if step.passed:
            self._say(f"  ✓  {step.name}  {step.seconds:.1f} s")
        else:
            self._say(f"  ✗  {step.name}  {step.seconds:.1f} s: {step.error}")
            if not step.show:
                self._say(self._excerpt(step))
        return step.passed

    def together(self, steps: Sequence[Step], workers: int) -> bool:
        """Run steps side by side, at most `workers` at once, in the order given; true when all passed."""
        with ThreadPoolExecutor(max_workers=workers) as pool:
            return all(list(pool.map(self.run, steps)))

    @property
    def seconds(self) -> float:
        """Time since the first step."""
        return time.monotonic() - self._started

    def summary(self) -> int:
        """Print what happened, the first failure last but one, and return the exit status."""
        failed = [step for step in self.steps if step.error is not None]
        passed = len(self.steps) - len(failed)
        self._say("")
        for step in sorted(self.steps, key=lambda step: -step.seconds):
            self._say(f"  {'✗' if step.error else '✓'}  {step.seconds:7.1f} s  {step.name}")
        self._say(f"     {self.seconds:7.1f} s  in all")
        if self.left_out:
            self._say(f"Not run after a failure: {', '.join(step.name for step in self.left_out)}")
        for step in failed[1:]:
            self._say(f"Also failed: {step.name}: {step.error}; {step.log}")
        for step in failed[:1]:
            self._say(f"First failure: {step.name}: {step.error}")
            # Shown once more only where other output has come after it.
            self._say(f"  {step.log}" if step is self.steps[-1] else self._excerpt(step))
        self._say("")
        self._say(f"{passed} passed, {len(failed)} failed")
        return 1 if failed else 0

    def _perform(self, step: Step) -> None:
        if callable(step.action):
            step.action(step.log)
            return
        environment = {**os.environ, "NO_COLOR": "1", **step.env}
        # To a file, not through a pipe: a kept ssh connection would hold the pipe open after the step's end.
        with step.log.open("ab") as log:
            log.write(("$ " + " ".join(step.action) + "\n").encode())
            log.flush()
            process = subprocess.run(
                step.action,
                cwd=step.cwd,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                check=False,
            )
        if process.returncode != 0:
            step.error = f"exit status {process.returncode}"

    def _watch(self, step: Step, begin: float, over: threading.Event) -> None:
        if step.show:
            self._follow(step, over)
            return
        while not over.wait(HEARTBEAT):
            last = self._tail(step.log, 1)
            now = f": {last[0].strip()[:90]}" if last else ""
            self._say(f"     {step.name}, {time.monotonic() - begin:.0f} s{now}")

    def _follow(self, step: Step, over: threading.Event) -> None:
        """Show the log line by line while it grows."""
        with step.log.open("rb") as log:
            rest = b""
            ended = False
            while not ended:
                ended = over.wait(0.1)
                rest += log.read()
                *lines, rest = rest.split(b"\n")
                for line in lines:
                    self._say("     " + line.decode(errors="replace"))

    def _say(self, text: str) -> None:
        with self._lock:
            print(text, flush=True)

    def _excerpt(self, step: Step) -> str:
        """Return where the trouble begins and how the output ends; all of it when that is short."""
        lines = self._tail(step.log, sys.maxsize)
        if not lines:
            return f"     └ no output: {step.log}"
        if len(lines) > 2 * EXCERPT:
            end = len(lines) - EXCERPT
            first = next((number for number, line in enumerate(lines) if _TROUBLE.search(line)), end)
            head = lines[max(first - 2, 0) : min(first + EXCERPT, end)]
            lines = [*head, "⋮", *lines[end:]]
        return "\n".join(["     │ " + line for line in lines] + [f"     └ whole output: {step.log}"])

    @staticmethod
    def _tail(log: Path, lines: int) -> list[str]:
        """Return the last lines that are not empty, without colours."""
        text = _COLOUR.sub("", log.read_text(errors="replace"))
        return [line for line in text.splitlines() if line.strip()][-lines:]


def run_logged(
    argv: Sequence[str], log: Path, *, env: Mapping[str, str] | None = None, cwd: Path = ROOT
) -> None:
    """Run a command with its output appended to `log`; raise Stop when it fails."""
    with log.open("ab") as output:
        output.write(("$ " + " ".join(argv) + "\n").encode())
        output.flush()
        done = subprocess.run(
            argv,
            cwd=cwd,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if done.returncode != 0:
        raise Stop(f"'{' '.join(argv[:4])}' ended with exit status {done.returncode}")


def capture(argv: Sequence[str], *, timeout: float = 60.0) -> tuple[int, str]:
    """Return exit status and output of a command; 127 when there is no such program, 124 when it hangs."""
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
            check=False,
        )
    except OSError as error:
        return 127, str(error)
    except subprocess.TimeoutExpired:
        return 124, f"no answer within {timeout:.0f} s"
    return done.returncode, done.stdout.decode(errors="replace").strip()


def is_root() -> bool:
    """Whether packages can be installed and daemons started."""
    return os.geteuid() == 0


def apt_install(packages: Sequence[str], log: Path) -> None:
    """Install Debian packages. The lists are fetched first: on a fresh machine there are none."""
    apt = ["apt-get", "-o", "DPkg::Lock::Timeout=300", "-o", "Dpkg::Use-Pty=0"]
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    # Steps run side by side, and apt does not wait for another apt that fetches the lists.
    with Path("/run/flaskworks-apt.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            run_logged([*apt, "update"], log, env=quiet)
        except Stop:
            # One unreachable third-party source is no reason to stop; the next command says if it matters.
            with log.open("a") as output:
                output.write("apt-get update reported errors; going on\n")
        run_logged([*apt, "install", "--yes", "--no-install-recommends", *packages], log, env=quiet)


def complain(message: str) -> int:
    """Print the one sentence that explains why nothing more is done; the exit status is 1."""
    print(message, file=sys.stderr)
    return 1
