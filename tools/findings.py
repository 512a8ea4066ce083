"""What the auditors said, read from their own output, and what of it is accepted for a reason."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tools.steps import Stop

SEVERE = ("medium", "high", "critical", "warn")
"""From here on a finding must be accepted by name, or the audit fails."""


_FIRST_FILE = "<stdin>"
"""How gixy-ng calls the first file of what `nginx -T` prints, which is nginx.conf."""


@dataclass(frozen=True)
class Finding:
    """One thing that an auditor does not like."""

    name: str
    """The auditor's own name for it."""
    severity: str
    """In lower case and in the auditor's words."""
    says: str


@dataclass(frozen=True)
class Verdict:
    """What one auditor says of one target."""

    text: str
    findings: tuple[Finding, ...] = ()


def sslyze(output: str) -> Verdict:
    """Read the text that sslyze prints: whether the server complies with Mozilla's profile, or why not."""
    said = re.search(r"^ +\S+:\d+: (OK - Compliant|FAILED - Not compliant)\.$", output, re.MULTILINE)
    if said is None:
        raise Stop("sslyze came to no verdict")
    if said[1].startswith("OK"):
        return Verdict("compliant")
    issues = re.findall(r"^ +\* (\w+): (.+)$", output[said.end() :], re.MULTILINE)
    # The sets of Python in its sentences have another order in every run.
    return Verdict(
        "not compliant",
        tuple(Finding(name, "high", _in_order(says)) for name, says in issues),
    )


def testssl(output: str) -> Verdict:
    """Read the JSON that testssl.sh writes: the grade, and whatever is worse than a remark."""
    entries = [
        (entry["id"], entry["severity"].lower(), entry["finding"]) for entry in _entries("testssl.sh", output)
    ]
    told = {name: finding for name, _severity, finding in entries}
    if "overall_grade" not in told or "final_score" not in told:
        raise Stop("testssl.sh gave no grade")
    grade = told["overall_grade"]
    caps = [says for name, _severity, says in entries if name.startswith("grade_cap_reason")]
    return Verdict(
        f"{grade} ({told['final_score']})",
        (
            *(
                Finding(name, severity, says)
                for name, severity, says in entries
                if severity not in ("ok", "info", "debug") and name != "overall_grade"
            ),
            *([Finding("overall_grade", "high", "; ".join([grade, *caps]))] if grade != "A+" else []),
        ),
    )


def gixy(output: str) -> Verdict:
    """Read the JSON that gixy-ng prints. What is in Debian's nginx.conf, not in a role's file, is told so."""
    entries = _entries("gixy-ng", output)
    findings = tuple(
        Finding(
            entry["plugin"] + (" in nginx.conf" if entry.get("file") == _FIRST_FILE else ""),
            entry["severity"].lower(),
            " ".join((entry["reason"] or entry["summary"]).split()),
        )
        for entry in entries
    )
    counts = Counter(finding.severity for finding in findings)
    text = ", ".join(f"{counts[name]} {name}" for name in ("high", "medium", "low") if counts[name])
    return Verdict(text or "nothing found", tuple(dict.fromkeys(findings)))


def refused(verdict: Verdict, accepted: Mapping[str, str]) -> list[Finding]:
    """Return the findings that are severe and that nobody has accepted.

    Args:
        verdict: what one auditor says of one target.
        accepted: the reason by the finding's name.
    """
    return [
        finding for finding in verdict.findings if finding.severity in SEVERE and finding.name not in accepted
    ]


def _entries(auditor: str, output: str) -> list[dict[str, Any]]:
    try:
        entries: list[dict[str, Any]] = json.loads(output)
    except ValueError:
        raise Stop(f"{auditor} printed no JSON") from None
    return entries


def _in_order(sentence: str) -> str:
    return re.sub(r"\{([^}]*)\}", lambda match: ", ".join(sorted(match[1].split(", "))), sentence)
