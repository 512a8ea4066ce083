# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What dpkg's own files say of packages: milliseconds, where apt takes a second to open its cache."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

STATUS = "var/lib/dpkg/status"
UPDATES = "var/lib/dpkg/updates"
EXTENDED = "var/lib/apt/extended_states"

_PLAIN = re.compile(r"[a-z0-9][a-z0-9+.-]+")


def lacking(present: Sequence[str], root: str = "/") -> list[str]:
    """Those of the wanted packages that apt has to be asked for.

    Args:
        present: Names. One with alternatives ("a | b") wants the first where none of them is installed.
        root: The directory that dpkg's files are looked for in.

    Returns:
        Names for apt, in their order: what is not installed; what is only there because of another package
        and would go with it; and what is no plain name (with a version, a release, an architecture, a
        wildcard), which only apt understands. All of them where dpkg was interrupted.
    """
    installed, _known, certain = _states(Path(root))
    automatic = _automatic(Path(root))
    wanted = []
    for element in present:
        names = [name.strip() for name in element.split("|")]
        if certain and any(name in installed and name not in automatic for name in names):
            continue
        there = [name for name in names if name in installed]
        wanted.append((there or names)[0])
    return wanted


def remaining(absent: Sequence[str], root: str = "/") -> list[str]:
    """Those of the unwanted packages that apt has to remove: installed, or removed with their settings left.

    What is no plain name is among them, and all are where dpkg was interrupted.
    """
    _installed, known, certain = _states(Path(root))
    return [name for name in absent if not certain or name in known or not _PLAIN.fullmatch(name)]


def _states(root: Path) -> tuple[frozenset[str], frozenset[str], bool]:
    """Names of the installed packages, of all of which something is there, and whether that is certain."""
    installed, known, native = set(), set(), ""
    found = list(_stanzas(root / STATUS))
    for stanza in found:
        if stanza.get("Package") == "dpkg":
            native = stanza.get("Architecture", "")
    for stanza in found:
        state = stanza.get("Status", "").rpartition(" ")[2]
        # A package of another architecture is another package, to apt, too.
        if state in ("", "not-installed") or stanza.get("Architecture") not in (native, "all"):
            continue
        known.add(stanza["Package"])
        if state == "installed":
            installed.add(stanza["Package"])
    try:
        pending = [name for name in os.listdir(root / UPDATES) if name.isdigit()]
    except FileNotFoundError:
        pending = []
    return frozenset(installed), frozenset(known), bool(found) and not pending


def _automatic(root: Path) -> frozenset[str]:
    """Names of the packages that are there because of others only."""
    return frozenset(
        stanza["Package"] for stanza in _stanzas(root / EXTENDED) if stanza.get("Auto-Installed") == "1"
    )


def _stanzas(path: Path) -> Iterator[dict[str, str]]:
    """The fields that count here, of every stanza of a file; nothing where there is none."""
    try:
        text = path.read_text("utf-8", "replace")
    except FileNotFoundError:
        return
    for stanza in text.split("\n\n"):
        fields = dict(_FIELD.findall(stanza))
        if "Package" in fields:
            yield fields


_FIELD = re.compile(r"^(Package|Status|Architecture|Auto-Installed): (.+)$", re.MULTILINE)
