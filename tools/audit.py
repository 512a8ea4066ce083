"""`make audit`: what auditors from elsewhere say of the sites that the roles make.

The hosts are those of molecule/audit: the sample app, provisioned and deployed by `site.yml` behind each
proxy on each Debian. The auditors ask these containers and nothing else; the results go to docs/audits/.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from tools import audit_pages, bed, environment, findings, suite
from tools.audit_pages import Target
from tools.findings import Verdict
from tools.steps import ROOT, STATE, Runner, Step, Stop, capture

SCENARIO = "audit"
SITE = "hello.example.org:443"
AUTHORITY = STATE / "audit" / "authority.pem"

PATIENCE = 900.0
"""Seconds that one auditor may take for one target. The longest takes two minutes on a machine of its own."""

ACCEPTED: dict[str, dict[str, str]] = {
    "sslyze": {},
    "testssl.sh": {
        "engine_problem": "It speaks of the OpenSSL on the auditor's own host, not of the target.",
        "sessionresumption_ticket": (
            "The check hangs up as soon as hands are shaken, and in TLS 1.3 tickets come after that: whether "
            "one has come is chance, and without one it cannot ask again. It fails on another host each time."
        ),
        "BREACH": (
            "Every compressed page is reported. The attack needs a page that repeats both a secret and what "
            "the attacker sends, and thousands of requests with the victim's cookies, which browsers do not "
            "send along when the cookie is SameSite. Without compression all visitors would wait longer for "
            "all pages."
        ),
    },
    "gixy-ng": {
        "ssl_ecdh_curve": (
            "The plan names the group on Debian 13 only, where OpenSSL is 3.5. A configuration that OpenSSL "
            "refuses is never installed."
        ),
        "add_header_redefinition": (
            "nginx adds the server's headers to a range that cannot be satisfied (416) before it looks for "
            "the location of that error, which must not add them again; the acceptance tests count them."
        ),
        "try_files_is_evil_too": (
            "A cache of open files would go on serving the old release's files after a deploy has switched."
        ),
        "http2_misdirected_request": (
            "The server answers 421 before it looks for a location; the acceptance tests ask it."
        ),
        "weak_ssl_tls in nginx.conf": (
            "Debian's nginx.conf has these values for servers that set none. Every server of the roles sets "
            "its own, and sslyze and testssl.sh find neither protocol."
        ),
        "worker_rlimit_nofile_vs_connections in nginx.conf": (
            "The limit is set where systemd starts nginx (nginx.service.d/flask.conf), to ten times as much."
        ),
    },
}
"""Why a finding is no reason to change anything, by auditor and by the auditor's name of the finding."""


def run() -> int:
    """Make the hosts, have them audited, write the pages, and remove the hosts; the exit status."""

    def audit(runner: Runner) -> None:
        if runner.run(molecule("sites to audit", "converge", SCENARIO)):
            _audit(runner)

    return with_auditors(SCENARIO, audit)


def with_auditors(scenario: str, audit: Callable[[Runner], None]) -> int:
    """Make what auditors need, let `audit` make the scenario's hosts and ask; the exit status."""
    runner = Runner()
    if not all(
        runner.run(step)
        for step in (
            Step("environment", environment.make),
            Step("environment of the auditors", environment.auditors),
            Step("test bed", bed.make),
            # What an audit that was interrupted has left would be in the way.
            molecule("removal of old hosts", "destroy", scenario),
        )
    ):
        return runner.summary()
    try:
        audit(runner)
    finally:
        runner.run(molecule("removal of the hosts", "destroy", scenario))
    return runner.summary()


def molecule(name: str, command: str, scenario: str, *extra: str) -> Step:
    """Return the step that runs one Molecule command on a scenario."""
    return Step(name, [*suite.MOLECULE, command, "-s", scenario, *extra], env=environment.variables())


def _audit(runner: Runner) -> None:
    """Have every target audited, and write the pages when each auditor came to a verdict."""
    containers = containers_of(SCENARIO)
    auditor, _address = containers.pop("auditor")
    targets = [_target(name, *containers[name]) for name in sorted(containers)]
    asked: list[tuple[str, Target, Callable[[Target, Path], Verdict]]] = [
        *[("testssl.sh", target, lambda target, log: _testssl(target, auditor, log)) for target in targets],
        *[("sslyze", target, _sslyze) for target in targets],
        *[("gixy-ng", target, _gixy) for target in targets if target.name.startswith("nginx")],
    ]
    runner.together([_step(*question) for question in asked], suite.WORKERS)
    if all(name in target.verdicts for name, target, _ask in asked):
        versions = _versions(auditor)
        day = datetime.now(UTC).date().isoformat()
        runner.run(Step("pages", lambda _log: audit_pages.write(targets, versions, ACCEPTED, day)))


def _step(auditor: str, target: Target, ask: Callable[[Target, Path], Verdict]) -> Step:
    def judge(log: Path) -> None:
        verdict = ask(target, log)
        target.verdicts[auditor] = verdict
        with log.open("a") as note:
            note.write(f"{target.name}: {verdict.text}\n")
        refused = findings.refused(verdict, ACCEPTED[auditor])
        if refused:
            raise Stop(
                f"{auditor} says of {target.name}: {refused[0].says}"
                + (f" (and {len(refused) - 1} more)" if len(refused) > 1 else "")
            )

    return Step(f"{auditor} on {target.name}", judge)


def _sslyze(target: Target, log: Path) -> Verdict:
    said = _ask(
        [
            str(environment.AUDITORS / "bin" / "sslyze"),
            *["--mozilla_config", "intermediate", "--certinfo_ca_file", str(AUTHORITY)],
            f"{SITE}{{{target.address}}}",
        ],
        log,
    )
    return findings.sslyze(said)


def _testssl(target: Target, auditor: str, log: Path) -> Verdict:
    result = f"/root/{target.name}.json"
    _ask(
        [
            *["docker", "exec", auditor, "testssl", "--quiet", "--color", "0", "--warnings", "off"],
            *["--nodns", "none", "--ip", target.address, "--add-ca", "/root/authority.pem"],
            *["--overwrite", "--jsonfile", result, SITE],
        ],
        log,
    )
    return findings.testssl(_ask(["docker", "exec", auditor, "cat", result], log))


def _gixy(target: Target, log: Path) -> Verdict:
    configuration = _ask(["docker", "exec", target.container, "nginx", "-T"], log)
    return findings.gixy(
        _ask([str(environment.AUDITORS / "bin" / "gixy"), "--format", "json", "-"], log, configuration)
    )


def _ask(argv: Sequence[str], log: Path, given: str = "") -> str:
    """Return what a program prints. Its exit status says nothing that its output does not say better."""
    with log.open("a") as note:
        note.write("$ " + " ".join(argv) + "\n")
        try:
            done = subprocess.run(
                argv, input=given, capture_output=True, text=True, timeout=PATIENCE, check=False
            )
        except subprocess.TimeoutExpired:
            raise Stop(f"'{' '.join(argv[:4])}' took longer than {PATIENCE:.0f} s") from None
        note.write(done.stdout + done.stderr)
    return done.stdout


def containers_of(scenario: str) -> dict[str, tuple[str, str]]:
    """Return name and address of a scenario's containers, by host name."""
    labels = (f"label=flaskworks.clone={ROOT}", f"label=flaskworks.scenario={scenario}")
    listed = said(["docker", "ps", "--quiet", *[word for label in labels for word in ("--filter", label)]])
    found = json.loads(said(["docker", "inspect", *listed.split()]))
    return {
        each["Config"]["Hostname"]: (
            each["Name"].removeprefix("/"),
            each["NetworkSettings"]["Networks"]["bridge"]["IPAddress"],
        )
        for each in found
    }


def _target(name: str, container: str, address: str) -> Target:
    def inside(*argv: str) -> str:
        return said(["docker", "exec", container, *argv])

    # "nginx version: nginx/1.26.3" and "Server version: Apache/2.4.65 (Debian)"
    version = inside("nginx" if name.startswith("nginx") else "apache2", "-v").split("\n")[0]
    return Target(
        name=name,
        container=container,
        address=address,
        debian=inside("cat", "/etc/debian_version"),
        proxy=version.partition(": ")[2].removesuffix(" (Debian)").replace("/", " "),
        openssl=inside("openssl", "version").split()[1],
    )


def _versions(auditor: str) -> dict[str, str]:
    """Return how each auditor is named on the pages."""
    asked = (
        "import importlib.metadata, json, pathlib, sslyze;"
        "print(importlib.metadata.version('sslyze'), importlib.metadata.version('gixy-ng'),"
        "*[json.loads(path.read_text())['version']"
        " for path in pathlib.Path(sslyze.__file__).parent.glob('mozilla_tls_profile/*.json')])"
    )
    sslyze, gixy, *profile = said([str(environment.AUDITORS / "bin/python"), "-c", asked]).split()
    package = said(["docker", "exec", auditor, "dpkg-query", "--show", "-f", "${Version}", "testssl.sh"])
    return {
        "sslyze": f"sslyze {sslyze}, which brings version {' and '.join(profile)} of the profile,",
        "testssl.sh": f"testssl.sh {package} of Debian 13",
        "gixy-ng": f"gixy-ng {gixy}",
    }


def said(argv: Sequence[str]) -> str:
    code, output = capture(argv)
    if code != 0:
        raise Stop(f"'{' '.join(argv[:4])}' failed: {output}")
    return output
