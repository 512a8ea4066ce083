# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Work that is done once in a run of Ansible, whose hosts are handled by processes of their own.

All hosts of a run are given the same moment and the same commit, however long the run takes, and one answer
of a server that cannot be reached is enough for all of them.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

from ansible_collections.flaskworks.server.plugins.module_utils.release.ids import MOMENT
from ansible_collections.flaskworks.server.plugins.plugin_utils.sources.base import (
    SourceFailure,
    forget,
    locked,
)

LIFE = 7 * 24 * 3600  # seconds for which the answers of a run are kept; no run takes longer


def run_moment(cache: Path) -> str:
    """When this run deploys, as names of releases hold it: one moment for all hosts, batches and workers."""
    return once(cache, "moment", lambda: time.strftime(MOMENT, time.gmtime(time.time())))


def once(cache: Path, key: str, work: Callable[[], str]) -> str:
    """The answer of ``work``, which is called by the first that asks for ``key`` in this run.

    Raises:
        SourceFailure: what the first was told.
    """
    mark = _run_mark()
    if not mark:
        return work()  # not Linux: nothing is remembered
    folder = cache / "answers" / mark
    if not folder.exists():
        forget(folder.parent, "*", LIFE)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / hashlib.sha256(key.encode()).hexdigest()[:20]
    with locked(path.with_suffix(".lock")):
        try:
            known: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            try:
                known = {"answer": work()}
            except SourceFailure as error:
                known = {"failure": str(error)}
            partial = path.with_suffix(".partial")
            partial.write_text(json.dumps(known), encoding="utf-8")
            partial.rename(path)
    if "failure" in known:
        raise SourceFailure(known["failure"])
    return known["answer"]


def _run_mark() -> str:
    """Names this run of the controller: the process that all workers are children of, and its start.

    Empty where that cannot be known (not Linux).
    """
    parent = os.getppid()
    try:
        born = Path(f"/proc/{parent}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[19]
    except (OSError, IndexError):
        return ""
    return f"{parent}-{born}"
