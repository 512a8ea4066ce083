"""Runs on the host, as root: kills the deploy's processes there some time after it has arrived.

`kill.py SECONDS module|all`: waits for the first call of the deploy's module, then for SECONDS, then sends
SIGKILL to every process of the call ("module"), or to those and all that they have started ("all").
SECONDS may be longer than the deploy is there: a kill that comes too late finds nothing, which it tells.
Ends by itself when its standard input is closed.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time

CALL = b"flaskworks-lean"
"""In the command line of every process of a call."""


def main() -> None:
    """Wait, kill, and print what was killed."""
    seconds, how = float(sys.argv[1]), sys.argv[2]
    print("ready", flush=True)
    while not _calls():
        if _ended(0.01):
            return _tell([])
    if _ended(seconds):
        return _tell([])
    calls = _calls()
    victims = sorted(calls | (_below(calls) if how == "all" else set()))
    killed = []
    for pid in victims:
        name = _name(pid)
        try:
            os.kill(pid, signal.SIGKILL)
            killed.append(name)
        except ProcessLookupError:
            continue
    return _tell(killed)


def _tell(killed: list[str]) -> None:
    try:
        with open("/srv/load/.lock", encoding="utf-8") as file:
            doing = json.loads(file.read() or "{}").get("what", "nothing")
    except (OSError, ValueError):
        doing = "nothing"
    print(json.dumps({"killed": killed, "doing": doing if killed else "nothing"}), flush=True)


def _ended(seconds: float) -> bool:
    """Wait; whether nobody is interested any more."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        readable, _, _ = select.select([sys.stdin], [], [], left)
        if readable and not os.read(0, 1):
            return True
    return False


def _calls() -> set[int]:
    found = set()
    for entry in os.listdir("/proc"):
        if entry.isdecimal() and int(entry) != os.getpid():
            try:
                with open(f"/proc/{entry}/cmdline", "rb") as file:
                    if CALL in file.read():
                        found.add(int(entry))
            except OSError:
                continue
    return found


def _below(above: set[int]) -> set[int]:
    """All processes that these have started."""
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            try:
                with open(f"/proc/{entry}/stat", encoding="utf-8") as file:
                    parents[int(entry)] = int(file.read().rpartition(")")[2].split()[1])
            except OSError:
                continue
    found: set[int] = set()
    while more := {pid for pid, parent in parents.items() if parent in above | found} - found:
        found |= more
    return found


def _name(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return "gone"


if __name__ == "__main__":
    main()
