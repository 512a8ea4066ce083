# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a module has returned for the apps of all hosts, as one table for people. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.flaskworks.server.plugins.plugin_utils.receipt import table

Rows = Callable[[str, str, Mapping[str, Any]], Iterable[Sequence[str]]]
Notes = Callable[[Mapping[str, Any]], Iterable[str]]


def lines(
    hosts: Sequence[str],
    found: Mapping[str, Mapping[str, Any]],
    heading: Sequence[str],
    right: Iterable[int],
    rows_of: Rows,
    notes_of: Notes,
) -> list[str]:
    """Write the table, and below it what needs a sentence, with the hosts that it is about.

    Args:
        hosts: all hosts of the play, in its order.
        found: what the module returned on each of them; hosts that failed have no ``apps``.
        heading: names of the columns.
        right: columns that end together.
        rows_of: the rows of an app on a host, from what is told of it.
        notes_of: what has to be said of an app, from the same.
    """
    apps = dict.fromkeys(app for host in hosts for app in _apps(found, host))
    rows: list[Sequence[str]] = []
    notes: dict[str, list[str]] = {}
    for app in apps:
        for host in hosts:
            told = _apps(found, host).get(app)
            if told is None:
                continue
            rows += rows_of(app, host, told)
            for note in notes_of(told):
                notes.setdefault(f"{app}: {note}", []).append(host)
    written = table([heading, *rows], right=right) if rows else []
    written += [f"{note} [{', '.join(where)}]" for note, where in notes.items()]
    written += [f"{host}: not listed, {_why(found.get(host))}" for host in hosts if not _apps(found, host)]
    return written


def _apps(found: Mapping[str, Mapping[str, Any]], host: str) -> Mapping[str, Mapping[str, Any]]:
    apps = (found.get(host) or {}).get("apps")
    return apps if isinstance(apps, Mapping) else {}


def _why(result: Mapping[str, Any] | None) -> str:
    """Say why a host has told nothing."""
    if not result:
        return "it was lost before"
    if result.get("unreachable"):
        return "it cannot be reached"
    return "it failed" if result.get("failed") else "it has no app"
