"""Look for words on a host, wherever they could have got to. Runs there; answers with a line of JSON.

    python3 search.py look NEEDLES    everything that is there now: {place: [what was found]}
    python3 search.py watch NEEDLES   the arguments of all processes until /run/search.stop is there

NEEDLES is a file of JSON, {name: [forms]}; it is not looked at itself.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

TREES = ("/etc", "/srv", "/run", "/var", "/tmp", "/root", "/home", "/dev/shm", "/usr/local", "/opt")
STOP = Path("/run/search.stop")
COMMANDS = {
    "systemctl show": ["sh", "-c", "systemctl show; systemctl show --all '*'"],
    "systemctl cat": ["systemctl", "cat", "flask-*"],
    "systemctl status": ["systemctl", "status", "--full", "--lines=1000", "flask-*"],
    "environment of systemd": ["systemctl", "show-environment"],
    "journal": ["journalctl", "--all", "--output=export", "--no-pager"],
    "list of processes": ["ps", "-eww", "-o", "args"],
}


def found(content: bytes, needles: dict[str, list[str]]) -> list[str]:
    """The names of the needles that are in there, in any form."""
    return [name for name, forms in needles.items() if any(form.encode() in content for form in forms)]


def look(needles: dict[str, list[str]], own: str) -> dict[str, list[str]]:
    """Search all files, what systemd tells, the journal, and what processes were given."""
    places: dict[str, list[str]] = {}
    for tree in TREES:
        for folder, _names, files in os.walk(tree):
            for file in files:
                path = os.path.join(folder, file)
                if os.path.islink(path) or not os.path.isfile(path) or path == own:
                    continue
                with open(path, "rb") as content:
                    hits = found(content.read(), needles)
                if hits:
                    known = os.stat(path)
                    places[f"{path} {known.st_uid} {known.st_mode & 0o7777:04o}"] = hits
    for name, command in COMMANDS.items():
        done = subprocess.run(command, capture_output=True, check=False)
        hits = found(done.stdout + done.stderr, needles)
        if hits:
            places[name] = hits
    for process in Path("/proc").glob("[0-9]*"):
        for kind in ("environ", "cmdline"):
            try:
                hits = found((process / kind).read_bytes(), needles)
                unit = (process / "cgroup").read_text().strip().rpartition("/")[2]
            except OSError:
                continue  # it has ended
            if hits:
                places[f"{kind} of a process of {unit}"] = hits
    return places


def watch(needles: dict[str, list[str]]) -> dict[str, object]:
    """Look at the arguments of all processes, over and over."""
    looks, seen = 0, set()
    while not STOP.exists():
        looks += 1
        for process in Path("/proc").glob("[0-9]*"):
            try:
                seen |= set(found((process / "cmdline").read_bytes(), needles))
            except OSError:
                continue  # it has ended
        time.sleep(0.02)  # a module takes longer
    STOP.unlink()
    return {"looks": looks, "seen": sorted(seen)}


if __name__ == "__main__":
    wanted = json.loads(Path(sys.argv[2]).read_text())
    print(json.dumps(watch(wanted) if sys.argv[1] == "watch" else look(wanted, sys.argv[2])))
