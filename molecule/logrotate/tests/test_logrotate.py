"""Twelve rotations under load, a deploy among them: no request fails, and every line is there once.

Each request has a number, and what is in the logs of a host is compared to the numbers that were answered.
Nothing here depends on how fast the machine is: between two rotations, so many requests are answered.
"""

from __future__ import annotations

import base64
import http.client
import itertools
import json
import os
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

from tests.plays import Play, start

EPHEMERAL = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
INVENTORY = EPHEMERAL / "inventory"
SOURCE = EPHEMERAL / "app" / "src" / "lines.py"
NAME = "lines.example.org"

ROTATIONS = 12
ENOUGH = 60
"""Answers that visitors of each host get between two rotations, at least."""

REQUESTS = "/var/log/flask-proxy/flask-lines.log"
OUTPUT = "/var/log/flask/lines/output.log"
OLD = re.compile(r"\d{8}T\d{6}")
WAYS = ("began", "printed", "complained", "flask", "gunicorn")
"""How the app writes a line: to its output before and after it waits, to its errors, by two loggers."""

READ = r"""
import collections, glob, gzip, json, re
def lines(log):
    for path in sorted(glob.glob(log + "*")):
        with (gzip.open if path.endswith(".gz") else open)(path, "rb") as file:
            yield from file.read().splitlines()
requests, written, broken = collections.Counter(), collections.Counter(), []
releases = set()
for line in lines("%(requests)s"):
    try:
        entry = json.loads(line)
        number = re.match("/lines/([0-9]+)", entry["path"])
        if number:
            requests[int(number[1])] += 1
            releases.add(entry["release"])
    except ValueError:
        broken.append(line.decode(errors="replace"))
for line in lines("%(output)s"):
    for way, number in re.findall(rb"(%(ways)s) ([0-9]{10,})\.", line):
        written[way.decode() + " " + number.decode()] += 1
print(json.dumps({"requests": requests, "written": written, "broken": broken, "releases": sorted(releases)}))
"""


Kinds = tuple[tuple[str, float], ...]


class Visitors:
    """Ask one host for numbers, again and again, and remember which were answered.

    Four keep their connection, two have a new one for every request, and two ask for answers that take a
    second, so that some are on their way in every rotation.
    """

    KINDS = (("kept", 0.05),) * 4 + (("new", 0.1),) * 2 + (("slow", 0.1),) * 2

    def __init__(self, address: str, numbers: Iterator[int], kinds: Kinds = KINDS) -> None:
        self.address = address
        self.numbers = numbers
        self.answered: list[int] = []
        self.failures: list[str] = []
        self.context = ssl.create_default_context(cafile=str(INVENTORY / ".tls" / "ca.pem"))
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._visit, args=kind) for kind in kinds]

    def begin(self) -> None:
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(60)

    def connect(self) -> http.client.HTTPSConnection:
        connection = http.client.HTTPSConnection(NAME, timeout=60, context=self.context)
        plain = socket.create_connection((self.address, 443), timeout=60)
        connection.sock = self.context.wrap_socket(plain, server_hostname=NAME)
        return connection

    def ask(self, connection: http.client.HTTPSConnection, path: str) -> bytes:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        assert answer.status == 200, f"{answer.status} {body[:80]!r}"
        return body

    def _visit(self, kind: str, pause: float) -> None:
        connection = None
        while not self._ended.is_set():
            number = next(self.numbers)
            try:
                # A proxy may end a connection with an answer, and says so in it.
                if connection is None or connection.sock is None:
                    connection = self.connect()
                self.ask(connection, f"/lines/{number}" + ("?seconds=1" if kind == "slow" else ""))
                self.answered.append(number)
            except (OSError, http.client.HTTPException, AssertionError) as error:
                self.failures.append(f"{kind} {number}: {error!r}")
                connection = None
            if kind == "new" and connection is not None:
                connection.close()
            self._ended.wait(pause)


@dataclass
class Story:
    """What became of one host."""

    visitors: Visitors
    rotations: list[str] = field(default_factory=list)
    """What logrotate said, rotation by rotation."""
    found: dict[str, Any] = field(default_factory=dict)

    def lost(self) -> dict[str, int]:
        """Return how many lines are not there, by way."""
        seen = self.found["requests"], self.found["written"]
        requests = sum(str(number) not in seen[0] for number in self.visitors.answered)
        ways = {
            way: sum(f"{way} {number}" not in seen[1] for number in self.visitors.answered) for way in WAYS
        }
        return {"requests": requests, **ways}


def eventually(question: Callable[[], bool], seconds: float = 120) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if question():
            return True
        time.sleep(0.2)
    return False


def read(host: Host) -> dict[str, Any]:
    """Return what all logs of the app have, the old ones too."""
    program = READ % {"requests": REQUESTS, "output": OUTPUT, "ways": "|".join(WAYS)}
    encoded = base64.b64encode(program.encode()).decode()
    result: dict[str, Any] = json.loads(host.check_output(f"echo {encoded} | base64 -d | python3 -"))
    return result


def old(host: Host, log: str) -> list[str]:
    """Return the old logs, as what their names have behind that of the log."""
    return [name.removeprefix(f"{log}-") for name in host.check_output(f"ls -d {log}-*").splitlines()]


def play(name: str) -> Play:
    return start(INVENTORY, name, output=EPHEMERAL / f"{name}.log").wait()


def rotate(host: Host, number: int) -> str:
    """Rotate by force; once all logs of the host, and once as the timer does, when a day has passed."""
    # nginx writes what it has gathered after five seconds, and an empty log is left alone.
    assert eventually(lambda: host.file(REQUESTS).size > 0)
    time.sleep(1.1)  # old logs are named for the second
    command = "logrotate --force /etc/logrotate.d/flask-lines"
    if number == 4:
        command = "logrotate --force /etc/logrotate.conf"
    if number == 8:
        host.check_output(
            "sed -i 's|^\\(\"/var/log/flask.*\"\\) .*|\\1 2026-1-1-0:0:0|' /var/lib/logrotate/status"
        )
        command = "systemctl start logrotate.service"
    done = host.run(command)
    return f"{done.stdout}{done.stderr}" + (f" (status {done.rc})" if done.rc else "")


@pytest.fixture(scope="module")
def stories(platforms: dict[str, Any], hosts: dict[str, Host]) -> dict[str, Story]:
    """Rotate the logs of both hosts under load; the tests look at what came of it."""
    ship("one")
    for host in hosts.values():  # on hosts that were kept, those of an earlier run
        host.check_output(f"rm -f {REQUESTS}-* {OUTPUT}-*; systemctl stop logrotate.timer")
    numbers = itertools.count(time.time_ns() // 1_000_000_000 * 1_000_000)
    told = {name: Story(Visitors(one.address, numbers)) for name, one in platforms.items()}
    before = {
        name: host.check_output("systemctl show -P MainPID -p NRestarts nginx apache2")
        for name, host in hosts.items()
    }
    for story in told.values():
        story.visitors.begin()
    deploy = threading.Thread(target=ship, args=["two"])
    try:
        for number in range(1, ROTATIONS + 1):
            for name, story in told.items():
                enough = len(story.visitors.answered) + ENOUGH
                assert eventually(lambda story=story, enough=enough: len(story.visitors.answered) > enough)  # type: ignore[misc]
                story.rotations.append(rotate(hosts[name], number))
            if number == 5:
                deploy.start()
        deploy.join()
    finally:
        for story in told.values():
            story.visitors.end()
    for name, host in hosts.items():
        assert before[name] == host.check_output("systemctl show -P MainPID -p NRestarts nginx apache2")
        story = told[name]

        def all_there(host: Host = host, story: Story = story) -> bool:
            story.found = read(host)
            return not any(story.lost().values())

        eventually(all_there, 30)  # nginx writes what it has gathered after five seconds
        asked, failed = len(story.visitors.answered), len(story.visitors.failures)
        print(f"\n{name}: {ROTATIONS} rotations, {asked} answered, {failed} failed, lost {story.lost()}")
    return told


def ship(version: str) -> None:
    text = SOURCE.read_text()
    SOURCE.write_text(re.sub('VERSION = ".*"', f'VERSION = "{version}"', text))
    done = play("deploy")
    assert done.code == 0, done.output


@pytest.fixture
def story(platform: Any, stories: dict[str, Story]) -> Story:
    return stories[platform.name]


def test_no_request_fails(story: Story) -> None:
    assert story.visitors.failures == []
    assert len(story.visitors.answered) >= ROTATIONS * ENOUGH


def test_no_line_is_lost(story: Story) -> None:
    assert story.lost() == {
        "requests": 0,
        "began": 0,
        "printed": 0,
        "complained": 0,
        "flask": 0,
        "gunicorn": 0,
    }


def test_no_line_is_there_twice_or_broken(story: Story) -> None:
    assert [number for number, count in story.found["requests"].items() if count != 1] == []
    assert [line for line, count in story.found["written"].items() if count != 1] == []
    assert story.found["broken"] == []


def test_a_release_was_switched_meanwhile(story: Story) -> None:
    assert len(story.found["releases"]) == 2


def test_every_rotation_happened_and_nothing_was_said(story: Story, host: Host) -> None:
    assert story.rotations == [""] * 12
    for log in (REQUESTS, OUTPUT):
        assert len(old(host, log)) == 12


def test_old_logs_have_their_time_and_all_but_the_latest_are_compressed(story: Story, host: Host) -> None:
    for log in (REQUESTS, OUTPUT):
        names = old(host, log)
        assert [bool(re.fullmatch(r"\d{8}T\d{6}(\.gz)?", name)) for name in names] == [True] * 12
        assert [name.endswith(".gz") for name in names] == [True] * 11 + [False]


def test_logs_are_for_few(story: Story, host: Host, platform: Any) -> None:
    def modes(pattern: str) -> set[str]:
        return set(host.check_output(f"stat -c '%U %G %a' {pattern}").splitlines())

    assert modes("/var/log/flask-proxy") == {"root adm 2755"}
    owner = "www-data" if platform.name == "nginx" else "root"
    assert modes(REQUESTS) == {f"{owner} adm 640"}
    # nginx has made the first one before it gave up being root.
    assert modes(f"{REQUESTS}-*") <= {f"{owner} adm 640", "root adm 640"}
    assert modes("/var/log/flask/lines") == {"lines lines 750"}
    assert modes(f"{OUTPUT} {OUTPUT}-*") == {"lines lines 640"}


def test_as_many_old_logs_stay_as_was_told(story: Story, host: Host) -> None:
    first = {log: old(host, log)[0] for log in (REQUESTS, OUTPUT)}
    for log in first:
        host.check_output(f"echo a line >>{log}")
    assert rotate(host, 13) == ""
    for log, name in first.items():
        assert len(old(host, log)) == 12
        assert name not in old(host, log)


def test_a_log_that_is_large_becomes_an_old_one_within_the_hour(story: Story, host: Host) -> None:
    assert "OnCalendar=*-*-* *:00:00" in host.check_output("systemctl show -P TimersCalendar logrotate.timer")
    latest = old(host, OUTPUT)[-1]
    host.check_output("systemctl start logrotate.service")
    assert old(host, OUTPUT)[-1] == latest
    visitors = story.visitors
    visitors.ask(visitors.connect(), "/long/1200000")
    time.sleep(1.1)
    host.check_output("systemctl start logrotate.service")
    assert old(host, OUTPUT)[-1] > latest
    assert old(host, OUTPUT)[-2] == f"{latest}.gz"


def test_what_goes_to_the_journal_has_no_file(host: Host, story: Story) -> None:
    assert not host.file("/var/log/flask/quiet/output.log").exists
    rule = host.file("/etc/logrotate.d/flask-quiet").content_string
    assert (
        re.findall(r"^    (weekly|rotate 3|nocompress)$", rule, re.MULTILINE)
        == ["weekly", "rotate 3", "nocompress"] * 2
    )


def test_reloads_of_a_proxy_lose_no_line(story: Story, host: Host, platform: Any) -> None:
    unit = {"nginx": "nginx", "apache": "apache2"}[platform.name]
    # A reload of Apache closes connections that are kept, so everybody comes with a new one.
    visitors = Visitors(platform.address, itertools.count(time.time_ns()), (("new", 0.02),) * 4)
    visitors.begin()
    try:
        for _ in range(4):
            enough = len(visitors.answered) + 50
            assert eventually(lambda enough=enough: len(visitors.answered) > enough)  # type: ignore[misc]
            host.check_output(f"systemctl reload {unit}")
            assert rotate(host, 0) == ""
    finally:
        visitors.end()
    after = Story(visitors)

    def all_there() -> bool:
        after.found = read(host)
        return not any(after.lost().values())

    assert visitors.failures == []
    assert eventually(all_there, 30), after.lost()
    assert host.run("pgrep --count --full '^/usr/bin/python3 .*/write-logs$'").stdout == (
        "1\n" if platform.name == "apache" else "0\n"
    )


def test_nothing_is_left_for_the_rule_of_the_distribution(story: Story, host: Host) -> None:
    """It would reload Apache, which closes connections."""
    assert host.run("find /var/log/apache2 -type f -size +0").stdout == ""
