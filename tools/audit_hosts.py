"""`make audit-hosts`: what lynis and ssh-audit say of a host before and after the role `hardening`.

The hosts are those of molecule/hardening, reached over ssh; the result goes to docs/audits/hosts.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from tools import environment, suite
from tools.audit import containers_of, molecule, said, with_auditors
from tools.audit_pages import DIRECTORY
from tools.steps import Runner, Step, Stop, capture

SCENARIO = "hardening"
PAGE = DIRECTORY / "hosts.md"
WANTED = 80
"""The least index that lynis must give."""

POLICIES = {"12": "Hardened Debian 12 (version 3)", "13": "Hardened Debian 13 (version 1)"}
"""The newest of each that ssh-audit has."""

ASKED_FOR = {"hardening_integrity": True, "hardening_audit": True}
"""What is off by default, and on here: everything that the role has is audited."""

PATIENCE = 900.0


@dataclass
class Audited:
    """One host, and what was said of it before and after.

    Attributes:
        container: Its name.
        address: Where it is reached.
        debian: Its version, as 13.7.
        index: Lynis' index, before and after.
        policy: Whether ssh-audit's policy passed, before and after.
        suggestions: What lynis still suggests, by the names of its tests.
    """

    container: str
    address: str
    debian: str
    index: list[int] = field(default_factory=list)
    policy: list[bool] = field(default_factory=list)
    suggestions: list[str] = field(default_factory=list)


def run() -> int:
    """Make the hosts, have them audited, harden them, have them audited again; the exit status."""

    def audit(runner: Runner) -> None:
        if not runner.run(molecule("bare hosts", "create", SCENARIO)):
            return
        hosts = _hosts()
        extra = ("--", "-e", json.dumps(ASKED_FOR))
        if (
            _audit(runner, hosts, "before")
            and runner.run(molecule("hardened hosts", "converge", SCENARIO, *extra))
            and _audit(runner, hosts, "after")
        ):
            runner.run(Step("verdict", lambda _log: _judge(hosts)))

    return with_auditors(SCENARIO, audit)


def _audit(runner: Runner, hosts: Sequence[Audited], when: str) -> bool:
    steps = [
        Step(f"lynis and ssh-audit on Debian {one.debian}, {when}", lambda log, one=one: _ask(one, log))  # type: ignore[misc]
        for one in hosts
    ]
    runner.together(steps, suite.WORKERS)
    return all(step.passed for step in steps)


def _ask(one: Audited, log: Path) -> None:
    inside = ["docker", "exec", one.container, "sh", "-c"]
    # First: sshd turns away for a while who connects as often as this. The exit status is the verdict.
    asked = [str(environment.AUDITORS / "bin" / "ssh-audit"), "-P", POLICIES[one.debian.split(".")[0]]]
    code, told = capture([*asked, one.address], timeout=PATIENCE)
    with log.open("a") as note:
        note.write(f"{told}\n")
    if "Policy:" not in told:
        raise Stop(f"ssh-audit came to no verdict about {one.container}")
    one.policy.append(code == 0)
    install = (
        "command -v lynis || { apt-get -q update; apt-get -q -y --no-install-recommends install lynis; }"
    )
    for command in (install, "lynis audit system --quick --no-colors --quiet"):
        code, told = capture([*inside, f"{command} >/tmp/audit.log 2>&1; echo $?"], timeout=PATIENCE)
        with log.open("a") as note:
            note.write(f"{command}: {told}\n")
    report = said([*inside, "cat /var/log/lynis-report.dat"])
    one.index.append(int(_field(report, "hardening_index")))
    one.suggestions = sorted(set(re.findall(r"^suggestion\[\]=([A-Z0-9-]+)\|", report, re.MULTILINE)))


def _field(report: str, name: str) -> str:
    found = re.search(rf"^{name}=(.+)$", report, re.MULTILINE)
    if found is None:
        raise Stop(f"lynis did not say its {name}")
    return found[1]


def _judge(hosts: Sequence[Audited]) -> None:
    PAGE.write_text(page(hosts, _versions(hosts[0]), datetime.now(UTC).date().isoformat()))
    for one in hosts:
        if one.index[-1] < WANTED:
            raise Stop(f"lynis gives Debian {one.debian} the index {one.index[-1]}, less than {WANTED}")
        if not one.policy[-1]:
            raise Stop(f"ssh-audit says that Debian {one.debian} does not keep its policy")


def page(hosts: Sequence[Audited], versions: str, day: str) -> str:
    """Return the page about these hosts.

    Args:
        hosts: The hosts with what was said of them.
        versions: What the auditors are.
        day: The date, as 2026-11-21.
    """
    rows = "".join(
        f"| {one.debian} | {one.index[0]} | {one.index[-1]} | {_word(one.policy[0])} | "
        f"{_word(one.policy[-1])} |\n"
        for one in hosts
    )
    left = sorted({name for one in hosts for name in one.suggestions})
    return f"""# Hardened hosts

Written by `make audit-hosts` on {day}, with {versions}.
The hosts are those of the scenario `hardening`: a bare Debian with sshd in a container, and the same
host after the role `hardening` with everything that it has, AIDE and auditd included. Lynis must give
an index of {WANTED} at least, and ssh-audit's policy for the Debian must pass.

| Debian | lynis, bare | lynis, hardened | ssh-audit, bare | ssh-audit, hardened |
| --- | --- | --- | --- | --- |
{rows}
In a container the kernel's settings are those of the host around it, and auditd cannot run; lynis takes
points away for both. What it still suggests, by the names of its tests: {", ".join(left)}.
"""


def _word(passed: bool) -> str:
    return "passes" if passed else "fails"


def _versions(one: Audited) -> str:
    lynis = said(["docker", "exec", one.container, "lynis", "show", "version"])
    asked = "import importlib.metadata as m; print(m.version('ssh-audit'))"
    return f"lynis {lynis} and ssh-audit {said([str(environment.AUDITORS / 'bin/python'), '-c', asked])}"


def _hosts() -> list[Audited]:
    found = [
        Audited(container, address, said(["docker", "exec", container, "cat", "/etc/debian_version"]))
        for container, address in containers_of(SCENARIO).values()
    ]
    return sorted(found, key=lambda one: one.debian)
