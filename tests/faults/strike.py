"""Runs on the host, as root: kills processes of the app, and says when; standard library only.

`strike.py worker|workers|master`: prints the moments between which the victims ended, of
the clock that the whole machine shares.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time


def main() -> None:
    """Kill and tell."""
    service = f"flask-load@{os.path.basename(os.path.realpath('/srv/load/current'))}.service"
    shown = ["systemctl", "show", "--property=MainPID", "--value", service]
    master = int(subprocess.run(shown, check=True, capture_output=True, text=True).stdout)
    with open(f"/proc/{master}/task/{master}/children", encoding="utf-8") as file:
        workers = [int(word) for word in file.read().split()]
    assert workers, f"{service} has no workers"
    victims = {"worker": workers[:1], "workers": workers, "master": [master]}[sys.argv[1]]
    begin = time.monotonic()
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    dying = [*workers, master] if sys.argv[1] == "master" else victims
    while any(_lives(pid) for pid in dying):
        time.sleep(0.002)
    json.dump({"begin": begin, "end": time.monotonic(), "killed": len(victims)}, sys.stdout)


def _lives(pid: int) -> bool:
    """Whether a process still has its files; a zombie has none, unless another thread of it is left."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return (
                file.read().rpartition(")")[2].split()[0] != "Z" or len(os.listdir(f"/proc/{pid}/task")) > 1
            )
    except OSError:
        return False


if __name__ == "__main__":
    main()
