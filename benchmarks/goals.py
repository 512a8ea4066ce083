"""What was promised, beside what was measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

TIMES = "\N{MULTIPLICATION SIGN}"


@dataclass(frozen=True)
class Goal:
    """One promise with a limit, and the figure that was measured."""

    name: str
    value: float
    limit: float
    unit: str
    digits: int

    @property
    def kept(self) -> bool:
        """Whether the promise holds."""
        return self.value <= self.limit

    def text(self, number: float) -> str:
        """Return a number as the reader sees it."""
        return f"{number:.{self.digits}f}{self.unit}"


def goals(results: dict[str, Any]) -> list[Goal]:
    """Return every promise of which the results say something."""
    found = []
    if "seconds" in results:
        part = results["seconds"]
        found += [
            Goal("bare host to the first 200 over HTTPS", part["first"]["answer"], 60, " s", 1),
            Goal("deploy of changed code, above an empty playbook", part["above"], 1.5, " s", 2),
            Goal("roll back to a release that still runs", part["roll_back_warm"], 2, " s", 2),
            Goal("roll back to one that has to be started", part["roll_back_cold"], 10, " s", 2),
        ]
    if "scale" in results:
        part = results["scale"]
        counts = part["counts"]
        deploys = max(each[kind]["trips"] for each in counts for kind in ("deploy_one", "deploy_all"))
        found += [
            Goal(
                f"no-op site.yml of {part['most']} apps, times that of one",
                part["no_op"]["ratio"],
                1.5,
                TIMES,
                2,
            ),
            Goal(
                "round trips of a no-op site.yml, at most",
                max(each["no_op"]["trips"] for each in counts),
                15,
                "",
                0,
            ),
            Goal("round trips of a deploy, at most", deploys, 3, "", 0),
        ]
    if "deploys" in results and results["deploys"]["ansistrano"]:
        for each, limit in zip(results["deploys"]["sizes"], (0.25, 0.20), strict=True):
            hosts = "one host" if each["hosts"] == 1 else f"{each['hosts']} hosts"
            share = "as a share of Ansistrano's"
            found += [
                Goal(f"deploy of changed code on {hosts}, {share}", _share(each, "deploy"), limit, TIMES, 2),
                Goal(f"deploy with nothing to do on {hosts}, {share}", _share(each, "no_op"), 0.20, TIMES, 2),
            ]
    return found


def _share(size: dict[str, Any], kind: str) -> float:
    ratio: float = size[kind]["ratio"]["ansistrano"]
    return ratio
