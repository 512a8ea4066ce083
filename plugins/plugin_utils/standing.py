# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What each host serves after a play that failed, read from what the tasks of the role have registered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Standing:
    """What a host serves of one app, as far as is known."""

    host: str
    app: str
    words: str
    switched: bool = False
    doubtful: bool = False


def tell(
    hosts: Sequence[str], results: Mapping[str, Sequence[Mapping[str, Any]]], what: str = "deploy"
) -> str:
    """Return what each host serves.

    Args:
        hosts: all hosts of the play, in its order.
        results: for each host what it has registered for staging, switching, watching, withdrawing and the
            last hook; empty when it has not come to that.
        what: what has failed, ``deploy`` or ``roll back``.
    """
    found = [one for host in hosts for one in _of_host(host, *results[host])]
    failed = [host for host in hosts if any(_failed(result) for result in results[host])]
    begin = f"The {what} failed on {', '.join(failed)}." if failed else f"The {what} failed."
    if not any(one.switched or one.doubtful for one in found):
        if any(app.get("changed") for host in hosts for app in (results[host][1].get("apps") or {}).values()):
            return f"{begin} Each host serves again what it served before."
        return f"{begin} No host has switched: each serves what it served before."
    lines = [begin + " What each host serves now:"]
    width = max(len(one.host) for one in found)
    for app in dict.fromkeys(one.app for one in found):
        lines += [f"  {app}  {one.host:<{width}}  {one.words}" for one in found if one.app == app]
    again = f"Correct what failed and {what} again; what serves its new release already is left alone."
    return "\n".join([*lines, again])


def _failed(result: Mapping[str, Any]) -> bool:
    return bool(result.get("failed") or result.get("unreachable"))


def _of_host(
    host: str,
    staged: Mapping[str, Any],
    activated: Mapping[str, Any],
    watched: Mapping[str, Any],
    withdrawn: Mapping[str, Any],
    hooked: Mapping[str, Any],
) -> list[Standing]:
    wanted = staged.get("apps") or {}
    serves = withdrawn.get("apps") or {}
    if serves:
        return [_seen(host, app, one.get("release"), wanted.get(app, {})) for app, one in serves.items()]
    lost = any(result.get("unreachable") for result in (staged, activated, watched, withdrawn, hooked))
    if not wanted:
        when = "it could not be reached" if lost else "its turn had not come"
        return [Standing(host, "*", f"what it served before; {when}")]
    now = activated.get("apps") or {}
    unknown = activated.get("unreachable") or watched.get("unreachable")  # lost while it might have switched
    found = []
    for app, one in wanted.items():
        if one.get("staged") and unknown:
            either = f"{one.get('previous') or 'nothing'} or {one.get('release')}"
            found.append(Standing(host, app, f"{either}; it cannot be reached", doubtful=True))
        else:
            found.append(_seen(host, app, _serving(one, now.get(app)), one))
    return found


def _serving(staged: Mapping[str, Any], activated: Mapping[str, Any] | None) -> str | None:
    """What served when the last task ended; ``release`` is what a task was to serve."""
    found: str | None
    if activated is not None:
        found = activated.get("serves", activated.get("release"))
    else:
        found = staged.get("previous" if staged.get("staged") else "release")
    return found


def _seen(host: str, app: str, serves: str | None, staged: Mapping[str, Any]) -> Standing:
    if serves is None:
        return Standing(host, app, "nothing")
    if staged.get("release") == serves and (staged.get("staged") or staged.get("changed")):
        return Standing(host, app, f"{serves} (new)", switched=True)
    return Standing(host, app, serves)
