"""Requests per second and latencies through TLS: our default beside the set-up that tutorials end with."""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.apps import DOMAIN
from benchmarks.hosts import Host

HERE = Path(__file__).resolve().parent
WARM_UP = 2

SETUPS = ("ours", "tutorial")


@dataclass(frozen=True)
class Workload:
    """One kind of request."""

    name: str
    path: str
    connections: int
    """Kept open by the load generator; enough of them that both set-ups are always busy."""


WORKLOADS = (
    Workload("small JSON", "/json", 32),
    Workload("50 ms wait", "/sleep?seconds=0.05", 64),
    Workload("5 ms of Python", "/burn?ms=5", 32),
    Workload("static file", "/static/hello.css", 32),
)


@dataclass(frozen=True)
class Sample:
    """What one run of the load generator saw. Latencies in seconds."""

    rate: float
    p50: float
    p99: float
    longest: float
    failed: int


def load(host: Host, workload: Workload, seconds: int) -> Sample:
    """Ask as fast as answers come, for this long."""
    done = subprocess.run(
        [
            *[
                "wrk",
                "--threads",
                "1",
                "--connections",
                str(workload.connections),
                "--duration",
                f"{seconds}s",
            ],
            *["--timeout", "10s", "--script", str(HERE / "load.lua"), f"https://{DOMAIN}{workload.path}"],
        ],
        env={**os.environ, "BENCH_ADDRESS": host.address},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=seconds + 60,
        check=True,
    )
    found = re.search(r"^RESULT (.*)$", done.stdout, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"wrk gave no result:\n{done.stdout}")
    result = json.loads(found[1])
    return Sample(
        rate=result["requests"] / (result["duration"] / 1e6),
        p50=result["p50"] / 1e6,
        p99=result["p99"] / 1e6,
        longest=result["longest"] / 1e6,
        failed=result["failed"],
    )


def measure(
    hosts: Mapping[str, Host], rounds: int, seconds: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """Load both set-ups in turns; which of them comes first changes from round to round."""
    samples: dict[str, dict[str, list[Sample]]] = {
        each.name: {setup: [] for setup in SETUPS} for each in WORKLOADS
    }
    for setup in SETUPS:
        for workload in WORKLOADS:
            load(hosts[setup], workload, WARM_UP)
    for number in range(rounds):
        for workload in WORKLOADS:
            pair = samples[workload.name]
            for setup in SETUPS if number % 2 == 0 else reversed(SETUPS):
                pair[setup].append(load(hosts[setup], workload, seconds))
            ours, tutorial = pair["ours"][-1], pair["tutorial"][-1]
            say(
                f"round {number + 1}: {workload.name}: {ours.rate:.0f}/s against {tutorial.rate:.0f}/s, "
                f"{ours.rate / tutorial.rate:.2f} times"
            )
    return {
        "seconds": seconds,
        "workloads": [_summary(workload, samples[workload.name]) for workload in WORKLOADS],
    }


def _summary(workload: Workload, pair: Mapping[str, list[Sample]]) -> dict[str, Any]:
    ratios = [
        ours.rate / tutorial.rate for ours, tutorial in zip(pair["ours"], pair["tutorial"], strict=True)
    ]
    summary: dict[str, Any] = {
        **asdict(workload),
        "ratio": statistics.median(ratios),
        "ratios": ratios,
    }
    for setup in SETUPS:
        samples = pair[setup]
        summary[setup] = {
            "rate": statistics.median(sample.rate for sample in samples),
            "p50": statistics.median(sample.p50 for sample in samples),
            "p99": statistics.median(sample.p99 for sample in samples),
            "longest": max(sample.longest for sample in samples),
            "failed": sum(sample.failed for sample in samples),
        }
    return summary
