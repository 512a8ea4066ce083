# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a module has returned for the apps of all hosts, as one table for people. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
) -> list[str]:
    """Write the table; nothing when there is no app.

    Args:
        hosts: all hosts of the play, in its order.
        found: what the module returned on each of them; hosts that failed have no ``apps``.
        heading: names of the columns.
        right: columns that end together.
        rows_of: the rows of an app on a host, from what is told of it.
    """
    rows = [row for app, host, told in _each(hosts, found) for row in rows_of(app, host, told)]
    return table([heading, *rows], right=right) if rows else []


def notes(hosts: Sequence[str], found: Mapping[str, Mapping[str, Any]], notes_of: Notes) -> list[str]:
    """Write what needs a sentence, each once with the hosts that it is about, and who has told nothing.

    Args:
        hosts: all hosts of the play, in its order.
        found: what the module returned on each of them; hosts that failed have no ``apps``.
        notes_of: what has to be said of an app, from what is told of it.
    """
    said: dict[str, list[str]] = {}
    for app, host, told in _each(hosts, found):
        for note in notes_of(told):
            said.setdefault(f"{app}: {note}", []).append(host)
    written = [f"{note} [{', '.join(where)}]" for note, where in said.items()]
    return written + [
        f"{host}: not listed, {_why(found.get(host))}" for host in hosts if not apps_of(found, host)
    ]


def _each(
    hosts: Sequence[str], found: Mapping[str, Mapping[str, Any]]
) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """What is told of every app on every host, app by app."""
    for app in dict.fromkeys(app for host in hosts for app in apps_of(found, host)):
        for host in hosts:
            told = apps_of(found, host).get(app)
            if told is not None:
                yield app, host, told


def apps_of(found: Mapping[str, Mapping[str, Any]], host: str) -> Mapping[str, Mapping[str, Any]]:
    """What a host has told, by app."""
    apps = (found.get(host) or {}).get("apps")
    return apps if isinstance(apps, Mapping) else {}


def _why(result: Mapping[str, Any] | None) -> str:
    """Say why a host has told nothing."""
    if not result:
        return "it was lost before"
    if result.get("unreachable"):
        return "it cannot be reached"
    return "it failed" if result.get("failed") else "it has no app"
