"""The results as one picture, in plain SVG: it needs no library and its differences can be read."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from benchmarks.goals import TIMES, Goal, goals

WIDTH = 900
MARGIN = 36
INK, SOFT, FAINT = "#1d2733", "#5d6b7a", "#dde3ea"
OURS, EVEN, OTHER, MISSED = "#0f766e", "#64748b", "#a8b3bf", "#c2410c"
SERIES = (("no_op", "no-op site.yml", OURS), ("deploy_all", "deploy of all apps", "#b45309"))


def draw(results: dict[str, Any]) -> str:
    """Return the SVG."""
    parts = [text(MARGIN, 46, "flaskworks.server, measured", size=22, weight=650), subtitle(results)]
    top = 112
    if "scale" in results:
        parts += trips(results["scale"], 600, top, WIDTH - 600 - MARGIN, 236)
    rows = goals(results)
    if rows:
        parts += promises(rows, MARGIN, top, 510)
        top += max(70 + 44 * len(rows), 290 if "scale" in results else 0)
    if "serving" in results:
        parts += serving(results["serving"], MARGIN, top, WIDTH - 2 * MARGIN)
        top += 92 + 58 * len(results["serving"]["workloads"])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" width="{WIDTH}" height="{top}" '
        'role="img" aria-label="Results of the benchmarks" font-family="system-ui, -apple-system, Segoe UI, '
        'Roboto, Helvetica, Arial, sans-serif">\n'
        f'<rect width="{WIDTH}" height="{top}" rx="10" fill="#ffffff"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def subtitle(results: dict[str, Any]) -> str:
    """Say on what and when."""
    host = results.get("hosts", {})
    names = ("Debian", "nginx", "gunicorn", "Python")
    versions = ", ".join(f"{name} {host[name]}" for name in names if name in host)
    days = sorted({part["when"][:10] for part in results.values() if "when" in part})
    cores = results["machine"]["machine"].partition(" (")[0]
    controller = results["machine"]["controller"].partition(",")[0]
    return text(
        MARGIN, 70, " · ".join(filter(None, [*days, versions, controller, cores])), size=13, fill=SOFT
    )


def promises(rows: Sequence[Goal], left: float, top: float, width: float) -> list[str]:
    """Draw a bar for each promise; all limits are at the same place."""
    limit = left + width * 0.74
    parts = [heading(left, top, "What was promised, and what was measured")]
    end = top + 30 + 44 * len(rows)
    parts.append(text(limit, top + 26, "limit", size=12, fill=SOFT, anchor="middle"))
    parts.append(line(limit, top + 32, limit, end, stroke=INK, dash="3 3"))
    for index, row in enumerate(rows):
        y = top + 46 + 44 * index
        length = min(row.value / row.limit, 1.08) * (limit - left)
        colour = OURS if row.kept else MISSED
        parts.append(text(left, y, row.name, size=13))
        parts.append(bar(left, y + 7, limit - left, 12, FAINT))
        parts.append(bar(left, y + 7, length, 12, colour))
        beside = max(left + length, limit) + 10
        parts.append(text(beside, y + 18, row.text(row.value), size=14, weight=650, fill=colour))
        parts.append(text(beside + 62, y + 18, f"of {row.text(row.limit)}", size=13, fill=SOFT))
    return parts


def trips(part: dict[str, Any], left: float, top: float, width: float, height: float) -> list[str]:
    """Draw the round trips over the number of apps."""
    counts = part["counts"]
    highest = max(16, *(each[key]["trips"] for each in counts for key, _name, _colour in SERIES))
    bottom, ceiling = top + height - 24, top + 40
    step = (width - 60) / max(1, len(counts) - 1)

    def x(index: int) -> float:
        return left + 36 + index * step

    def y(value: float) -> float:
        return float(bottom - (bottom - ceiling) * value / highest)

    parts = [heading(left, top, "Round trips to one host")]
    for mark in (0, 5, 10, 15):
        parts.append(line(left + 24, y(mark), left + width, y(mark), stroke=FAINT))
        parts.append(text(left + 16, y(mark) + 4, str(mark), size=12, fill=SOFT, anchor="end"))
    for index, each in enumerate(counts):
        label = f"{each['apps']} app" + ("s" if each["apps"] > 1 else "")
        parts.append(text(x(index), bottom + 20, label, size=12, fill=SOFT, anchor="middle"))
    for key, name, colour in SERIES:
        values = [each[key]["trips"] for each in counts]
        points = " ".join(f"{x(index):.1f},{y(value):.1f}" for index, value in enumerate(values))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2.5"/>')
        for index, value in enumerate(values):
            parts.append(f'<circle cx="{x(index):.1f}" cy="{y(value):.1f}" r="4.5" fill="{colour}"/>')
            parts.append(
                text(x(index), y(value) - 10, str(value), size=13, weight=650, fill=colour, anchor="middle")
            )
        parts.append(text(x(0), y(values[0]) + 20, name, size=12, fill=colour))
    return parts


def serving(part: dict[str, Any], left: float, top: float, width: float) -> list[str]:
    """Draw how many times the requests of the tutorial's set-up ours answers."""
    workloads = part["workloads"]
    start, end = left + 130, left + width - 330
    unit = (end - start) / max(2.0, *(each["ratio"] for each in workloads))
    bottom = top + 46 + 58 * len(workloads)
    parts = [
        heading(left, top, "Requests per second through TLS, beside the set-up that tutorials end with"),
        text(
            left,
            top + 21,
            "times the tutorial's set-up (nginx, gunicorn -w 4 sync over TCP) = 1; medians, in turns",
            size=13,
            fill=SOFT,
        ),
    ]
    for index, each in enumerate(workloads):
        y = top + 44 + 58 * index
        ours, tutorial = each["ours"], each["tutorial"]
        colour = MISSED if each["ratio"] < 0.95 else OURS if each["ratio"] > 1.05 else EVEN
        parts.append(text(left, y + 21, each["name"], size=14, weight=600))
        parts.append(bar(start, y, each["ratio"] * unit, 20, colour))
        parts.append(bar(start, y + 24, unit, 8, OTHER))
        parts.append(
            text(
                start + max(each["ratio"], 1) * unit + 8,
                y + 16,
                f"{each['ratio']:.2f}{TIMES}",
                size=16,
                weight=700,
                fill=colour,
            )
        )
        column = left + width
        parts.append(
            text(
                column,
                y + 12,
                f"{rate(ours['rate'])} against {rate(tutorial['rate'])} requests/s",
                size=13,
                anchor="end",
            )
        )
        parts.append(
            text(
                column,
                y + 31,
                f"p99 {latency(ours['p99'])} against {latency(tutorial['p99'])}",
                size=13,
                fill=SOFT,
                anchor="end",
            )
        )
    parts.append(line(start + unit, top + 38, start + unit, bottom - 12, stroke=INK, dash="3 3"))
    return parts


def rate(value: float) -> str:
    """Return requests per second with three digits that count."""
    if value >= 10_000:
        return f"{value / 1000:.1f}k"
    return f"{value:.0f}"


def latency(seconds: float) -> str:
    """Return a latency in milliseconds."""
    milliseconds = seconds * 1000
    return f"{milliseconds:.0f} ms" if milliseconds >= 10 else f"{milliseconds:.1f} ms"


def heading(x: float, y: float, content: str) -> str:
    return text(x, y, content, size=15, weight=650)


def text(
    x: float, y: float, content: str, *, size: int, weight: int = 400, fill: str = INK, anchor: str = "start"
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" fill="{fill}" '
        f'text-anchor="{anchor}">{escape(content)}</text>'
    )


def bar(x: float, y: float, width: float, height: float, fill: str) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" width="{max(width, 1):.1f}" height="{height:.0f}"'
    return f'<rect {place} rx="2" fill="{fill}"/>'


def line(x1: float, y1: float, x2: float, y2: float, *, stroke: str, dash: str = "") -> str:
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    place = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {place} stroke="{stroke}" stroke-width="1"{dashes}/>'
