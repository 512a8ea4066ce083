# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The receipt of a deploy or of a roll back: what each host serves now, and how to take it back. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

DEPLOY, ROLL_BACK = "deploy", "roll back"
STEPS = ("build", "gate", "switch")
NONE = "-"
SEVERAL = 5  # as many apps are named each with a command of its own
_ID = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{10}")
_COMMIT = re.compile(r"[0-9a-f]{40}(-dirty)?")


@dataclass(frozen=True)
class Entry:
    """What became of one app on one host; ids of releases, seconds by step."""

    app: str
    host: str
    old: str | None
    new: str | None
    serves: str | None
    reached: bool = True
    would: bool = False
    revision: str = ""
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def switched(self) -> bool:
        """Whether another release has served since the play began, also where the host switched back."""
        return self.new is not None and self.new != self.old

    @property
    def kept(self) -> bool:
        """Whether another release than before serves, or will where nothing was done yet."""
        return self.would or (self.switched and self.serves != self.old)

    def facts(self) -> dict[str, Any]:
        """The entry for programs."""
        return {
            "app": self.app,
            "host": self.host,
            "from": self.old,
            "to": self.new,
            "serves": self.serves if self.reached else None,
            "reached": self.reached,
            "revision": self.revision,
            "seconds": dict(self.seconds),
        }


def read(hosts: Iterable[str], results: Mapping[str, Sequence[Any]], check: bool = False) -> list[Entry]:
    """Read the entries out of what the tasks of the play have registered, in their order, on each host.

    The order is that of the apps, then of the hosts. What is no result of the module is passed over: a play
    that fails registers all kinds of things.
    """
    found = []
    for host in hosts:
        given = [one for one in results.get(host, ()) if isinstance(one, Mapping)]
        lost = any(one.get("unreachable") for one in given)
        known: dict[str, list[Mapping[str, Any]]] = {}
        for result in given:
            apps = result.get("apps")
            for name, app in apps.items() if isinstance(apps, Mapping) else ():
                if isinstance(app, Mapping):
                    known.setdefault(str(name), []).append(app)
        found += [_entry(name, host, steps, lost, check) for name, steps in known.items()]
    order = {name: number for number, name in enumerate(dict.fromkeys(one.app for one in found))}
    return sorted(found, key=lambda one: order[one.app])


def _entry(name: str, host: str, steps: Sequence[Mapping[str, Any]], lost: bool, check: bool) -> Entry:
    first, last = steps[0], steps[-1]
    old = _text(first.get("previous" if first.get("changed") else "serves"))
    served = [_text(one.get("serves")) for one in steps]
    others = [one for one in served if one != old]
    seconds: dict[str, float] = {}
    for one in steps:
        took = one.get("seconds")
        for step, value in took.items() if isinstance(took, Mapping) else ():
            if isinstance(value, int | float):
                seconds[str(step)] = float(value)
    would = check and bool(first.get("changed"))
    meant = _text(last.get("release")) if would or (lost and last.get("staged")) else None
    return Entry(
        app=name,
        host=host,
        old=old,
        new=others[0] if others else meant,
        serves=served[-1],
        reached=not lost,
        would=would,
        revision=_text(next((one["revision"] for one in steps if one.get("revision")), None)) or "",
        seconds=seconds,
    )


def _text(value: Any) -> str | None:
    if value is None or not str(value):
        return None
    return "".join(one if one.isprintable() else "?" for one in str(value))


def short(name: str | None) -> str:
    """A release by its moment, which is the same on all hosts; an id also holds a digest that need not be."""
    if name is None:
        return NONE
    return name.partition("-")[0] if _ID.fullmatch(name) else name


def revision(text: str) -> str:
    """A commit as people write it; anything else as it is."""
    if _COMMIT.fullmatch(text):
        return text[:10] + text[40:]
    return text[:24] or NONE


def lines(
    entries: Sequence[Entry],
    what: str = DEPLOY,
    inventory: Sequence[str] = (),
    limit: str | None = None,
    failed: bool = False,
) -> list[str]:
    """Write the receipt.

    Args:
        entries: what ``read`` has found.
        what: ``deploy`` or ``roll back``.
        inventory: arguments of ``-i``, as the operator gave them; empty when there were none.
        limit: the argument of ``--limit``, if there was one.
        failed: whether the play has failed. Then nothing is written unless a host has switched: what has not
            switched is told by the failure.
    """
    doubtful = any(not one.reached and one.switched for one in entries)
    if not (doubtful or any(one.switched or one.would for one in entries)):
        return [] if failed else _idle(entries)
    changed = list(dict.fromkeys(one.app for one in entries if one.switched or one.would))
    shown = [one for one in entries if one.app in changed]
    told = [("app", "host", "release", "revision", *STEPS), *map(_cells, shown)]
    if any(one.would for one in shown):
        told = [row[:4] for row in told]
    written = ["What would be released (nothing was touched):"] if any(one.would for one in shown) else []
    written += table(told, right=range(4, 7))
    if not any(one.would for one in shown):
        written += _way_back(entries, changed, what, inventory, limit)
    return written + _idle([one for one in entries if one.app not in changed])


def _cells(entry: Entry) -> tuple[str, ...]:
    old, new = short(entry.old), short(entry.new)
    took = [f"{entry.seconds[step]:.2f} s" if step in entry.seconds else NONE for step in STEPS]
    if entry.would:
        release = f"{old} → {short(entry.new) if entry.switched else 'new'}"
    elif not entry.reached:
        release = f"{old} or {new}: not reached" if entry.switched else f"{old}: not reached"
    elif not entry.switched:
        release, took = f"{old} serves on", [NONE] * len(STEPS)
    elif entry.kept:
        release = f"{old} → {short(entry.serves)}"
    else:
        release = f"{old}, back from {new}"
    return (entry.app, entry.host, release, revision(entry.revision), *took)


def _idle(entries: Sequence[Entry]) -> list[str]:
    """One line for each app of which all hosts serve what they should."""
    told = []
    for app in dict.fromkeys(one.app for one in entries):
        hosts: dict[str, list[str]] = {}
        for one in entries:
            if one.app == app:
                hosts.setdefault(short(one.serves), []).append(one.host)
        if len(hosts) == 1:
            whole = {str(one.serves) for one in entries if one.app == app}
            name = whole.pop() if len(whole) == 1 else next(iter(hosts))
            told.append(f"{app}: nothing to do, {name} serves")
        else:
            serving = "; ".join(f"{name} serves on {', '.join(where)}" for name, where in hosts.items())
            told.append(f"{app}: nothing to do, {serving}")
    return told


def _way_back(
    entries: Sequence[Entry], changed: Sequence[str], what: str, inventory: Sequence[str], limit: str | None
) -> list[str]:
    kept = [app for app in changed if any(one.app == app and one.kept and one.old for one in entries)]
    if not kept:
        return []
    if what == ROLL_BACK:
        word = f"-e flask_redeploy={','.join(kept)}"
        return [f"What was left is not deployed again unless the deploy is run with {word}"]
    everywhere = {one.app for one in entries}
    named: list[str | None] = [None] if len(everywhere) == 1 else list(kept)
    if len(named) > SEVERAL:
        named = ["APP"]
    return [f"To roll back: {command(inventory, limit, app)}" for app in named]


def command(inventory: Sequence[str] = (), limit: str | None = None, app: str | None = None) -> str:
    """The command that rolls back."""
    words = ["ansible-playbook", "flaskworks.server.rollback"]
    for one in inventory:
        words += ["-i", one]
    if limit:
        words += ["--limit", limit]
    if app:
        words += ["-e", f"app={app}"]
    return shlex.join(words)


def table(rows: Sequence[Sequence[str]], right: Iterable[int] = ()) -> list[str]:
    """Write rows below each other; the first is the heading. Columns named in ``right`` end together."""
    ends = set(right)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if number in ends else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
