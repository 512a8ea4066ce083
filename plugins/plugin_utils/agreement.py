# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether all hosts of a roll back have chosen the same release. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def disagreement(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Say which host would go back to what, and how to name one release for all; empty when they agree.

    Args:
        results: what the module has returned to each host of the play, in its order.
    """
    chosen = {
        host: (app, entry)
        for host, result in results.items()
        for app, entry in (result.get("apps") or {}).items()
    }
    apps = sorted({app for app, _entry in chosen.values()})
    if len(apps) > 1:
        return (
            f"the hosts of this play have several apps ({', '.join(apps)}); "
            f"say which one goes back, as in -e app={apps[0]}"
        )
    if len({_moment(entry.get("release")) for _app, entry in chosen.values()}) < 2:
        return ""
    width = max(map(len, chosen))
    lines = [f"{apps[0]}: not all hosts would go back to the same release, so none of them was switched:"]
    for host, (_app, entry) in chosen.items():
        now, then = _moment(entry.get("previous")), _moment(entry.get("release"))
        does = "and would stay with it" if now == then else f"and would go back to {then}"
        lines.append(f"    {host:<{width}}  serves {now} {does}")
    common = set.intersection(
        *({_moment(name) for name in entry.get("there") or ()} for _app, entry in chosen.values())
    )
    if common:
        lines.append(
            f"  Name one that all of them have: -e release={' or '.join(sorted(common, reverse=True))}"
        )
    else:
        lines.append("  They have no release in common: go back host by host, with --limit and -e release=")
    return "\n".join(lines)


def _moment(name: Any) -> str:
    return str(name or "nothing").partition("-")[0]
