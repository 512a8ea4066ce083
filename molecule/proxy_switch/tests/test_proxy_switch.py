"""nginx gives way to Apache and comes back, on a host that serves; and what happens when that goes wrong.

The tests build on each other, in their order: the first finds nginx, as the scenario converges it.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import ssl
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml
from testinfra.host import Host

from tests.acceptance.client import Client
from tests.plays import PROJECT, Running

SCENARIO = Path(__file__).resolve().parents[1]
INVENTORY = Path(os.environ["MOLECULE_INVENTORY_FILE"]).parent
UNITS = {"nginx": "nginx.service", "apache": "apache2.service"}
PLAYBOOK = ["ansible-playbook", "-i", str(INVENTORY), str(SCENARIO / "converge.yml")]
GAP = 2.0
"""Seconds that a handover may leave a host without an answer; measured on an idle machine: 0.3."""
LIMIT = 300.0
"""Seconds after which something that has to come will not come any more."""


def begin(*words: str) -> Running:
    """Start the playbook. It writes to a file: it would stand still at a pipe that nobody reads."""
    return Running([*PLAYBOOK, *words], dict(os.environ), INVENTORY.parent / "play.log")


def ended(play: Running) -> tuple[int, str]:
    """Wait for its end; its exit status and all that it said, in one line."""
    done = play.wait()
    return done.code, re.sub(r"\s+", " ", done.output)


def converge(*words: str) -> tuple[int, str]:
    """Run the playbook to its end."""
    return ended(begin(*words))


def eventually(question: Callable[[], bool]) -> bool:
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        if question():
            return True
        time.sleep(0.05)
    return False


def answers(client: Client) -> bool:
    try:
        return client.ask("/release").body == b"one"
    except OSError:
        return False


def spoken(client: Client) -> list[str]:
    """Return the versions of TLS in which the host shakes hands."""
    found = []
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = ssl.create_default_context(cafile=client.authority)
        context.minimum_version = context.maximum_version = version
        with (
            suppress(ssl.SSLError),
            socket.create_connection((client.address, 443), timeout=15) as plain,
            context.wrap_socket(plain, server_hostname="hello.example.org") as secured,
        ):
            found.append(str(secured.version()))
    return found


def only_one_serves(host: Host, proxy: str) -> None:
    """Now, and after the next boot."""
    (other,) = UNITS.keys() - {proxy}
    serving, stopped = host.service(UNITS[proxy]), host.service(UNITS[other])
    assert (serving.is_running, serving.is_enabled) == (True, True)
    assert (stopped.is_running, stopped.is_enabled) == (False, False)


@dataclass(frozen=True)
class Visit:
    """One question and its answer: who gave it; or else a status, "refused", or another fault."""

    began: float
    ended: float
    told: str


@dataclass
class Visitor:
    """Asks one question after another, each over a connection of its own."""

    client: Client
    visits: list[Visit] = field(default_factory=list)

    def ask(self) -> None:
        began = time.monotonic()
        try:
            answer = self.client.ask("/release")
            told = answer.one("X-Proxy") if answer.status == 200 else str(answer.status)
        except (ConnectionError, ssl.SSLEOFError):
            told = "refused"
        except OSError as error:
            told = type(error).__name__
        self.visits.append(Visit(began, time.monotonic(), told))

    def answered_by(self, proxy: str) -> bool:
        return any(visit.told == proxy for visit in self.visits)


@contextmanager
def visited(visitor: Visitor) -> Iterator[None]:
    """Let him ask all the while; he has had an answer before and has one afterwards."""
    stop = threading.Event()

    def run() -> None:
        while not stop.is_set():
            visitor.ask()
            time.sleep(0.005)

    def served(since: float) -> bool:
        return any(visit.began > since and visit.told in UNITS for visit in list(visitor.visits))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert eventually(lambda: served(0.0))
        yield
        seen = time.monotonic()
        assert eventually(lambda: served(seen))
    finally:
        stop.set()
        thread.join()


@contextmanager
def begun(client: Client, flag: str) -> Iterator[http.client.HTTPResponse]:
    """Begin a request that is answered to its end when a flag is raised."""
    with client.talk() as conversation:
        conversation.send(f"GET /events/{flag} HTTP/1.1\r\nHost: hello.example.org\r\n\r\n".encode())
        answer = conversation.head()
        assert (answer.status, answer.readline()) == (200, b"data: first\n")
        yield answer


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


def hand_over(client: Client, host: Host, old: str, new: str) -> None:
    """Change the proxy while a visitor asks and other requests are open, and look at what they saw."""
    flag, visitor = uuid.uuid4().hex, Visitor(client)
    with ExitStack() as opened:
        opened.enter_context(visited(visitor))
        unfinished = [opened.enter_context(begun(client, flag)) for _ in range(3)]
        play = begin("-e", f"flask_proxy={new}")
        assert eventually(lambda: visitor.answered_by(new) or play.process.poll() is not None)
        # The old one has let go of the ports, and goes on with what it had begun.
        client.ask(f"/raise/{flag}")
        rests = [answer.read() for answer in unfinished]
        code, said = ended(play)
    assert code == 0, said
    only_one_serves(host, new)
    assert all(rest.endswith(b"\ndata: second\n\n") for rest in rests), rests
    told = [visit.told for visit in visitor.visits]
    last, first = len(told) - 1 - told[::-1].index(old), told.index(new)
    assert {*told[: last + 1]} == {old}
    assert {*told[last + 1 : first]} <= {"refused"}
    assert {*told[first:]} == {new}
    gap = visitor.visits[first].ended - visitor.visits[last].ended
    print(
        f"\nfrom {old} to {new}: no answer for {gap:.2f} s, {len(told)} visits of which {first - last - 1} "
        f"were refused meanwhile, {len(rests)} requests finished by {old} afterwards"
    )
    assert gap < GAP
    assert re.search(rf"trixie: {UNITS[new]} took over from {UNITS[old]} within \d\.\d\d s", said), said
    code, said = converge("-e", f"flask_proxy={new}")
    assert code == 0, said
    assert " changed=0 " in said


def crash(client: Client, host: Host, proxy: str) -> None:
    """Kill the proxy; another process serves in its place."""

    def main() -> str:
        return str(host.check_output("systemctl show -P MainPID %s", UNITS[proxy]))

    killed = main()
    host.check_output("kill -KILL %s", killed)
    assert eventually(lambda: main() not in (killed, "0") and answers(client))
    only_one_serves(host, proxy)


def test_check_mode_foretells_and_touches_nothing(client: Client, host: Host) -> None:
    code, said = converge("--check", "-e", "flask_proxy=apache")
    assert code == 0, said
    assert not host.package("apache2").is_installed
    assert not host.file("/etc/apache2").exists
    assert answers(client)
    assert (host.service("nginx.service").is_running, host.service("nginx.service").is_enabled) == (
        True,
        True,
    )


def test_nginx_speaks_what_the_modern_policy_allows(client: Client) -> None:
    assert spoken(client) == ["TLSv1.3"]


def test_a_proxy_that_does_not_start_gives_way_again(client: Client, host: Host) -> None:
    """This also installs Apache on a host that serves."""
    with drop_in(host, "apache", "ExecStartPre=/bin/false"):
        code, said = converge("-e", "flask_proxy=apache")
    assert code != 0
    assert "apache2.service could not take over from nginx.service: " in said
    assert "nginx.service serves again as before and apache2.service is stopped" in said
    assert answers(client)
    only_one_serves(host, "nginx")


def test_apache_takes_over_from_nginx(client: Client, host: Host) -> None:
    hand_over(client, host, "nginx", "apache")


def test_apache_speaks_what_the_modern_policy_allows(client: Client) -> None:
    assert spoken(client) == ["TLSv1.3"]


def test_a_crash_of_apache_is_survived(client: Client, host: Host) -> None:
    crash(client, host, "apache")


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


def test_a_proxy_that_cannot_reach_the_apps_gives_way_again(client: Client, host: Host) -> None:
    with drop_in(host, "nginx", "InaccessiblePaths=/srv"):
        code, said = converge("-e", "flask_proxy=nginx")
    assert code != 0
    assert "https://hello.example.org/ gives status 502, and gave status 404 before" in said
    assert "apache2.service serves again as before" in said
    assert answers(client)
    only_one_serves(host, "apache")


def test_a_handover_that_is_killed_leaves_the_old_one_serving(client: Client, host: Host) -> None:
    """The name of the guard's unit tells the process that it looks after."""
    with drop_in(host, "nginx", "ExecStartPre=/bin/sleep 600"):
        play = begin("-e", "flask_proxy=nginx")
        try:
            state = "systemctl show -P ActiveState nginx.service"
            over = play.process.poll
            assert eventually(lambda: host.check_output(state) == "activating" or over() is not None)
            assert over() is None, ended(play)
            guard = host.check_output(
                "systemctl list-units --plain --no-legend 'flaskworks-handover-*.service'"
            )
            host.check_output(f"kill -KILL {guard.split()[0].split('-')[2].removesuffix('.service')}")
            code, said = ended(play)
            assert code != 0, said
        finally:
            play.process.kill()
        assert eventually(lambda: answers(client))
    only_one_serves(host, "apache")


def test_nginx_takes_over_from_apache(client: Client, host: Host) -> None:
    hand_over(client, host, "apache", "nginx")


def test_a_crash_of_nginx_is_survived(client: Client, host: Host) -> None:
    crash(client, host, "nginx")


FINGERPRINTS = "find /etc /usr/local /var/lib/flaskworks -type f -exec sha256sum {} + | sort -k 2"
SQUATTER = r"""[Service]
ExecStart=/usr/bin/python3 -m http.server 80
[Install]
WantedBy=multi-user.target
"""


def settle(host: Host, squatter: str) -> None:
    """Have him take the port."""
    host.check_output("systemctl enable --now %s", squatter)
    host.check_output("timeout 120 sh -c 'until ss -Hltn sport = :80 | grep -q .; do sleep 0.1; done'")


@pytest.fixture(scope="module")
def squatter(host: Host) -> Iterator[str]:
    """Have somebody else's service hold port 80 of a host on which no proxy runs."""
    host.check_output("systemctl disable --now nginx.service")
    host.check_output(f"printf '%s' '{SQUATTER}' >/etc/systemd/system/squatter.service")
    host.check_output("systemctl daemon-reload")
    settle(host, "squatter.service")
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


def test_a_proxy_that_serves_gets_a_port_from_somebody_else(
    client: Client, host: Host, squatter: str
) -> None:
    """Apache would end at a reload, as it could not listen."""
    told = (PROJECT / "tests/acceptance/target/sites.yml").read_text()
    elsewhere = told.replace("http_port: 80\n", "http_port: 8081\n").replace("{http: 80,", "{http: 8081,")
    code, said = converge("-e", "flask_proxy=apache", "-e", json.dumps(yaml.safe_load(elsewhere)))
    assert code == 0, said
    settle(host, squatter)
    visitor = Visitor(client)
    with visited(visitor):
        code, said = converge("-e", "flask_proxy=apache", "-e", "flask_ports_conflict=take_over")
    assert code == 0, said
    assert f"{squatter} was stopped and disabled, because flask_ports_conflict is take_over" in said
    assert client.ask("/", port=80, tls=False).status == 308
    only_one_serves(host, "apache")
    seen = [visit.told for visit in visitor.visits]
    away = [number for number, who in enumerate(seen) if who != "apache"]
    gap = visitor.visits[away[-1] + 1].ended - visitor.visits[away[0] - 1].ended if away else 0.0
    print(f"\nport 80 taken over by Apache that served: no answer for {gap:.2f} s on port 443")
    assert gap < GAP
