# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Settings of the running kernel: what differs is set, and what cannot be set is told."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

ROOT = "/proc/sys"


@dataclass
class Outcome:
    """What was done.

    Attributes:
        changes: What was (or would be) set: value before and after, by name.
        refused: Names that this host does not let anybody set.
        unknown: Names that this kernel does not have.
    """

    changes: dict[str, tuple[str, str]] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


def bring_about(settings: Mapping[str, str], check_mode: bool = False, root: str = ROOT) -> Outcome:
    """Set what differs. A refusal is no error: in a container the kernel is somebody else's."""
    outcome = Outcome()
    for name, wanted in sorted(settings.items()):
        path = os.path.join(root, *name.split("."))
        before = _read(path)
        if before is None and not os.path.exists(path):
            outcome.unknown.append(name)
        elif before is None or not _writable(path):
            if before is None or _plain(before) != _plain(wanted):
                outcome.refused.append(name)
        elif _plain(before) != _plain(wanted):
            if not check_mode and not _write(path, wanted):
                outcome.refused.append(name)
            else:
                outcome.changes[name] = (before, wanted)
    return outcome


def _plain(value: str) -> str:
    return " ".join(value.split())


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return None


def _writable(path: str) -> bool:
    """Also root is refused where /proc/sys is mounted read-only."""
    return os.access(path, os.W_OK)


def _write(path: str, value: str) -> bool:
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(f"{value}\n")
    except OSError:
        return False
    return True
