"""nginx gives way to Apache and comes back, on a host that serves; and what happens when that goes wrong.

The tests build on each other, in their order: the first finds nginx, as the scenario converges it.
"""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from tests.acceptance.client import Client

SCENARIO = Path(__file__).resolve().parents[1]
INVENTORY = Path(os.environ["MOLECULE_INVENTORY_FILE"]).parent
UNITS = {"nginx": "nginx.service", "apache": "apache2.service"}
PLAYBOOK = ["ansible-playbook", "-i", str(INVENTORY), str(SCENARIO / "converge.yml")]
GAP = 2.0
"""Seconds that a handover may leave a host without an answer; measured on an idle machine: 0.3."""


@pytest.fixture(scope="session")
def client(platform: Any) -> Client:
    return Client(platform.address, str(INVENTORY.parent / f"{platform.name}.pem"))


def converge(*words: str) -> tuple[int, str]:
    """Run the playbook; its exit status and all that it said, in one line."""
    done = subprocess.run([*PLAYBOOK, *words], capture_output=True, text=True, check=False)
    return done.returncode, re.sub(r"\s+", " ", done.stdout + done.stderr)


def eventually(question: Callable[[], bool], seconds: float = 120) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if question():
            return True
        time.sleep(0.2)
    return False


def answers(client: Client) -> bool:
    try:
        return client.ask("/release").body == b"one"
    except OSError:
        return False


def only_one_serves(host: Host, proxy: str) -> None:
    """Now, and after the next boot."""
    (other,) = UNITS.keys() - {proxy}
    serving, stopped = host.service(UNITS[proxy]), host.service(UNITS[other])
    assert (serving.is_running, serving.is_enabled) == (True, True)
    assert (stopped.is_running, stopped.is_enabled) == (False, False)


@dataclass
class Visitor:
    """Asks one question after another, each over a connection of its own."""

    client: Client
    target: str
    asked: list[tuple[float, float, str]] = field(default_factory=list)

    def ask(self) -> None:
        began = time.monotonic()
        try:
            told = str(self.client.ask(self.target).status)
        except OSError as error:
            told = type(error).__name__
        self.asked.append((began, time.monotonic(), told))

    @property
    def good(self) -> list[tuple[float, float]]:
        return [(began, ended) for began, ended, told in self.asked if told == "200"]

    def gap(self) -> tuple[float, float]:
        """The longest time between two good answers."""
        ends = [ended for _began, ended in self.good]
        return max(itertools.pairwise(ends), key=lambda pair: pair[1] - pair[0])


@contextmanager
def visited(*visitors: Visitor) -> Iterator[None]:
    """Let them ask all the while; each has had an answer before and has one afterwards."""
    stop = threading.Event()

    def run(visitor: Visitor) -> None:
        while not stop.is_set():
            visitor.ask()
            time.sleep(0.005)

    threads = [threading.Thread(target=run, args=(visitor,)) for visitor in visitors]
    for thread in threads:
        thread.start()
    try:
        assert eventually(lambda: all(visitor.good for visitor in visitors))
        yield
        seen = time.monotonic()
        assert eventually(lambda: all(visitor.good and visitor.good[-1][0] > seen for visitor in visitors))
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@contextmanager
def drop_in(host: Host, proxy: str, line: str) -> Iterator[None]:
    """Give a unit one more line."""
    place = f"/etc/systemd/system/{UNITS[proxy]}.d/zz-test.conf"
    host.check_output(
        f"mkdir -p $(dirname {place}) && printf '[Service]\\n{line}\\n' >{place} && systemctl daemon-reload"
    )
    try:
        yield
    finally:
        host.check_output(f"rm {place} && systemctl daemon-reload")


def hand_over(client: Client, host: Host, proxy: str) -> None:
    """Change the proxy while visitors ask, and look at what they saw."""
    quick = Visitor(client, "/release")
    slow = [Visitor(client, f"/slow/{seconds}") for seconds in (1.3, 1.7, 2)]
    with visited(quick, *slow):
        code, said = converge("-e", f"flask_proxy={proxy}")
    assert code == 0, said
    only_one_serves(host, proxy)
    begun, over = quick.gap()
    assert over - begun < GAP
    refused = {"200", "ConnectionRefusedError", "ConnectionResetError", "SSLEOFError"}
    assert {told for _began, _ended, told in quick.asked} <= refused
    # What the old one had begun long before was finished by it.
    finished = [
        told
        for visitor in slow
        for began, ended, told in visitor.asked
        if began < begun - 1 and ended > begun
    ]
    assert set(finished) <= {"200"}
    print(f"\n{proxy}: a gap of {over - begun:.2f} s, {len(finished)} requests finished behind it")


def test_apache_takes_over_from_nginx(client: Client, host: Host) -> None:
    hand_over(client, host, "apache")


def test_a_run_with_nothing_to_do_changes_nothing() -> None:
    code, said = converge("-e", "flask_proxy=apache")
    assert code == 0, said
    assert " changed=0 " in said


def test_a_crash_of_apache_is_survived(client: Client, host: Host) -> None:
    host.check_output("kill -KILL $(cat /run/apache2/apache2.pid)")
    assert eventually(lambda: answers(client))


def test_a_configuration_that_is_refused_stops_nobody(client: Client, host: Host) -> None:
    host.check_output("printf 'no directive of nginx;\\n' >/etc/nginx/conf.d/broken.conf")
    try:
        code, said = converge("-e", "flask_proxy=nginx")
    finally:
        host.check_output("rm /etc/nginx/conf.d/broken.conf")
    assert code != 0
    assert "unknown directive" in said
    assert answers(client)
    only_one_serves(host, "apache")


def test_a_proxy_that_does_not_start_gives_way_again(client: Client, host: Host) -> None:
    with drop_in(host, "nginx", "ExecStartPre=/bin/false"):
        code, said = converge("-e", "flask_proxy=nginx")
    assert code != 0
    assert "nginx.service could not take over from apache2.service: " in said
    assert "apache2.service serves again as before and nginx.service is stopped" in said
    assert answers(client)
    only_one_serves(host, "apache")


def test_a_proxy_that_cannot_reach_the_apps_gives_way_again(client: Client, host: Host) -> None:
    with drop_in(host, "nginx", "InaccessiblePaths=/srv"):
        code, said = converge("-e", "flask_proxy=nginx")
    assert code != 0
    assert "https://hello.example.org/ gives status 502, and gave status " in said
    assert "apache2.service serves again as before" in said
    assert answers(client)
    only_one_serves(host, "apache")


def test_a_handover_that_is_killed_leaves_the_old_one_serving(client: Client, host: Host) -> None:
    """The name of the guard's unit tells the process that it looks after."""
    with drop_in(host, "nginx", "ExecStartPre=/bin/sleep 600"):
        play = subprocess.Popen(
            [*PLAYBOOK, "-e", "flask_proxy=nginx"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            assert eventually(
                lambda: host.check_output("systemctl show -P ActiveState nginx.service") == "activating"
            )
            guard = host.check_output(
                "systemctl list-units --plain --no-legend 'flaskworks-handover-*.service'"
            )
            host.check_output(f"kill -KILL {guard.split()[0].split('-')[2].removesuffix('.service')}")
            assert play.wait(120) != 0
        finally:
            play.kill()
        assert eventually(lambda: answers(client))
    only_one_serves(host, "apache")


def test_nginx_takes_over_from_apache(client: Client, host: Host) -> None:
    hand_over(client, host, "nginx")


def test_a_crash_of_nginx_is_survived(client: Client, host: Host) -> None:
    host.check_output("kill -KILL $(cat /run/nginx.pid)")
    assert eventually(lambda: answers(client))


FINGERPRINTS = "find /etc /usr/local /var/lib/flaskworks -type f -exec sha256sum {} + | sort -k 2"
SQUATTER = r"""[Service]
ExecStart=/usr/bin/python3 -m http.server 80
[Install]
WantedBy=multi-user.target
"""


@pytest.fixture(scope="module")
def squatter(host: Host) -> Iterator[str]:
    """Have somebody else's service hold port 80 of a host on which no proxy runs."""
    host.check_output("systemctl disable --now nginx.service")
    host.check_output(f"printf '%s' '{SQUATTER}' >/etc/systemd/system/squatter.service")
    host.check_output("systemctl daemon-reload && systemctl enable --now squatter.service")
    host.check_output("timeout 120 sh -c 'until ss -Hltn sport = :80 | grep -q .; do sleep 0.1; done'")
    yield "squatter.service"
    host.check_output("systemctl disable --now squatter.service")


def test_somebody_elses_service_is_named_before_anything_is_written(host: Host, squatter: str) -> None:
    before = host.check_output(FINGERPRINTS)
    code, said = converge()
    assert code != 0
    assert re.search(
        r"port 80 is held by python3 \(process \d+, squatter\.service, Debian package python3\S*\), "
        r"where nginx is to serve the sites; nothing was changed: "
        r"stop it \('systemctl disable --now squatter\.service'\), "
        r"or have the play stop and disable it \(-e flask_ports_conflict=take_over\), "
        r"or give the sites other ports",
        said,
    ), said
    assert host.check_output(FINGERPRINTS) == before
    assert host.service(squatter).is_running


def test_somebody_elses_service_is_stopped_when_that_was_asked_for(
    client: Client, host: Host, squatter: str
) -> None:
    code, said = converge("-e", "flask_ports_conflict=take_over")
    assert code == 0, said
    assert f"{squatter} was stopped and disabled, because flask_ports_conflict is take_over" in said
    assert (host.service(squatter).is_running, host.service(squatter).is_enabled) == (False, False)
    assert answers(client)
    only_one_serves(host, "nginx")
