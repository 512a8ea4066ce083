# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Commands that a change owes to the system, remembered across a killed run.

A handler is forgotten when a play dies between the change and the handler. Here a marker file is
written before the change and removed after the commands succeeded, so the next run makes up for it.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

STATE_DIRECTORY = "/var/lib/flaskworks"


class ApplyError(Exception):
    """A command failed; the marker stays, so the next run repeats all of them."""


@dataclass(frozen=True)
class PendingApply:
    """The marker of one kind of change (``certificates``) to one set of places."""

    kind: str
    places: frozenset[str]
    directory: str = STATE_DIRECTORY

    @property
    def marker(self) -> str:
        digest = hashlib.sha256("\n".join(sorted(self.places)).encode()).hexdigest()
        return os.path.join(self.directory, f"{self.kind}-{digest[:10]}.pending")

    def is_set(self) -> bool:
        return os.path.exists(self.marker)

    def set(self) -> None:
        os.makedirs(self.directory, mode=0o700, exist_ok=True)
        with open(self.marker, "w", encoding="utf-8") as file:
            file.write(
                f"{self.kind} changed in {', '.join(sorted(self.places))}; the system was not told yet\n"
            )
            file.flush()
            os.fsync(file.fileno())

    def run(self, commands: Iterable[Sequence[str]]) -> None:
        """Run every command in its order, then forget the marker."""
        for command in commands:
            try:
                answer = subprocess.run(
                    list(command),
                    capture_output=True,
                    text=True,
                    errors="replace",
                    check=False,
                    stdin=subprocess.DEVNULL,
                )
                failure = (
                    f"ended with {answer.returncode}: {(answer.stderr or answer.stdout).strip()}"
                    if answer.returncode
                    else ""
                )
            except OSError as error:
                failure = f"could not be started: {error.strerror}"
            if failure:
                raise ApplyError(
                    f"the {self.kind} are in place, but '{shlex.join(command)}' {failure}; put that right "
                    "and run again, the command is repeated"
                )
        if os.path.exists(self.marker):
            os.unlink(self.marker)
