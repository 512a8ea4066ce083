"""`python3 -m tools <command>`: what the Makefile calls."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

if sys.version_info < (3, 11):  # noqa: UP036 - this is the refusal itself
    sys.exit("These tools need Python 3.11 or newer; name one with 'make PYTHON=/path/to/python3.11 …'")

from tools import audit, audit_hosts, bed, demo, engine, environment, suite
from tools.steps import Runner, Step, Stop, complain


def main(arguments: list[str]) -> int:
    """Run one command; the exit status."""
    command, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    if command in ("bed", "test", "demo", "molecule", "audit", "audit-hosts"):
        engine.foresee()
    match command:
        case "env":
            return 0 if environment.ready() else _single("environment", environment.make)
        case "bed":
            return _single("test bed", bed.make)
        case "pins":
            return _single("pins", environment.pins)
        case "test":
            return suite.everything()
        case "lint":
            return suite.some(suite.static_checks())
        case "unit":
            return suite.some(suite.unit_checks())
        case "demo":
            return demo.run()
        case "demo-clean":
            return demo.clean()
        case "audit":
            return audit.run()
        case "audit-hosts":
            return audit_hosts.run()
        case "molecule":
            return suite.molecule(rest[0] if rest else "default", rest[1] if len(rest) > 1 else "test")
        case _:
            return complain(f"There is no command '{command}'; 'make help' lists what there is")


def _single(name: str, action: Callable[[Path], None]) -> int:
    runner = Runner()
    return 0 if runner.run(Step(name, action)) else 1


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except Stop as stop:
        sys.exit(complain(str(stop)))
    except KeyboardInterrupt:
        sys.exit(130)
