"""Results as files: figures (JSON), the text in README.md, and the picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import picture
from benchmarks.goals import TIMES, goals
from benchmarks.picture import latency, rate

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
README = HERE / "README.md"
PICTURE = RESULTS / "results.svg"
BEGIN, END = "<!-- results: written by the benchmark -->", "<!-- end of the results -->"


def _today() -> Path:
    return RESULTS / f"{datetime.now(UTC):%Y-%m-%d}.json"


def load() -> dict[str, Any]:
    """Return what was measured today already: parts can be measured one after another."""
    return _read(_today()) if _today().exists() else {}


def newest() -> dict[str, Any]:
    """Return the last results."""
    return _read(max(RESULTS.glob("*.json")))


def save(results: dict[str, Any]) -> None:
    """Keep the figures."""
    RESULTS.mkdir(exist_ok=True)
    _today().write_text(json.dumps(results, indent=2) + "\n")


def write(results: dict[str, Any]) -> list[Path]:
    """Write the text and the picture; the files that were written."""
    PICTURE.write_text(picture.draw(results))
    before, _begin, rest = README.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    README.write_text(f"{before}{BEGIN}\n\n{_text(results)}\n{END}{after}")
    return [PICTURE, README]


def _read(path: Path) -> dict[str, Any]:
    results: dict[str, Any] = json.loads(path.read_text())
    return results


def _text(results: dict[str, Any]) -> str:
    blocks = [_machine(results)]
    if goals(results):
        blocks.append(_goals(results))
    if "seconds" in results:
        blocks.append(_seconds(results["seconds"]))
    if "deploys" in results:
        blocks.append(_deploys(results["deploys"]))
    if "scale" in results:
        blocks.append(_scale(results["scale"]))
    if "serving" in results:
        blocks.append(_serving(results["serving"]))
    return "\n".join(blocks)


def _machine(results: dict[str, Any]) -> str:
    hosts = results.get("hosts", {})
    lines = [f"* {name}: {value}" for name, value in results["machine"].items()]
    if hosts:
        lines.append("* hosts: " + ", ".join(f"{name} {value}" for name, value in hosts.items()))
    lines += [
        f"* {name}: measured {part['when']}, load average before it {part['load']}"
        for name, part in results.items()
        if "when" in part
    ]
    return "\n".join(lines) + "\n"


def _goals(results: dict[str, Any]) -> str:
    rows = [
        (goal.name, goal.text(goal.value), goal.text(goal.limit), "kept" if goal.kept else "**missed**")
        for goal in goals(results)
    ]
    return "### Promises\n\n" + _table(("promise", "measured", "limit", ""), rows)


def _seconds(part: dict[str, Any]) -> str:
    first = part["first"]
    rows = [
        ("bare host: first 200 over HTTPS", _s(first["answer"])),
        ("bare host: `site.yml` to its end", _s(first["play"])),
        ("empty playbook", _s(part["empty"])),
        ("no-op `site.yml`", _s(part["no_op"])),
        ("`deploy.yml` with one changed file", _s(part["deploy"])),
        ("… above the empty playbook of the same round", _s(part["above"])),
        ("`rollback.yml`, to a release that still runs", _s(part["roll_back_warm"])),
        ("`rollback.yml`, to one that has to be started", _s(part["roll_back_cold"])),
    ]
    return (
        f"### Seconds\n\nThe sample app on one host, over ssh; medians of {part['rounds']} rounds.\n\n"
        + _table(("run", "seconds"), rows)
    )


def _deploys(part: dict[str, Any]) -> str:
    peers = {"ansistrano": "Ansistrano", "tutorial": "tutorial"}
    if part["ansistrano"] is None:
        del peers["ansistrano"]
        beside = "No clone of Ansistrano's role was given in this run, so nothing is said about it."
    else:
        beside = f"Ansistrano's role is {part['ansistrano']}."
    rows = []
    for each in part["sizes"]:
        for kind, name in (("deploy", "one changed file"), ("no_op", "nothing to do")):
            found = each[kind]
            rows.append(
                (
                    str(each["hosts"]),
                    name,
                    *(_s(found["seconds"][way]) for way in ("empty", "ours", *peers)),
                    *(_ratio(found["ratio"][peer], found["ratios"][peer]) for peer in peers),
                )
            )
    head = ("hosts", "deploy", "empty playbook", "ours", *peers.values())
    return (
        "### Deploys beside other ways to deploy\n\n"
        f"Seconds, medians of {part['rounds']} interleaved rounds over ssh. {beside}\n\n"
        + _table((*head, *(f"ours / {name} (rounds)" for name in peers.values())), rows)
    )


def _scale(part: dict[str, Any]) -> str:
    rows = [
        (
            str(each["apps"]),
            *(
                f"{each[key]['trips']} ({_s(each[key]['seconds'])} s)"
                for key in ("no_op", "deploy_one", "deploy_all")
            ),
            _s(each["provisioning"]),
        )
        for each in part["counts"]
    ]
    no_op = part["no_op"]
    tasks = "\n".join(
        f"* {trips} {TIMES} {task}" for task, trips in part["counts"][-1]["no_op"]["tasks"].items()
    )
    return (
        "### Round trips to one host\n\nIn brackets the seconds of that one run.\n\n"
        + _table(
            ("apps", "no-op `site.yml`", "deploy of one app", "deploy of all apps", "first provisioning, s"),
            rows,
        )
        + f"\nNo-op `site.yml`, medians of {no_op['rounds']} rounds: one app {_s(no_op['one'])} s, "
        f"{part['most']} apps {_s(no_op['many'])} s, {no_op['ratio']:.2f} times "
        f"({', '.join(f'{ratio:.2f}' for ratio in no_op['ratios'])}).\n\n"
        f"What a no-op of {part['most']} apps sends:\n\n{tasks}\n"
    )


def _serving(part: dict[str, Any]) -> str:
    rows = [
        (
            each["name"],
            str(each["connections"]),
            rate(each["ours"]["rate"]),
            rate(each["tutorial"]["rate"]),
            _ratio(each["ratio"], each["ratios"]),
            latency(each["ours"]["p99"]),
            latency(each["tutorial"]["p99"]),
            f"{each['ours']['failed']} / {each['tutorial']['failed']}",
        )
        for each in part["workloads"]
    ]
    head = (
        "request",
        "connections",
        "ours, 1/s",
        "tutorial, 1/s",
        "ratio (rounds)",
        "p99 ours",
        "p99 tutorial",
        "failed",
    )
    rounds = len(part["workloads"][0]["ratios"])
    return (
        f"### Serving through TLS\n\nMedians of {rounds} interleaved rounds, "
        f"in each of them {part['seconds']} s for each set-up.\n\n" + _table(head, rows)
    )


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _ratio(median: float, rounds: Sequence[float]) -> str:
    return f"**{median:.2f}** ({', '.join(f'{ratio:.2f}' for ratio in rounds)})"


def _s(seconds: float) -> str:
    return f"{seconds:.1f}" if seconds >= 10 else f"{seconds:.2f}"
