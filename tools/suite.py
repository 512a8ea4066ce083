"""Every check there is: linters, types, unit tests, and the Molecule scenarios, two at a time."""

from __future__ import annotations

import json
from pathlib import Path

from tools import bed, environment
from tools.steps import ROOT, STATE, Runner, Step, Stop

WORKERS = 2
"""Checks that run at once. Two fill two cores; a scenario waits for its hosts most of the time."""

ALONE = ("zero_downtime", "faults")
"""Scenarios that run at the end, one after the other: they measure what becomes of requests."""

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
    runner.together([test_bed, *static_checks(), *unit_checks()], WORKERS)
    if test_bed.error is None:
        demo = _step("demonstration", "pytest", "-q", "tests/demo")
        checks = [name for name in scenarios() if name not in APART]
        shared, alone = ([name for name in checks if (name in ALONE) is last] for last in (False, True))
        runner.together([*(scenario_step(name) for name in shared), demo], WORKERS)
        runner.together([scenario_step(name) for name in alone], 1)
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
    return sorted(names, key=lambda name: (-known.get(name, 0.0), name != "default", name))


def scenario_step(name: str) -> Step:
    """Return the step that runs one scenario from creation to destruction."""
    return Step(f"molecule {name}", [*MOLECULE, "test", "-s", name], env=environment.variables())


def molecule(name: str, command: str) -> int:
    """Run one Molecule command on one scenario, with its output on the screen."""
    runner = Runner()
    if not (runner.run(Step("environment", environment.make)) and runner.run(Step("test bed", bed.make))):
        return runner.summary()
    if name not in scenarios():
        raise Stop(f"There is no scenario '{name}'; there are: {', '.join(sorted(scenarios()))}")
    return environment.replace_process([*MOLECULE, command, "-s", name])


def _step(name: str, program: str, *arguments: str, cwd: Path = ROOT) -> Step:
    return Step(name, [environment.program(program), *arguments], cwd=cwd, env=environment.variables())


def _remember(runner: Runner) -> None:
    known = json.loads(DURATIONS.read_text()) if DURATIONS.exists() else {}
    for step in runner.steps:
        if step.name.startswith("molecule ") and step.error is None:
            known[step.name.removeprefix("molecule ")] = round(step.seconds, 1)
    DURATIONS.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n")
