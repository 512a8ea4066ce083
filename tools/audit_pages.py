"""The pages of docs/audits/: what was audited, with what and when, and why a finding is accepted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tools.findings import SEVERE, Finding, Verdict, refused
from tools.steps import ROOT

DIRECTORY = ROOT / "docs" / "audits"

AUDITORS = {
    "sslyze": "must find the server compliant with Mozilla's `intermediate`. The roles follow version 6.0: "
    "it takes the DHE ciphers away and adds a post-quantum group that sslyze does not see",
    "testssl.sh": "must give the grade A+ and find nothing of medium severity or worse that is not accepted",
    "gixy-ng": "must find nothing of medium severity or worse that is not accepted in what `nginx -T` prints",
}
"""What is wanted of each."""

_PAGES = {"sslyze": "sslyze.md", "testssl.sh": "testssl.md", "gixy-ng": "gixy.md"}


@dataclass
class Target:
    """One host of the scenario, and what was said of it."""

    name: str
    """The proxy and the release of Debian, as in nginx-trixie."""
    container: str
    address: str
    debian: str
    proxy: str
    openssl: str
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    """By auditor."""


def write(
    targets: Sequence[Target],
    versions: Mapping[str, str],
    accepted: Mapping[str, Mapping[str, str]],
    day: str,
    directory: Path = DIRECTORY,
) -> None:
    """Write all pages.

    Args:
        targets: the hosts with their verdicts.
        versions: what each auditor is, by its name.
        accepted: the reason why a finding is accepted, by auditor and by the finding's name.
        day: the date of the audit, as 2026-11-21.
        directory: where the pages are.
    """
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "README.md").write_text(_overview(targets, versions, accepted, day))
    for auditor in AUDITORS:
        (directory / _PAGES[auditor]).write_text(
            _page(auditor, targets, versions[auditor], accepted.get(auditor, {}), day)
        )


def _overview(
    targets: Sequence[Target],
    versions: Mapping[str, str],
    accepted: Mapping[str, Mapping[str, str]],
    day: str,
) -> str:
    rows = [
        [
            target.proxy,
            target.debian,
            target.openssl,
            *[
                _verdict(target.verdicts[name], accepted.get(name, {})) if name in target.verdicts else "-"
                for name in AUDITORS
            ],
        ]
        for target in targets
    ]
    return f"""# Audits

What auditors from elsewhere said on {day} of the sites that the roles make. `make audit` makes the hosts,
asks the auditors, and writes these pages.

{_table(["proxy", "Debian", "OpenSSL", *[f"[{name}]({_PAGES[name]})" for name in AUDITORS]], rows)}
Each host was provisioned and deployed by `site.yml` from one description ([apps.yml]({_DESCRIPTION})):
the sample app, a certificate of 90 days as a public authority gives it, and HSTS at the end of its ramp. The
authority is a private one, which the auditors were told to trust. The auditors:

{chr(10).join(f"* {versions[name]} {wanted}" for name, wanted in AUDITORS.items())}

What is said of hosts themselves, by lynis and ssh-audit, is [on a page of its own](hosts.md); what became of
log lines when logs were rotated under load, [on another](logs.md).
"""


def _verdict(verdict: Verdict, accepted: Mapping[str, str]) -> str:
    severe = [finding for finding in verdict.findings if finding.severity in SEVERE]
    left = len(refused(verdict, accepted))
    if left:
        return f"{verdict.text}; {left} not accepted"
    return f"{verdict.text}; {len(severe)} accepted" if severe else verdict.text


_DESCRIPTION = "../../molecule/audit/group_vars/flask/apps.yml"


def _page(
    auditor: str, targets: Sequence[Target], version: str, accepted: Mapping[str, str], day: str
) -> str:
    asked = [target for target in targets if auditor in target.verdicts]
    verdicts = [
        [target.proxy, target.debian, target.openssl, target.verdicts[auditor].text] for target in asked
    ]
    found: dict[Finding, list[str]] = {}
    for target in asked:
        for finding in target.verdicts[auditor].findings:
            found.setdefault(finding, []).append(target.name)
    severe = [finding for finding in found if finding.severity in SEVERE]
    remarks = [finding for finding in found if finding.severity not in SEVERE]
    parts = [
        f"# {auditor}\n",
        f"Written by `make audit` on {day}. {version} {AUDITORS[auditor]}.\n",
        _table(["proxy", "Debian", "OpenSSL", "verdict"], verdicts),
    ]
    for title, some in (("Findings", severe), ("Remarks of low severity", remarks)):
        if some:
            parts += [f"## {title}\n", *_explained(some, found, len(asked), accepted)]
    return "\n".join(parts).rstrip() + "\n"


def _explained(
    some: Sequence[Finding], found: Mapping[Finding, Sequence[str]], asked: int, accepted: Mapping[str, str]
) -> list[str]:
    lines = []
    for name in dict.fromkeys(finding.name for finding in some):
        lines.append(f"**{_plain(name)}**\n")
        for finding in some:
            if finding.name == name:
                where = "everywhere" if len(found[finding]) == asked else ", ".join(found[finding])
                lines.append(f"* {finding.severity}, {where}: {_plain(finding.says)}")
        severe = any(finding.severity in SEVERE for finding in some if finding.name == name)
        if name in accepted:
            lines.append(f"\nAccepted: {accepted[name]}\n")
        else:
            lines.append("\n**Not accepted.**\n" if severe else "")
    return lines


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def _plain(text: str) -> str:
    """Return the auditor's words as they are, however they would look in Markdown."""
    return "".join(f"\\{character}" if character in "*_<>[]`|#" else character for character in text)
