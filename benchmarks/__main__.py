"""`make bench`: measure, then write the results as text and as a picture.

.venv/bin/python -m benchmarks                  everything
.venv/bin/python -m benchmarks scale            round trips of 1, 10 and 50 apps, seconds of 1 and 50
.venv/bin/python -m benchmarks seconds serving  first provisioning, no-op, deploy; then the load
.venv/bin/python -m benchmarks deploys --ansistrano PATH
                                                deploys beside a tutorial's and, if given, Ansistrano's
.venv/bin/python -m benchmarks render           nothing but the text and the picture, from the last results
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import deploys, machine, report, scale, seconds, serving
from benchmarks.apps import KEY, Inventory
from benchmarks.hosts import Host
from benchmarks.plays import ROOT, PlayError, play
from tools.steps import STATE, Stop, apt_install

PARTS = ("seconds", "serving", "scale", "deploys")
BEGIN = time.monotonic()


def say(text: str) -> None:
    """Print one line of progress, with the seconds since the start."""
    print(f"{time.monotonic() - BEGIN:7.1f} s  {text}", flush=True)


def measure_sample_app(directory: Path, parts: set[str], options: argparse.Namespace) -> dict[str, Any]:
    """Measure what concerns one real app: seconds, and serving beside the tutorial's set-up."""
    found: dict[str, Any] = {}
    begin = stamp()
    with ExitStack() as stack:
        ours = stack.enter_context(Host("ours", directory))
        inventory = Inventory(directory / "ours", ours.inventory())
        inventory.describe_sample_app()
        say("a bare Debian 13 host is up; running site.yml")
        first = seconds.first_provisioning(ours, inventory)
        say(f"first 200 over HTTPS after {first['answer']:.1f} s")
        found["hosts"] = machine.describe_host(ours, "/srv/hello/current/venv")
        if "seconds" in parts:
            found["seconds"] = {
                **begin,
                "first": first,
                **seconds.code_deploys(ours, inventory, options.rounds, say),
            }
        if "serving" in parts:
            tutorial = stack.enter_context(Host("tutorial", directory))
            set_up_tutorial(directory, ours, tutorial)
            peer = machine.describe_host(tutorial, "/srv/tutorial/venv")
            if peer != found["hosts"]:
                raise PlayError(f"the two set-ups are not of the same versions: {found['hosts']} and {peer}")
            say("the tutorial's set-up is up; loading both in turns")
            hosts = {"ours": ours, "tutorial": tutorial}
            found["serving"] = {
                **begin,
                **serving.measure(hosts, options.load_rounds, options.load_seconds, say),
            }
    return found


def set_up_tutorial(directory: Path, ours: Host, tutorial: Host) -> None:
    """Provision the set-up that ours is compared with; it gets our key pair: both do the same sums."""
    pair = []
    for name in ("fullchain.pem", "privkey.pem"):
        (directory / name).write_text(ours.execute(f"cat /etc/flask/tls/hello/{name}"))
        pair.append(str(directory / name))
    settings = {
        "tutorial_source": str(ROOT / "sample_app"),
        "tutorial_secret_key": KEY,
        "tutorial_key_pair": pair,
    }
    inventory = Inventory(directory / "tutorial", {**tutorial.inventory(), **settings})
    done = play(ROOT / "benchmarks" / "tutorial" / "playbook.yml", inventory.directory)
    say(f"the tutorial's playbook took {done.seconds:.1f} s")


def measure_scale(directory: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Measure what the number of apps costs."""
    begin = stamp()
    with Host("one", directory) as first, Host("many", directory) as second:
        one, many = (
            Inventory(directory / "one", first.inventory()),
            Inventory(directory / "many", second.inventory()),
        )
        counts = [scale.count(one, 1, 1, say)]
        counts += [scale.count(many, number, 1 + 2 * step, say) for step, number in enumerate(options.apps)]
        time.sleep(seconds.LINGER)
        most = options.apps[-1]
        return {
            **begin,
            "counts": counts,
            "most": most,
            "no_op": seconds.no_ops(one, many, options.rounds, say),
        }


def measure_deploys(directory: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Measure deploys beside other ways to deploy."""
    begin = stamp()
    if options.ansistrano is None:
        say("no --ansistrano PATH was given: deploys are measured beside the tutorial's playbook only")
    with ExitStack() as stack:
        hosts = [
            stack.enter_context(Host(f"deploys-{number + 1}", directory)) for number in range(deploys.HOSTS)
        ]
        return {
            **begin,
            **deploys.measure(hosts, directory, options.ansistrano, options.deploy_rounds, say),
        }


def stamp() -> dict[str, Any]:
    """Return when a part was measured, and how busy the machine was with other things before it."""
    return {"when": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"), "load": round(os.getloadavg()[0], 2)}


def _role(text: str) -> Path:
    """A role's directory, as an argument."""
    path = Path(text).expanduser().resolve()
    if not (path / "tasks" / "main.yml").is_file():
        raise argparse.ArgumentTypeError(f"{path} is no role: it has no tasks/main.yml")
    return path


def main() -> int:
    """Measure the parts that were asked for; the exit status."""
    parser = argparse.ArgumentParser(
        prog="benchmarks", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "parts", nargs="*", help=f"{', '.join(PARTS)} or render; all but render when none is named"
    )
    parser.add_argument("--rounds", type=int, default=7, help="runs of each playbook (default: 7)")
    parser.add_argument("--load-rounds", type=int, default=3, help="runs of each workload (default: 3)")
    parser.add_argument("--load-seconds", type=int, default=6, help="length of each of them (default: 6)")
    parser.add_argument(
        "--apps", type=int, nargs="+", default=[10, 50], help="numbers of apps beside 1 (default: 10 50)"
    )
    parser.add_argument(
        "--deploy-rounds", type=int, default=5, help="runs of each way to deploy (default: 5)"
    )
    parser.add_argument(
        "--ansistrano", type=_role, help="a clone of github.com/ansistrano/deploy, for deploys"
    )
    options = parser.parse_args()
    parts = set(options.parts or PARTS)
    if parts - {*PARTS, "render"}:
        parser.error(f"there is no part {', '.join(sorted(parts - {*PARTS, 'render'}))}")
    if parts == {"render"}:
        report.write(report.newest())
        return 0
    for program in ("wrk", "rsync"):
        if not shutil.which(program):
            apt_install([program], STATE / "logs" / f"{program}.log")
    results = report.load()
    results["machine"] = machine.describe()
    with tempfile.TemporaryDirectory(prefix="flaskworks-bench-") as name:
        if parts & {"seconds", "serving"}:
            results.update(measure_sample_app(Path(name), parts, options))
            report.save(results)
        if "scale" in parts:
            results["scale"] = measure_scale(Path(name), options)
            report.save(results)
        if "deploys" in parts:
            results["deploys"] = measure_deploys(Path(name), options)
            report.save(results)
    for path in report.write(results):
        say(f"written: {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (PlayError, RuntimeError, Stop) as problem:
        print(problem, file=sys.stderr)
        sys.exit(1)
