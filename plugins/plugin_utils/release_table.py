# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The releases on all hosts, as lines for people. Pure: it reads what release_info has returned."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.flaskworks.server.plugins.module_utils.release.ids import age
from ansible_collections.flaskworks.server.plugins.plugin_utils import host_table
from ansible_collections.flaskworks.server.plugins.plugin_utils.receipt import NONE, revision, short

HEADING = ("app", "host", "release", "state", "age", "revision", "size", "environment")


def lines(hosts: Sequence[str], found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Write one table for all hosts, and below it what needs a sentence.

    Args:
        hosts: all hosts of the play, in its order.
        found: what ``release_info`` returned on each of them; hosts that failed have no ``apps``.
    """
    table = host_table.lines(hosts, found, HEADING, (4, 6, 7), _rows)
    return table + host_table.notes(hosts, found, _notes)


def _rows(app: str, host: str, told: Mapping[str, Any]) -> Iterable[Sequence[str]]:
    if not told["releases"]:
        return [(app, host, NONE, "no release yet", NONE, NONE, NONE, NONE)]
    return [
        (
            app,
            host,
            one["release"],
            ", ".join(_states(told, one)) or NONE,
            age(one["age"]),
            revision(one["revision"]),
            size(one["size"]),
            size(one["environment_size"]),
        )
        for one in told["releases"]
    ]


def _states(told: Mapping[str, Any], one: Mapping[str, Any]) -> list[str]:
    found = [what for what in ("current", "previous", "staged") if told[what] == one["release"]]
    if one["mark"]:
        found.append(one["mark"]["state"])
    return [*found, "damaged"] if one["damage"] else found


def _notes(told: Mapping[str, Any]) -> list[str]:
    notes = []
    for one in told["releases"]:
        if one["mark"]:
            notes.append(f"{short(one['release'])} was {one['mark']['told']}")
        if one["damage"]:
            notes.append(f"{short(one['release'])} is damaged, {one['damage']}")
    if told["releases"] and told["current"] is None:
        notes.append("no release serves")
    last = told["last"]
    if last:
        way = f"{short(_text(last.get('from')))} → {short(_text(last.get('to')))}"
        moment = _text(last.get("at")) or ""
        when = f"{moment[:10]} {moment[11:16]}"
        notes.append(
            f"last switch at {when} UTC by {_text(last.get('who'))}: {_text(last.get('what'))}, {way}"
        )
    lock = told["lock"]
    if lock:
        notes.append(f"locked by {lock['who']} since {lock['since']} ({lock['what']}, process {lock['pid']})")
    return ["".join(one if one.isprintable() else "?" for one in note) for note in notes]


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def size(count: float) -> str:
    """Bytes as people read them: ``0 kB``, ``840 kB``, ``1.2 MB``, ``3.4 GB``."""
    for unit in ("kB", "MB"):
        count /= 1000
        if count < 999.5:
            return f"{count:.0f} {unit}" if count >= 99.5 or unit == "kB" else f"{count:.1f} {unit}"
    return f"{count / 1000:.1f} GB"
