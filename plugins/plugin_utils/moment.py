# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""When this run of ansible-playbook deploys: one moment for all hosts, batches and workers."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from ansible_collections.flaskworks.server.plugins.module_utils.release.ids import MOMENT

LIFE = 7 * 24 * 3600  # seconds for which the moment of a run is kept; no run takes longer


def run_mark() -> str:
    """Names this run of the controller: the process that all workers are children of, and its start.

    Empty where that cannot be known (not Linux).
    """
    parent = os.getppid()
    try:
        born = Path(f"/proc/{parent}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[19]
    except (OSError, IndexError):
        return ""
    return f"{parent} {born}"


def run_moment(cache: Path) -> str:
    """The moment of this run as names of releases hold it; the first worker to ask decides for all."""
    now = time.time()
    mark = run_mark()
    if not mark:
        return time.strftime(MOMENT, time.gmtime(now))
    folder = cache / "runs"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / mark.replace(" ", "-")
    with open(path, "a+", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        known = file.read()
        if known:
            return known
        known = time.strftime(MOMENT, time.gmtime(now))
        file.write(known)
    _forget_old(folder, now)
    return known


def _forget_old(folder: Path, now: float) -> None:
    for other in folder.iterdir():
        try:
            if now - other.stat().st_mtime > LIFE:
                other.unlink()
        except FileNotFoundError:
            continue  # another run did it
