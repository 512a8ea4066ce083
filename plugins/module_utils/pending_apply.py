# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Commands that a change owes to the system, remembered across a killed run.

A handler is forgotten when a play dies between the change and the handler. Here a marker file is
written before the change and removed after the commands succeeded, so the next run makes up for it.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

STATE_DIRECTORY = "/var/lib/flaskworks"
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class PendingApply:
    """The marker of one kind of change. That it is there is all that counts; its text is for people."""

    path: str

    def is_set(self) -> bool:
        return os.path.lexists(self.path)

    def set(self, text: str) -> None:
        directory = os.path.dirname(self.path)
        os.makedirs(directory, mode=0o700, exist_ok=True)
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(f"{text}\n")
            file.flush()
            os.fsync(file.fileno())
        sync_directory(directory)

    def clear(self) -> None:
        if self.is_set():
            os.unlink(self.path)
            sync_directory(os.path.dirname(self.path))


def sync_directory(path: str) -> None:
    """Bring what was created, renamed or removed in a directory to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def run_command(argv: Sequence[str], patience: float | None = None) -> tuple[int, str]:
    """Run a checker or a reload. Returns its code and all that it printed.

    The code is 127 when there is no such program, and 124 when it took longer than `patience` seconds.
    """
    environment = {**os.environ, "PATH": SEARCH_PATH, "LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            timeout=patience,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        return 124, f"it took longer than {patience:g} s"
    except (FileNotFoundError, NotADirectoryError):
        return 127, f"{argv[0]}: no such program"
    except PermissionError:
        return 126, f"{argv[0]}: not executable"
    return done.returncode, done.stdout.decode("utf-8", "replace").strip()
