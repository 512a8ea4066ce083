"""Eight switches, two roll backs and three broken releases under load, for both proxies and kinds of workers.

Nothing here depends on how fast the machine is: every phase waits until so many requests of each kind were
answered. A request is slow when it took over a second longer than usual; what the machine stalled meanwhile,
measured beside the requests, is taken out and shown.
"""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

from tests.load import LARGE, SMALL, Load, Target, Verdict, Versions
from tests.plays import Play, start

EPHEMERAL = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
INVENTORY = EPHEMERAL / "inventory"
FIGURES = EPHEMERAL / "zero_downtime.json"
CONTROL = 7007
HOSTS = ("nginx-gthread", "nginx-gevent", "apache-gthread")

KINDS = tuple(dataclasses.replace(kind, period=1.5 * kind.period) for kind in SMALL + LARGE)
"""As much in all as two hosts would get of what is usual."""

ENOUGH = {kind.name: 20 for kind in SMALL if kind.name != "3 s"} | {"3 s": 2}
"""Answers of a release on every host before the next step; those of 3 s are under way at every switch."""
IN_ALL = {kind.name: 200 for kind in SMALL if kind.name != "3 s"} | {"3 s": 60, "upload": 5, "download": 5}
"""Requests to every host, at least."""
AFTER = 4.0
"""Seconds after a play from which on the old release must not answer a new request; the proxy keeps
connections to it for up to 2 s."""
SHORT = {"health": "10s", "hang": "5s"}
"""What a release that starts, but is not healthy, is given to become so; others have minutes. One that cannot
start is given up when it has failed twice, however long that takes."""

VERSIONS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
BROKEN = {"import": "broken on purpose: import", "health": "503", "hang": ""}
"""How a release is broken, and what the refusal tells of it."""


@dataclass
class Story:
    """What happened, for the tests to judge."""

    verdict: Verdict | None = None
    switched: dict[str, list[float]] = field(default_factory=dict)
    deploys: list[float] = field(default_factory=list)
    rollbacks: dict[str, Play] = field(default_factory=dict)
    refusals: dict[str, Play] = field(default_factory=dict)
    no_op: Play | None = None


class Operator:
    """Ships versions as an operator would, while the load goes on."""

    def __init__(self, load: Load, versions: Versions, hosts: dict[str, Host], story: Story) -> None:
        self.load = load
        self.versions = versions
        self.hosts = hosts
        self.story = story
        self.serving = "one"

    def ship(self, version: str, *, enough: dict[str, int] = ENOUGH) -> None:
        """Deploy a good version and wait until it has answered."""
        self.versions.write(version)
        done = play("deploy")
        assert done.code == 0, done.output
        self.story.deploys.append(done.seconds)
        self._served_by(version, enough)

    def be_refused(self, how: str) -> None:
        """Deploy a broken version; the one that serves goes on."""
        self.versions.write(f"broken by {how}", broken=how)
        begin = self.load.mark()
        short = {"zero_downtime_health_timeout": SHORT[how]} if how in SHORT else {}
        self.story.refusals[how] = play("deploy", **short)
        self.load.wait(ENOUGH, begin, release=self.serving)

    def roll_back(self, version: str, how: str) -> None:
        """Go back to the version that served before."""
        self.load.welcome(version)
        self.story.rollbacks[how] = done = play("rollback")
        assert done.code == 0, done.output
        self._served_by(version, ENOUGH)

    def wait_until_drained(self) -> None:
        """Wait until the release before the current one has stopped: going back to it needs a start then."""
        end = time.monotonic() + 120
        for host in self.hosts.values():
            previous = Path(host.check_output("readlink /srv/load/previous")).name
            while host.run("systemctl is-active %s", f"flask-load@{previous}.service").stdout != "inactive\n":
                assert time.monotonic() < end, f"{previous} does not end"
                time.sleep(0.2)

    def _served_by(self, version: str, enough: dict[str, int]) -> None:
        self.load.retire(self.serving, AFTER)
        self.serving = version
        self.load.wait(enough, self.load.mark(), release=version)
        for name, host in self.hosts.items():
            line = json.loads(host.check_output("tail -n 1 /srv/load/history.jsonl"))
            self.story.switched.setdefault(name, []).append(line["seconds"]["switch"])


def play(name: str, **variables: str) -> Play:
    """Run a playbook of the collection to its end."""
    return start(INVENTORY, name, output=EPHEMERAL / "play.log", variables=variables).wait()


@pytest.fixture(scope="module")
def story(platforms: dict[str, Any], hosts: dict[str, Host]) -> Story:
    """Do everything once; the tests look at what came of it."""
    told = Story()
    versions = Versions(EPHEMERAL / "app")
    # On hosts that were kept, what an earlier run has rolled back from would be refused.
    (versions.directory / "run.txt").write_text(f"{time.time()}\n")
    versions.write("one")
    first = play("deploy")
    assert first.code == 0, first.output
    authority = str(INVENTORY / ".tls" / "ca.pem")
    load = Load(
        [
            Target(name, platform.address, "load.example.org", authority=authority, control=CONTROL)
            for name, platform in platforms.items()
        ],
        KINDS,
    )
    with load:
        load.wait({**ENOUGH, **{kind.name: 1 for kind in LARGE}}, load.mark())
        load.settle()
        operator = Operator(load, versions, hosts, told)
        operator.ship("two")
        operator.be_refused("import")
        operator.ship("three")
        operator.ship("four", enough={kind.name: 1 for kind in SMALL if kind.name != "3 s"})
        operator.roll_back("three", "warm")  # the release to go back to runs still
        operator.be_refused("health")
        operator.ship("five")
        operator.ship("six")
        operator.be_refused("hang")
        operator.ship("seven")
        operator.wait_until_drained()
        operator.roll_back("six", "cold")
        operator.ship("eight")
        operator.ship("nine")
        told.no_op = play("deploy")
    told.verdict = load.verdict()
    show(told)
    return told


def show(story: Story) -> None:
    """Print the figures, and write them for programs."""
    assert story.verdict is not None
    assert story.no_op is not None
    switches = [seconds for each in story.switched.values() for seconds in each]
    figures = {
        "switch": {"median": round(statistics.median(switches), 3), "longest": max(switches)},
        "code_only_deploy": round(statistics.median(story.deploys), 2),
        "no_op_deploy": round(story.no_op.seconds, 2),
        "roll_back": {how: round(done.seconds, 2) for how, done in story.rollbacks.items()},
        "refused": {how: round(done.seconds, 2) for how, done in story.refusals.items()},
    }
    FIGURES.write_text(json.dumps({**figures, **story.verdict.as_dict()}, indent=2) + "\n")
    print(f"\n{story.verdict.table()}\n{story.verdict.explain()}")
    for name, value in figures.items():
        of = value if isinstance(value, dict) else {"median": value}
        print(f"{name.replace('_', ' ')}, seconds: " + ", ".join(f"{key} {one}" for key, one in of.items()))


def test_no_request_fails(story: Story) -> None:
    assert story.verdict is not None
    assert story.verdict.failed == 0, story.verdict.explain()


def test_no_kept_connection_is_lost_and_no_old_release_answers(story: Story) -> None:
    assert story.verdict is not None
    assert story.verdict.stale == 0, story.verdict.explain()


def test_no_request_is_slow(story: Story) -> None:
    assert story.verdict is not None
    assert story.verdict.slow == 0, story.verdict.explain()


def test_every_kind_of_request_was_there(story: Story) -> None:
    assert story.verdict is not None
    few = [row for row in story.verdict.rows if row.requests < IN_ALL[row.kind]]
    assert not few
    assert {(row.target, row.kind) for row in story.verdict.rows} == {
        (host, kind) for host in HOSTS for kind in IN_ALL
    }


def test_clients_saw_every_switch_and_no_broken_release(story: Story) -> None:
    assert story.verdict is not None
    for host in HOSTS:
        assert set(story.verdict.releases[host]) == set(VERSIONS)
        assert len(story.switched[host]) == 10


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_release_is_refused_and_told(story: Story, how: str) -> None:
    refused = story.refusals[how]
    assert refused.code != 0
    assert BROKEN[how] in refused.output, refused.output
    assert refused.seconds < 60


def test_a_deploy_of_nothing_changes_nothing(story: Story) -> None:
    assert story.no_op is not None
    assert story.no_op.code == 0, story.no_op.output
    assert story.no_op.changed == 0


def test_the_hosts_are_left_with_one_release_that_runs(story: Story, hosts: dict[str, Host]) -> None:
    for host in hosts.values():
        current = Path(host.check_output("readlink /srv/load/current")).name
        units = "systemctl list-units --plain --no-legend --state=active,failed 'flask-load@*.service'"
        end = time.monotonic() + 120
        while [line.split()[0] for line in host.check_output(units).splitlines()] != [
            f"flask-load@{current}.service"
        ]:
            assert time.monotonic() < end, host.check_output(units)
            time.sleep(0.5)
