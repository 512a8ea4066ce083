"""Whatever goes wrong with a deploy under load: what served goes on serving, and the next deploy is clean.

One host is behind nginx, one behind Apache. Deploys to both are killed at a time; of the other faults each
proxy has every other one.

Instants of kills come from a generator of random numbers with a fixed seed: a part of what a deploy has taken
before. A kill that comes when the deploy is over is a test all the same, and is tried again at half the time.
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.faults import Operator
from tests.faults.operator import LIMIT, Killer
from tests.load import Kind, Load, Target
from tests.plays import PROJECT, Play, Running

EPHEMERAL = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
INVENTORY = EPHEMERAL / "inventory"
SEED = 3
KILLS = 20
"""Half of them behind each proxy, and of those half on the host, half on the controller."""

MODERATE = (
    Kind("keep-alive", "/", clients=5, period=0.25),
    Kind("new connection", "/", clients=2, period=0.25, fresh=True),
    Kind("post", "/echo", clients=2, period=0.25, post=2000, echoed=True),
    Kind("static", "/static/release.txt", clients=1, period=0.25),
    Kind("3 s", "/slow?seconds=3", clients=3, period=3.2),
)
"""About 40 requests in a second, to each host."""
ENOUGH = {"keep-alive": 10, "new connection": 4, "post": 4, "static": 2}

NOTICED = 0.25
"""Seconds that the proxy may take to notice that the process at the other end of a connection has gone."""

HELD = "sh -c 'touch /srv/load/shared/held; until test -e /srv/load/shared/go; do sleep 0.05; done'"
"""A hook that lasts until it is told to end."""

figures: dict[str, Any] = {}


Operators = Mapping[str, Operator]


@pytest.fixture(scope="module")
def operators(platforms: dict[str, Any]) -> Iterator[Operators]:
    """Both hosts under load, with a release that serves; a host is named for its proxy."""
    authority = str(INVENTORY / ".tls" / "ca.pem")
    targets = [
        Target(name, platform.address, "load.example.org", authority=authority, control=7007)
        for name, platform in platforms.items()
    ]
    load = Load(targets, MODERATE)
    found = {
        name: Operator(name, platform.container, INVENTORY, EPHEMERAL / f"app-{name}", load)
        for name, platform in platforms.items()
    }

    def begin(operator: Operator) -> None:
        operator.write("first")
        operator.deploy()

    on_both(begin, found)
    with load:
        load.wait({**ENOUGH, "3 s": 3}, load.mark())
        load.settle()
        yield found
    verdict = load.verdict()
    print(f"\nseed {SEED}\n{verdict.table()}\n{verdict.explain()}")
    figures.update(requests=verdict.requests, failed=verdict.failed, stale=verdict.stale, slow=verdict.slow)
    for name, value in figures.items():
        print(f"{name}: {value}")
    (EPHEMERAL / "faults.json").write_text(json.dumps({**figures, **verdict.as_dict()}, indent=2) + "\n")


@pytest.fixture
def operator(operators: Operators, request: pytest.FixtureRequest) -> Operator:
    """The host behind the proxy that the test is about."""
    return operators[request.param]


def behind(proxy: str) -> pytest.MarkDecorator:
    """A test of the host behind one proxy."""
    return pytest.mark.parametrize("operator", [proxy], indirect=True)


@pytest.fixture
def unharmed(operators: Operators) -> Iterator[None]:
    """Let not one request fail, on any host, until after the test every host serves."""
    load = operators["nginx"].load
    begin = load.mark()
    yield
    load.wait(ENOUGH, load.mark())
    verdict = load.verdict(begin)
    assert (verdict.failed, verdict.stale) == (0, 0), verdict.explain()


def on_both(work: Callable[[Operator], None], operators: Operators) -> None:
    """Do the same on both hosts at a time: most of a play is waiting."""
    with ThreadPoolExecutor(len(operators)) as lanes:
        for lane in [lanes.submit(work, operator) for operator in operators.values()]:
            lane.result()


@pytest.mark.usefixtures("unharmed")
def test_a_deploy_killed_at_any_instant(operators: Operators) -> None:
    chance = random.Random(SEED)
    instants = [(number + chance.random()) / KILLS for number in range(KILLS)]
    chance.shuffle(instants)
    own = dict(zip(operators, (instants[: KILLS // 2], instants[KILLS // 2 :]), strict=True))
    on_both(lambda operator: kill_deploys(operator, own[operator.name]), operators)


def kill_deploys(operator: Operator, instants: list[float]) -> None:
    """Kill a deploy at each of these parts of its course; see that nothing was harmed, and deploy."""
    courses = {}
    for building, requirement in ((True, "click>=8.0.0"), (False, "")):
        operator.write(f"course {building}", requirement)
        seconds = operator.deploy().seconds
        spent = operator.state["history"][-1]["seconds"]
        courses[building] = {"controller": seconds, "host": sum(spent.values())}
    at, missed = [], 0
    for number, instant in enumerate(instants):
        where = ("controller", "host")[number % 2]
        building = number % 3 == 0  # every third has another environment to build
        for attempt in range(10):
            operator.write(f"kill {number}.{attempt}", f"click>8.0.{number}{attempt}" if building else "")
            before = operator.state["current"]
            delay = instant * courses[building][where] / 2**attempt  # one that came too late comes earlier
            hit, killed = strike(operator, where, delay, all_of_it=number % 4 < 2)
            state = operator.look()
            assert killed.code != 0 or state["static"].strip() == operator.written, killed.output
            assert state["current"] == before or state["static"].strip() == operator.written, killed.output
            assert operator.wrong(state) == [], killed.output
            if not hit:  # it was over by then
                missed += 1
                continue
            at.append(f"{where} {delay:.2f} s {hit}")
            operator.deploy()
            assert operator.state["current"] != before
            break
        else:
            pytest.fail(f"no process of a deploy was there to be killed: {at}")
    told = f"{len(at)}, and {missed} that came too late: {', '.join(at)}"
    figures[f"kills of a deploy behind {operator.name}"] = told


def strike(operator: Operator, where: str, delay: float, *, all_of_it: bool) -> tuple[str, Play]:
    """Deploy, and kill that after some time; what it was doing, empty when it was over."""
    if where == "host":
        killer = Killer(operator, delay, "all" if all_of_it else "module")
        killed = operator.run()
        doing, victims = killer.told()
        return (doing if victims else ""), killed
    running = operator.start()
    with suppress(subprocess.TimeoutExpired):
        running.process.wait(max(0.0, running.begin + delay - time.monotonic()))
    killed = running.kill(all_of_it=all_of_it)
    return ("playing" if killed.code == -signal.SIGKILL else ""), killed


@behind("apache")
@pytest.mark.usefixtures("unharmed")
def test_a_roll_back_that_is_killed(operator: Operator) -> None:
    operator.write(f"to be left {time.time_ns()}")  # a host would refuse what it has left before
    course = operator.deploy().seconds
    left = operator.look()["current"]
    killer = Killer(operator, 0.1 * course, "all")
    operator.run("rollback")
    figures["kill of a roll back"] = killer.told()
    assert operator.wrong(operator.look()) == []
    running = operator.start("rollback")
    operator.until("test -s /srv/load/.lock")
    running.kill(all_of_it=True)
    operator.until("flock --nonblock /srv/load/.lock true")  # what the host has been told goes on there
    assert operator.wrong(operator.look()) == []
    if operator.look()["current"] == left:
        done = operator.run("rollback")
        assert done.code == 0, done.output
    assert operator.look()["current"] != left
    operator.write("after the roll back")
    operator.deploy()


@behind("nginx")
@pytest.mark.usefixtures("unharmed")
def test_a_hook_that_is_killed(operator: Operator) -> None:
    operator.write("with a hook")
    running = hold(operator)
    operator.shell("kill -9 $(systemctl show --property=MainPID --value 'flask-load-migrate-*.service')")
    killed = running.wait()
    assert killed.code != 0
    assert "was killed by signal 9" in killed.output
    state = operator.look()
    assert state["static"].strip() != "with a hook"
    assert operator.wrong(state) == []
    operator.deploy()


@behind("apache")
@pytest.mark.usefixtures("unharmed")
def test_a_deploy_that_is_killed_while_its_hook_runs(operator: Operator) -> None:
    operator.write("with a hook left behind")
    running = hold(operator)
    operator.shell("kill -9 $(sed -n 's/.*\"pid\": \\([0-9]*\\).*/\\1/p' /srv/load/.lock)")
    running.wait()
    operator.deploy()


@behind("nginx")
@pytest.mark.usefixtures("unharmed")
def test_a_candidate_that_is_damaged(operator: Operator) -> None:
    operator.write("damaged candidate")
    running = hold(operator)
    running.kill(all_of_it=True)
    operator.shell(
        "touch /srv/load/shared/go\n"
        'name=$(sed -n \'s/.*"release": "\\([^"]*\\)".*/\\1/p\' /srv/load/.staged)\n'
        "echo 'BROKEN = \"health\"' >> /srv/load/releases/$name/src/src/loaded/version.py"
    )
    operator.until("flock --nonblock /srv/load/.lock true")
    assert operator.look()["static"].strip() != "damaged candidate"
    operator.deploy()


@pytest.mark.parametrize("who", ["worker", "workers", "master"])
def test_processes_of_the_app_that_are_killed(operators: Operators, who: str) -> None:
    on_both(lambda operator: kill_processes(operator, who), operators)


def kill_processes(operator: Operator, who: str) -> None:
    """Kill processes of the app: only what was open then may be lost."""
    load = operator.load
    moments = json.loads(operator.on_host("strike.py", who))
    load.wait({**ENOUGH, "3 s": 3}, load.mark(), targets=[operator.name])
    operator.until("systemctl is-active --quiet flask-load@$(basename $(readlink /srv/load/current)).service")
    own = [record for record in load.records() if record.target == operator.name]
    records = [record for record in own if record.end >= moments["begin"]]
    lost = [record for record in records if record.outcome != "ok"]
    others = [record for record in lost if record.start > moments["end"] + NOTICED]
    open_then = [record for record in records if record.start <= moments["begin"]]
    told = f"{len(open_then)} requests open, {len(lost)} of all lost"
    figures[f"kill of {who} behind {operator.name}"] = told
    assert others == []
    operator.write(f"after the kill of {who}")
    operator.deploy()


@behind("apache")
@pytest.mark.usefixtures("unharmed")
def test_a_disk_that_is_full_while_an_environment_is_built(operator: Operator) -> None:
    before = operator.settled()
    operator.shell(small_disk("environments", "cp -a /srv/load/environments/. /mnt/small/"))
    try:
        operator.write("without room", requirement="click>=8.0.1,!=8.0.2")
        done = operator.refused("disk is full|no room")
        assert operator.look()["environments"] == before["environments"], done.output
    finally:
        operator.shell("umount --lazy /srv/load/environments /mnt/small")
    operator.deploy()


@behind("nginx")
@pytest.mark.usefixtures("unharmed")
def test_a_disk_that_is_full_while_a_release_is_written(operator: Operator) -> None:
    live = operator.settled()["current"]
    # What serves stays where it is: its socket cannot be copied.
    operator.shell(
        small_disk("releases", f"mkdir /mnt/small/{live}", f"/srv/load/releases/{live} /mnt/small/{live}")
    )
    big = operator.versions.directory / "big"
    try:
        big.write_bytes(random.Random(SEED).randbytes(6_000_000))
        operator.write("large")
        operator.refused("no space left|disk is full")
        assert [name for name in operator.look()["releases"] if name.startswith(".")] == []
    finally:
        operator.shell("umount --recursive --lazy /srv/load/releases; umount --recursive --lazy /mnt/small")
    operator.deploy()
    big.unlink()


def small_disk(what: str, fill: str, bind: str = "") -> str:
    """A script that puts a disk with 3 MB of room in the place of a directory of the app, at one stroke."""
    size = f"$(($(du -sk /srv/load/{what} | cut -f1) + 3000))k" if not bind else "3000k"
    return "\n".join(
        [
            "mkdir -p /mnt/small",
            f"mount -t tmpfs -o size={size} tmpfs /mnt/small",
            f"chown --reference=/srv/load/{what} /mnt/small",
            f"chmod --reference=/srv/load/{what} /mnt/small",
            fill,
            f"mount --bind {bind}" if bind else "",
            f"mount --rbind /mnt/small /srv/load/{what}",
        ]
    )


@behind("apache")
@pytest.mark.usefixtures("unharmed")
def test_an_index_that_cannot_be_reached(operator: Operator) -> None:
    operator.write("unreachable", requirement="--index-url http://127.0.0.1:9/simple/")
    operator.refused("could not reach the package index")
    operator.write("reachable")
    operator.deploy()


@behind("nginx")
@pytest.mark.usefixtures("unharmed")
def test_a_package_that_cannot_be_built(operator: Operator) -> None:
    operator.shell(
        "mkdir -p /opt/unbuildable\n"
        "cat > /opt/unbuildable/pyproject.toml <<'end'\n"
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "unbuildable"\nversion = "1"\nend\n'
        "echo 'raise SystemExit(\"the compiler is missing\")' > /opt/unbuildable/backend.py"
    )
    operator.write("unbuildable", requirement="unbuildable @ file:///opt/unbuildable")
    operator.refused("the compiler is missing")
    operator.write("buildable")
    operator.deploy()


@behind("apache")
@pytest.mark.usefixtures("unharmed")
def test_a_bundle_that_arrives_cut(operator: Operator) -> None:
    operator.write("cut")
    operator.deploy()
    state = operator.look()
    # Its code is no more what it was, so it is uploaded once more.
    operator.shell("echo >> /srv/load/current/src/src/loaded/version.py")
    source = state["record"]["parts"]["source"]
    bundle = PROJECT / ".ansible" / "flaskworks" / "bundles" / f"{source}.tar.gz"
    whole = bundle.read_bytes()
    bundle.write_bytes(whole[: len(whole) // 2])
    done = operator.run()
    bundle.write_bytes(whole)
    assert done.code != 0
    assert "cannot be unpacked" in done.output, done.output
    assert operator.look()["current"] == state["current"]
    operator.deploy()
    assert operator.look()["current"] != state["current"]


@pytest.mark.parametrize(
    ("operator", "damage"),
    [
        ("apache", "echo >> src/src/loaded/version.py"),
        ("nginx", "rm gunicorn.conf.py"),
        ("apache", "rm release.json"),
        ("nginx", "mv $(readlink -f venv) /srv/load/aside"),
        ("apache", "rm $(readlink -f venv)/.complete"),
    ],
    indirect=["operator"],
    ids=["file changed", "file missing", "record missing", "environment gone", "environment half"],
)
@pytest.mark.usefixtures("unharmed")
def test_a_live_release_that_is_damaged(operator: Operator, damage: str) -> None:
    before = operator.look()["current"]
    operator.shell(f"cd -P /srv/load/current; {damage}")
    operator.deploy()
    assert operator.look()["current"] != before
    operator.shell("rm -rf /srv/load/aside")


@behind("nginx")
@pytest.mark.usefixtures("unharmed")
def test_a_deploy_while_another_one_runs(operator: Operator) -> None:
    operator.write("the first of two")
    running = hold(operator)
    operator.refused(r"locked by \S+@\S+ since", faults_lock_wait="1s")
    operator.shell("touch /srv/load/shared/go")
    done = running.wait()
    assert done.code == 0, done.output
    state = operator.look()
    assert state["static"].strip() == "the first of two"
    assert operator.wrong(state) == []
    operator.deploy()


@behind("apache")
@pytest.mark.usefixtures("unharmed")
def test_two_deploys_at_once(operator: Operator) -> None:
    operator.write("left")
    copy = EPHEMERAL / "left"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(operator.versions.directory, copy)
    operator.write("right")
    both = [operator.start(faults_source=str(copy)), operator.start()]
    ended = [running.wait() for running in both]
    for done in ended:
        assert done.code == 0 or re.search("another deploy came between|locked by", done.output), done.output
    assert 0 in [done.code for done in ended], [done.output for done in ended]
    state = operator.look()
    assert state["static"].strip() in ("left", "right")
    assert operator.wrong(state) == []
    figures["two deploys at once"] = f"exit status {', '.join(str(done.code) for done in ended)}"
    operator.deploy()


@behind("nginx")
@pytest.mark.usefixtures("unharmed")
def test_a_network_that_is_cut_during_a_deploy(operator: Operator) -> None:
    operator.write("cut off")
    # Only the operator is cut off: what leaves the host from port 22 goes nowhere.
    cut = "ipproto tcp sport 22 blackhole"
    running = operator.start()
    operator.until("test -s /srv/load/.lock")
    operator.shell(f"ip rule add {cut}")
    operator.until("flock --nonblock /srv/load/.lock true")
    running.kill(all_of_it=True)
    operator.drop_connection()
    operator.shell(f"ip rule del {cut}")
    assert operator.wrong(operator.look()) == []
    operator.deploy()


def test_the_hosts_are_restarted(
    operators: Operators, platforms: dict[str, Any], outside: Callable[..., httpx.Client]
) -> None:
    """The last one: requests fail while a host is away, and its address may be another afterwards."""
    operators["nginx"].load.stop()
    addresses: dict[str, str] = {}

    def restart(operator: Operator) -> None:
        operator.settled()
        operator.write("candidate of the restart")
        hold(operator).kill(all_of_it=True)  # not even that disturbs the start
        operator.drop_connection()
        before = operator.look()["current"]
        docker("stop", "--time", "120", operator.container)
        begin = time.monotonic()
        docker("start", operator.container)
        shown = ["--format", "{{.NetworkSettings.Networks.bridge.IPAddress}}", operator.container]
        addresses[operator.name] = address = docker("inspect", *shown).strip()
        platform = dataclasses.replace(platforms[operator.name], address=address)
        client = outside(platform, ca=INVENTORY / ".tls" / "ca.pem", http2=False)
        while not answers(client):
            assert time.monotonic() < begin + LIMIT
            time.sleep(0.05)
        told = f"restart of the host behind {operator.name}, seconds to the first 200"
        figures[told] = round(time.monotonic() - begin, 2)
        assert operator.look()["current"] == before

    def ship(operator: Operator) -> None:
        operator.until("systemctl is-active --quiet ssh.service")
        operator.deploy()
        operator.settled()

    on_both(restart, operators)
    connections = yaml.safe_load((INVENTORY / "connections.yml").read_text())
    for name, address in addresses.items():
        connections["all"]["hosts"][name].update(address=address, ansible_host=address)
    (INVENTORY / "connections.yml").write_text(yaml.safe_dump(connections))
    targets = [
        dataclasses.replace(target, address=addresses[target.name])
        for target in operators["nginx"].load.targets
    ]
    with Load(targets, MODERATE) as load:
        load.wait(ENOUGH, load.mark())
        on_both(ship, operators)
        load.wait(ENOUGH, load.mark(), release="candidate of the restart")
    verdict = load.verdict()
    assert (verdict.failed, verdict.stale) == (0, 0), verdict.explain()


def docker(*command: str) -> str:
    """Run a command of the engine; what it prints."""
    return subprocess.run(["docker", *command], check=True, capture_output=True, text=True).stdout


def hold(operator: Operator) -> Running:
    """Start a deploy and wait until it waits in its hook, with its candidate running."""
    operator.shell("rm -f /srv/load/shared/held /srv/load/shared/go")
    running = operator.start(faults_migrate=HELD)
    operator.until("test -e /srv/load/shared/held")
    return running


def answers(client: httpx.Client) -> bool:
    """Whether the site serves."""
    try:
        return client.get("https://load.example.org/").status_code == 200
    except httpx.TransportError:
        return False
