# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Work that is done once in a run of Ansible, whose hosts are handled by processes of their own.

All hosts of a run are given the same commit, however long the run takes, and one answer of a server that
cannot be reached is enough for all of them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from ansible_collections.flaskworks.server.plugins.plugin_utils.moment import run_mark
from ansible_collections.flaskworks.server.plugins.plugin_utils.sources.base import (
    SourceFailure,
    forget,
    locked,
)

RUN_LIFE = 7 * 24 * 3600  # seconds for which the answers of a run are kept; no run takes longer


def once(cache: Path, key: str, work: Callable[[], str]) -> str:
    """The answer of ``work``, which is called by the first that asks for ``key`` in this run.

    Raises:
        SourceFailure: what the first was told.
    """
    mark = run_mark()
    if not mark:
        return work()  # not Linux: nothing is remembered
    folder = cache / "answers" / hashlib.sha256(mark.encode()).hexdigest()[:20]
    if not folder.exists():
        forget(folder.parent, "*", RUN_LIFE)
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
