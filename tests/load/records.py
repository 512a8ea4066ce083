"""What was counted, and what it amounts to. Pure: times are seconds of one clock that never goes back."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SLOW = 1.0
"""Seconds over its nominal duration that make a request a slow one."""


@dataclass(frozen=True, slots=True)
class Record:
    """One request.

    Attributes:
        outcome: "ok", "failed" or "stale" (a kept connection was closed under it).
        reason: why it is not ok, for people.
        release: what the answer says of itself, empty when there was none.
    """

    target: str
    kind: str
    start: float
    end: float
    outcome: str
    reason: str = ""
    release: str = ""

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Stall:
    """A moment in which the control on a host, or the generator itself, took `seconds` longer than usual."""

    target: str
    start: float
    end: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Retirement:
    """A release that must answer no request that starts after `since` and ends before `until`.

    The proxy keeps an upload to itself until it is whole: what ends later may have reached the app later.
    """

    target: str
    release: str
    since: float
    until: float


@dataclass(frozen=True)
class Fault:
    """A request that is "failed", "stale" or "slow", or "excused": slow only because the machine stalled."""

    fault: str
    record: Record
    why: str


@dataclass(frozen=True)
class Row:
    """The figures of one kind at one target. Durations are seconds and leave out failed requests."""

    target: str
    kind: str
    requests: int
    failed: int
    stale: int
    slow: int
    excused: int
    nominal: float
    median: float
    p99: float
    longest: float


@dataclass(frozen=True)
class Verdict:
    """What a run, or a part of it, amounts to."""

    rows: tuple[Row, ...]
    faults: tuple[Fault, ...]
    releases: Mapping[str, Mapping[str, int]]
    stalled: Mapping[str, float]
    longest_stall: float

    def _sum(self, name: str) -> int:
        return sum(getattr(row, name) for row in self.rows)

    @property
    def requests(self) -> int:
        """All requests."""
        return self._sum("requests")

    @property
    def failed(self) -> int:
        """Requests without their right and whole answer."""
        return self._sum("failed")

    @property
    def stale(self) -> int:
        """Requests under which a kept connection was closed, or that a retired release answered."""
        return self._sum("stale")

    @property
    def slow(self) -> int:
        """Requests that took over a second more than nominal, less what the machine stalled meanwhile."""
        return self._sum("slow")

    @property
    def excused(self) -> int:
        """Requests that would be slow if the machine had not stalled."""
        return self._sum("excused")

    def explain(self, limit: int = 40) -> str:
        """Return one line for each fault, in the order of time."""
        faults = sorted(self.faults, key=lambda fault: fault.record.start)
        lines = [
            f"{fault.record.start:10.3f} {fault.record.seconds:7.3f} s {fault.fault:<7} "
            f"{fault.record.target} {fault.record.kind}: {fault.why}"
            for fault in faults[:limit]
        ]
        more = len(faults) - limit
        return "\n".join([*lines, *([f"… and {more} more"] if more > 0 else [])])

    def table(self) -> str:
        """Return the figures as a table for people."""
        titles = (
            "host",
            "kind",
            "requests",
            "failed",
            "stale",
            "slow",
            "excused",
            "median s",
            "p99 s",
            "max s",
        )
        cells = [
            (
                row.target,
                row.kind,
                *map(str, (row.requests, row.failed, row.stale, row.slow, row.excused)),
                *(f"{value:.3f}" for value in (row.median, row.p99, row.longest)),
            )
            for row in self.rows
        ]
        total = (self.requests, self.failed, self.stale, self.slow, self.excused)
        cells.append(("all", "", *map(str, total), "", "", ""))
        widths = [max(len(line[column]) for line in [titles, *cells]) for column in range(len(titles))]
        lines = []
        for line in [titles, *cells]:
            words = [line[0].ljust(widths[0]), line[1].ljust(widths[1])]
            words += [word.rjust(width) for word, width in zip(line[2:], widths[2:], strict=True)]
            lines.append("  ".join(words).rstrip())
        stalled = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in sorted(self.stalled.items()))
        lines.append(f"stalls of the machine in all: {stalled}; longest {self.longest_stall:.2f} s")
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """Return the figures for a JSON file."""
        return {
            "requests": self.requests,
            "failed": self.failed,
            "stale": self.stale,
            "slow": self.slow,
            "excused": self.excused,
            "stalled": {name: round(seconds, 3) for name, seconds in self.stalled.items()},
            "longest_stall": round(self.longest_stall, 3),
            "releases": {name: dict(counts) for name, counts in self.releases.items()},
            "kinds": [
                {name: getattr(row, name) for name in Row.__dataclass_fields__}
                | {name: round(getattr(row, name), 4) for name in ("nominal", "median", "p99", "longest")}
                for row in self.rows
            ],
        }


def nominals(records: Iterable[Record]) -> dict[tuple[str, str], float]:
    """Return the median duration of each kind at each target."""
    durations: dict[tuple[str, str], list[float]] = {}
    for record in records:
        if record.outcome == "ok":
            durations.setdefault((record.target, record.kind), []).append(record.seconds)
    return {key: statistics.median(values) for key, values in durations.items()}


def judge(
    records: Sequence[Record],
    nominal: Mapping[tuple[str, str], float],
    stalls: Sequence[Stall] = (),
    retirements: Sequence[Retirement] = (),
) -> Verdict:
    """Judge these requests.

    A kind without a nominal duration is compared to the median of the requests themselves.
    """
    usual = {**nominals(records), **nominal}
    by_target: dict[str, list[Stall]] = {}
    for stall in stalls:
        by_target.setdefault(stall.target, []).append(stall)
    faults = []
    for record in records:
        own = by_target.get(record.target, [])
        fault = _fault(record, usual.get((record.target, record.kind), 0.0), own, retirements)
        if fault:
            faults.append(fault)
    found = Counter((fault.record.target, fault.record.kind, fault.fault) for fault in faults)
    releases: dict[str, Counter[str]] = {}
    for record in records:
        if record.release:
            releases.setdefault(record.target, Counter())[record.release] += 1
    rows = []
    for target, kind in dict.fromkeys((record.target, record.kind) for record in records):
        own_records = [record for record in records if (record.target, record.kind) == (target, kind)]
        durations = sorted(record.seconds for record in own_records if record.outcome == "ok") or [0.0]
        rows.append(
            Row(
                target=target,
                kind=kind,
                requests=len(own_records),
                failed=found[target, kind, "failed"],
                stale=found[target, kind, "stale"],
                slow=found[target, kind, "slow"],
                excused=found[target, kind, "excused"],
                nominal=usual.get((target, kind), 0.0),
                median=statistics.median(durations),
                p99=durations[min(len(durations) - 1, int(len(durations) * 0.99))],
                longest=durations[-1],
            )
        )
    return Verdict(
        rows=tuple(sorted(rows, key=lambda row: row.target)),
        faults=tuple(faults),
        releases=releases,
        stalled={name: sum(stall.seconds for stall in own) for name, own in by_target.items()},
        longest_stall=max((stall.seconds for stall in stalls), default=0.0),
    )


def stalled(stalls: Iterable[Stall], start: float, end: float) -> float:
    """Return how many seconds of that time the machine stood still."""
    overlaps = ((stall, min(end, stall.end) - max(start, stall.start)) for stall in stalls)
    return sum(min(stall.seconds, overlap) for stall, overlap in overlaps if overlap > 0)


def _fault(
    record: Record, nominal: float, stalls: Sequence[Stall], retirements: Sequence[Retirement]
) -> Fault | None:
    if record.outcome != "ok":
        return Fault(record.outcome, record, record.reason)
    for gone in retirements:
        if (gone.target, gone.release) != (record.target, record.release):
            continue
        late = record.start - gone.since - stalled(stalls, gone.since, record.start)
        if late > 0 and record.end < gone.until:
            return Fault("stale", record, f"answered by {record.release}, {late:.1f} s too late")
    over = record.seconds - nominal - SLOW
    if over <= 0:
        return None
    stood = stalled(stalls, record.start, record.end)
    why = f"nominal {nominal:.3f} s, the machine stalled for {stood:.3f} s"
    return Fault("slow" if over > stood else "excused", record, why)
