"""`python -m tests.load --help`: load one host for some time and print what was counted."""

from __future__ import annotations

import argparse
import time

from tests.load.generator import Load, Target
from tests.load.kinds import KINDS


def main() -> int:
    """Run the generator; the exit status is 1 when a request was not as it should be."""
    parser = argparse.ArgumentParser(prog="python -m tests.load", description=__doc__)
    parser.add_argument("address", help="address of a host that serves tests/load/app")
    parser.add_argument("host", help="name of the site")
    parser.add_argument("--port", type=int, default=443)
    parser.add_argument(
        "--authority", metavar="FILE", help="who signs the certificate; plain HTTP without it"
    )
    parser.add_argument("--control", type=int, metavar="PORT", help="port of tests/load/echo.py on the host")
    parser.add_argument("--seconds", type=float, default=30.0)
    given = parser.parse_args()
    target = Target(given.address, given.address, given.host, given.port, given.authority, given.control)
    with Load([target], KINDS) as load:
        time.sleep(given.seconds / 3)
        load.settle()
        time.sleep(given.seconds * 2 / 3)
    verdict = load.verdict()
    print(verdict.table())
    print(verdict.explain())
    return 1 if verdict.failed or verdict.stale or verdict.slow else 0


if __name__ == "__main__":
    raise SystemExit(main())
