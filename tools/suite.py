"""Every check there is: linters, types, unit tests, and the Molecule scenarios, some at a time."""

from __future__ import annotations

import json
from pathlib import Path

from tools import bed, environment
from tools.steps import ROOT, STATE, Runner, Step, Stop, run_logged

WORKERS = 3
"""Checks that run at once. Three fill two cores: a scenario keeps three quarters of one busy."""

ALONE = ("zero_downtime", "faults")
"""Scenarios whose tests measure what becomes of requests: these run at the end, one after the other. Their
hosts are made before, beside all else."""

LONGEST = (
    "acme",
    "deploy",
    "hardening",
    "nginx",
    "apache",
    "secrets",
    "fleet",
    "gunicorn",
    "logrotate",
    "proxy_switch",
)
"""Scenarios to begin with in a new clone, where no durations are known: one of them last would run alone."""

APART = ("audit",)
"""Scenarios that are no part of the checks: they have a command of their own."""

DURATIONS = STATE / "durations.json"
MOLECULE = [environment.program("molecule"), "-c", str(ROOT / ".config" / "molecule" / "config.yml")]


def everything() -> int:
    """Run all checks, also after one has failed; the exit status."""
    runner = Runner()
    if not runner.run(Step("environment", environment.make)):
        return runner.summary()
    test_bed = Step("test bed", bed.make)
    checks = [name for name in scenarios() if name not in APART]
    hosts = {name: _hosts_step(name, test_bed) for name in checks if name in ALONE}
    shared = [hosts.get(name) or scenario_step(name, test_bed) for name in checks]
    demo = _step("demonstration", "pytest", "-q", "tests/demo", needs=test_bed)
    runner.together([test_bed, *static_checks(), *unit_checks(), *shared, demo], WORKERS)
    runner.together([_tests_step(name, made) for name, made in hosts.items()], 1)
    _remember(runner)
    return runner.summary()


def some(steps: list[Step]) -> int:
    """Run the steps of one kind."""
    runner = Runner()
    if runner.run(Step("environment", environment.make)):
        runner.together(steps, WORKERS)
    return runner.summary()


def static_checks() -> list[Step]:
    """Return the checks that read files only, slowest first."""
    return [
        _step("ansible-lint", "ansible-lint", "--offline"),
        # Plugins are checked under the name by which Ansible imports them.
        _step("mypy plugins", "mypy", "--strict", "-p", "ansible_collections.flaskworks.server.plugins"),
        _step("mypy tools and tests", "mypy", "--strict", "tools", "tests", "benchmarks", "molecule"),
        _step("mypy sample app", "mypy", "--strict", "-p", "hello", cwd=ROOT / "sample_app"),
        _step("yamllint", "yamllint", "--strict", "."),
        _step("ruff check", "ruff", "check"),
        _step("ruff format", "ruff", "format", "--check"),
        _step("changelog", "antsibull-changelog", "lint"),
    ]


def unit_checks() -> list[Step]:
    """Return the tests that need no host: the collection's, and those that each app brings."""
    apps = [path.parent for path in (ROOT / "sample_app" / "tests", *ROOT.glob("examples/*/tests"))]
    return [
        _step("unit tests", "pytest", "-q", "tests/unit"),
        *[_step(f"tests of {app.relative_to(ROOT)}", "pytest", "-q", cwd=app) for app in apps],
    ]


def scenarios() -> list[str]:
    """Return the names of all scenarios, those that took longest first."""
    known = json.loads(DURATIONS.read_text()) if DURATIONS.exists() else {}
    names = [path.parent.name for path in (ROOT / "molecule").glob("*/molecule.yml")]
    guess = {name: 1.0 - number / 100 for number, name in enumerate(LONGEST)}
    return sorted(names, key=lambda name: (-known.get(name, guess.get(name, 0.0)), name))


def scenario_step(name: str, needs: Step | None = None) -> Step:
    """Return the step that runs one scenario from creation to destruction."""
    return Step(f"molecule {name}", [*MOLECULE, "test", "-s", name], env=environment.variables(), needs=needs)


def _hosts_step(name: str, needs: Step) -> Step:
    """Return the step that makes the hosts of a scenario ready for its tests."""

    def make(log: Path) -> None:
        _run_molecule("destroy", name, log)
        try:
            _run_molecule("converge", name, log)
        except Stop:
            _run_molecule("destroy", name, log)
            raise

    return Step(f"hosts of {name}", make, needs=needs)


def _tests_step(name: str, needs: Step) -> Step:
    """Return the step that runs the tests of a scenario whose hosts are there, and removes them."""

    def verify(log: Path) -> None:
        try:
            _run_molecule("verify", name, log)
        finally:
            _run_molecule("destroy", name, log)

    return Step(f"molecule {name}", verify, needs=needs)


def _run_molecule(command: str, name: str, log: Path) -> None:
    run_logged([*MOLECULE, command, "-s", name], log, env={"NO_COLOR": "1", **environment.variables()})


def molecule(name: str, command: str) -> int:
    """Run one Molecule command on one scenario, with its output on the screen."""
    runner = Runner()
    if not (runner.run(Step("environment", environment.make)) and runner.run(Step("test bed", bed.make))):
        return runner.summary()
    if name not in scenarios():
        raise Stop(f"There is no scenario '{name}'; there are: {', '.join(sorted(scenarios()))}")
    return environment.replace_process([*MOLECULE, command, "-s", name])


def _step(name: str, program: str, *arguments: str, cwd: Path = ROOT, needs: Step | None = None) -> Step:
    command = [environment.program(program), *arguments]
    return Step(name, command, cwd=cwd, env=environment.variables(), needs=needs)


def _remember(runner: Runner) -> None:
    known = json.loads(DURATIONS.read_text()) if DURATIONS.exists() else {}
    for step in runner.steps:
        if step.name.startswith("molecule ") and step.error is None:
            known[step.name.removeprefix("molecule ")] = round(step.seconds, 1)
    DURATIONS.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n")
