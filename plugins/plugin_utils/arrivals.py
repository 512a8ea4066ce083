# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which code this controller has seen arrive on a host, so that changed code travels with the first call.

Asking a host what it lacks costs a round trip in every deploy of changed code. Where this controller has
deployed before, the answer is nearly always known: what has arrived is there, what was never sent is not.
The host has the last word: what it lacks it asks for, and code that it has it does not take again. A host of
which nothing is known is asked first, so a deploy with nothing to do uploads nothing wherever it is run.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

KEPT = 8  # digests of each app; more releases are seldom kept


class Arrivals:
    """What has arrived on one host.

    Args:
        cache: the collection's directory on the controller.
        place: what tells the host from others: its name, its address.
    """

    def __init__(self, cache: Path, place: Sequence[str]) -> None:
        name = hashlib.sha256(json.dumps(list(place)).encode()).hexdigest()[:32]
        self._path = cache / "arrivals" / f"{name}.json"
        self._apps = self._read()

    def lacks(self, app: str, digest: str) -> bool:
        """Whether the host is known, and this code of the app has not arrived there."""
        return bool(self._apps) and digest not in self._apps.get(app, [])

    def note(self, digests: Mapping[str, str]) -> None:
        """Remember that the code of these apps is there; what cannot be written down is asked for again."""
        apps = dict(self._apps)
        for app, digest in digests.items():
            apps[app] = [digest, *(one for one in apps.get(app, []) if one != digest)][:KEPT]
        if apps == self._apps:
            return
        self._apps = apps
        try:
            self._path.parent.mkdir(mode=0o700, exist_ok=True)
            handle, partial = tempfile.mkstemp(dir=self._path.parent, prefix=".arrivals-")
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(apps, file)
            os.replace(partial, self._path)
        except OSError:
            return

    def _read(self) -> dict[str, list[str]]:
        try:
            said: Any = json.loads(self._path.read_text(encoding="utf-8"))
            return {str(app): [str(one) for one in digests] for app, digests in said.items()}
        except (OSError, ValueError, AttributeError, TypeError):
            return {}
