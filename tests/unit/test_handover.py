"""One proxy takes over from another, on a host that is only played: in which order, and what on failure."""

from __future__ import annotations

import contextlib
import datetime
import signal
import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from ansible_collections.flaskworks.server.plugins.module_utils import handover
from ansible_collections.flaskworks.server.plugins.module_utils.handover import (
    Answer,
    HandoverError,
    Host,
    Request,
    Site,
    Unit,
    hand_over,
)
from ansible_collections.flaskworks.server.plugins.module_utils.listeners import Listener
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

PORTS = (80, 443)
HELLO = Site("hello.example.org", 80, 443, "/etc/flask/tls/hello/fullchain.pem")


@dataclass
class Daemon:
    """A unit of the played host."""

    state: str = "inactive"
    enabled: bool = False
    ports: tuple[int, ...] = PORTS
    starts: bool = True
    answers: Answer = field(default_factory=lambda: Answer(200))
    drains: float = 0.0  # seconds until it has ended after it let go of its ports
    stubborn: bool = False  # holds its ports when it is asked to let go


class Played(Host):
    """A host with units and a clock of its own."""

    def __init__(self, ours: Sequence[str] = (), **daemons: Daemon) -> None:
        self.daemons = {f"{name}.service": daemon for name, daemon in daemons.items()}
        self.ours = ours
        self.time = 0.0
        self.ending: dict[str, float] = {}
        self.log: list[str] = []
        self.refuses = ""
        self.no_guard = False

    def clock(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds

    def run(self, *command: str, **_patience: float | None) -> tuple[int, str]:
        words = [word for word in command if not word.startswith("--")]
        if words[0] == "systemd-run":
            self.log.append("guard")
            return (1, "Failed to connect to bus") if self.no_guard else (0, "")
        if words[0] == "journalctl":
            return 0, "the journal's last lines"
        if words[0] == "check-nginx":
            return (1, self.refuses) if self.refuses else (0, "")
        verb, units = words[1], words[2:]
        if verb == "stop" and units[0].startswith("flaskworks-handover-"):
            self.log.append("no guard")
            return 0, ""
        if verb != "reset-failed":
            self.log.append(f"{verb} {' '.join(units)}")
        for name in units:
            daemon = self.daemons[name]
            if verb == "stop":
                daemon.state = "inactive"
                self.ending.pop(name, None)
            elif verb == "start" and not daemon.starts:
                daemon.state = "failed"
                return 1, "Job failed."
            elif verb == "start":
                daemon.state = "active"
            elif verb in ("enable", "disable"):
                daemon.enabled = verb == "enable"
            elif verb in ("reload", "restart") and not daemon.stubborn:
                daemon.ports = PORTS
        return 0, ""

    def units(self, names: Sequence[str]) -> dict[str, Unit]:
        found = {}
        for name in names:
            daemon = self.daemons[name]
            if self.ending.get(name, self.time + 1) <= self.time:
                daemon.state = "inactive"
            found[name] = Unit(
                name,
                active=daemon.state == "active",
                ended=daemon.state in ("inactive", "failed"),
                enabled=daemon.enabled,
                main=7 if daemon.state == "active" else 0,
            )
        return found

    def is_ours(self, unit: str) -> bool:
        return unit in self.ours

    def holders(self, ports: Sequence[int]) -> list[Listener]:
        return [
            Listener(port, ("0.0.0.0",), 7, name.partition(".")[0], name)
            for port in ports
            for name, daemon in self.daemons.items()
            if daemon.state == "active" and name not in self.ending and port in daemon.ports
        ]

    def packaged(self, found: Sequence[Listener]) -> list[Listener]:
        return list(found)

    def taken(self, ports: Sequence[int]) -> set[int]:
        return {one.port for one in self.holders(ports)}

    def signal(self, _pid: int, number: int) -> None:
        (name,) = [name for name, daemon in self.daemons.items() if daemon.state == "active"]
        self.log.append(f"{signal.Signals(number).name} {name}")
        if not self.daemons[name].stubborn:
            self.ending[name] = self.time + self.daemons[name].drains

    def ask(self, _site: Site, _tls: bool) -> Answer:
        serving = [
            daemon
            for name, daemon in self.daemons.items()
            if daemon.state == "active" and name not in self.ending
        ]
        return serving[0].answers if serving else Answer(None, "no answer (Connection refused)")

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        yield


def nginx(ports: tuple[int, ...] = PORTS, take_over: bool = False) -> Request:
    return Request("nginx.service", ports, (HELLO,), ("check-nginx",), take_over)


BOTH = ("nginx.service", "apache2.service")


def test_a_proxy_that_serves_is_left_alone() -> None:
    host = Played(BOTH, nginx=Daemon("active", True), apache2=Daemon())
    outcome = hand_over(host, nginx())
    assert (outcome.changed, host.log) == (False, [])


def test_the_first_start() -> None:
    host = Played(("nginx.service",), nginx=Daemon())
    outcome = hand_over(host, nginx())
    assert host.log == ["start nginx.service", "enable nginx.service"]
    assert (outcome.started, outcome.enabled, outcome.stopped, outcome.gap) == (True, True, [], None)


def test_a_start_that_fails_is_told_with_the_journal() -> None:
    host = Played(("nginx.service",), nginx=Daemon(starts=False))
    with pytest.raises(
        HandoverError, match=r"^nginx.service does not start: Job failed.\nthe journal's last lines$"
    ):
        hand_over(host, nginx())


def test_a_handover_starts_the_new_one_while_the_old_one_still_drains() -> None:
    host = Played(BOTH, nginx=Daemon(), apache2=Daemon("active", True, drains=3.0))
    outcome = hand_over(host, nginx())
    assert host.log == [
        "guard",
        "SIGWINCH apache2.service",
        "start nginx.service",
        "no guard",
        "enable nginx.service",
        "disable apache2.service",
    ]
    assert (outcome.gap, outcome.stopped) == (0.0, ["apache2.service"])
    assert outcome.told == "nginx.service took over from apache2.service within 0.00 s"
    assert 3.0 <= host.time < 3.1


def test_the_way_back_uses_the_words_of_nginx() -> None:
    host = Played(BOTH, nginx=Daemon("active", True), apache2=Daemon())
    hand_over(host, Request("apache2.service", PORTS, (HELLO,)))
    assert host.log[1] == "SIGQUIT nginx.service"


def test_one_that_goes_on_with_a_request_for_too_long_is_stopped_behind_the_new_one() -> None:
    host = Played(BOTH, nginx=Daemon(), apache2=Daemon("active", True, drains=99.0))
    hand_over(host, nginx())
    assert host.log[-1] == "stop apache2.service"
    assert 10.0 <= host.time < 10.1


def test_one_that_keeps_its_ports_is_stopped() -> None:
    host = Played(BOTH, nginx=Daemon(), apache2=Daemon("active", True, stubborn=True))
    hand_over(host, nginx())
    assert host.log[1:4] == ["SIGWINCH apache2.service", "stop apache2.service", "start nginx.service"]


def test_a_configuration_that_is_refused_stops_nobody() -> None:
    host = Played(BOTH, nginx=Daemon(), apache2=Daemon("active", True))
    host.refuses = "unknown directive"
    with pytest.raises(HandoverError) as caught:
        hand_over(host, nginx())
    assert str(caught.value) == (
        "nginx.service was not started, because 'check-nginx' refuses its configuration (exit code 1); "
        "apache2.service still serves:\nunknown directive"
    )
    assert host.log == []


def test_without_a_guard_nobody_is_stopped() -> None:
    host = Played(BOTH, nginx=Daemon(), apache2=Daemon("active", True))
    host.no_guard = True
    with pytest.raises(HandoverError, match="so nothing was stopped or started: Failed to connect to bus"):
        hand_over(host, nginx())
    assert host.daemons["apache2.service"].state == "active"


def test_a_new_one_that_does_not_start_gives_way_to_the_old_one() -> None:
    host = Played(BOTH, nginx=Daemon(starts=False), apache2=Daemon("active", True, drains=2.0))
    with pytest.raises(HandoverError) as caught:
        hand_over(host, nginx())
    assert str(caught.value) == (
        "nginx.service could not take over from apache2.service: Job failed.\nthe journal's last lines\n"
        "apache2.service serves again as before and nginx.service is stopped; correct that and run again"
    )
    assert host.daemons["apache2.service"] == Daemon("active", True, drains=2.0)
    assert host.daemons["nginx.service"].enabled is False


def test_a_new_one_that_answers_worse_gives_way_to_the_old_one() -> None:
    host = Played(BOTH, nginx=Daemon(answers=Answer(502)), apache2=Daemon("active", True))
    with pytest.raises(HandoverError) as caught:
        hand_over(host, nginx())
    assert str(caught.value).startswith(
        "nginx.service could not take over from apache2.service: http://hello.example.org/ gives status 502, "
        "and gave status 200 before; https://hello.example.org/ gives status 502, and gave status 200 "
        "before\n"
    )
    assert host.daemons["apache2.service"].state == "active"


def test_an_app_that_was_down_before_is_no_fault_of_the_new_one() -> None:
    down = Answer(502)
    host = Played(BOTH, nginx=Daemon(answers=down), apache2=Daemon("active", True, answers=down))
    assert hand_over(host, nginx()).started


def test_when_neither_starts_the_sentence_says_so() -> None:
    host = Played(BOTH, nginx=Daemon(starts=False), apache2=Daemon("active", True, starts=False))
    with pytest.raises(HandoverError) as caught:
        hand_over(host, nginx())
    assert str(caught.value).endswith(
        "apache2.service could not be started again either: Job failed.. Nothing serves the sites of this "
        "host; "
        "'systemctl restart apache2.service' on the host begins anew"
    )


def test_a_run_that_was_killed_before_the_end_is_completed() -> None:
    host = Played(BOTH, nginx=Daemon("active"), apache2=Daemon("inactive", True))
    outcome = hand_over(host, nginx())
    assert host.log == ["enable nginx.service", "disable apache2.service"]
    assert (outcome.changed, outcome.started, outcome.stopped) == (True, False, ["apache2.service"])


def test_a_stranger_is_not_stopped_unasked() -> None:
    host = Played(("nginx.service",), nginx=Daemon(), caddy=Daemon("active", True))
    with pytest.raises(HandoverError) as caught:
        hand_over(host, nginx())
    assert str(caught.value) == (
        "ports 80, 443 are held by caddy (process 7, caddy.service), where nginx is to serve the sites; "
        "nothing was "
        "stopped or started: stop it ('systemctl disable --now caddy.service'), or have the play stop and "
        "disable it "
        "(-e flask_ports_conflict=take_over), or give the sites other ports (flask_defaults.ports)"
    )
    assert host.log == []


def test_a_stranger_is_stopped_disabled_and_named_when_that_was_asked_for() -> None:
    host = Played(("nginx.service",), nginx=Daemon(), caddy=Daemon("active", True))
    outcome = hand_over(host, nginx(take_over=True))
    assert host.log == [
        "guard",
        "stop caddy.service",
        "start nginx.service",
        "no guard",
        "enable nginx.service",
        "disable caddy.service",
    ]
    assert outcome.stopped == ["caddy.service"]
    (warning,) = outcome.warnings
    assert warning == (
        "ports 80, 443 are held by caddy (process 7, caddy.service): caddy.service was stopped and "
        "disabled, because flask_ports_conflict is take_over; 'systemctl enable --now caddy.service' "
        "takes that back"
    )


def test_a_stranger_serves_again_when_the_new_one_does_not_start() -> None:
    host = Played(("nginx.service",), nginx=Daemon(starts=False), caddy=Daemon("active", True))
    with pytest.raises(HandoverError, match=r"caddy\.service serves again as before"):
        hand_over(host, nginx(take_over=True))
    assert host.daemons["caddy.service"] == Daemon("active", True)


def test_a_running_proxy_gets_a_port_from_a_stranger() -> None:
    host = Played(
        ("nginx.service",),
        nginx=Daemon("active", True, ports=(80,)),
        caddy=Daemon("active", True, ports=(443,)),
    )
    outcome = hand_over(host, nginx(take_over=True))
    assert host.log == [
        "guard",
        "stop caddy.service",
        "reload nginx.service",
        "no guard",
        "disable caddy.service",
    ]
    assert (outcome.started, outcome.stopped) == (False, ["caddy.service"])


def test_a_running_apache_learns_all_at_a_start_alone() -> None:
    host = Played(
        ("apache2.service",),
        apache2=Daemon("active", True, ports=(443,)),
        caddy=Daemon("active", True, ports=(80,)),
    )
    hand_over(host, Request("apache2.service", PORTS, (HELLO,), take_over=True))
    assert host.log == [
        "guard",
        "stop caddy.service",
        "restart apache2.service",
        "no guard",
        "disable caddy.service",
    ]


def test_a_port_that_two_hold_is_not_the_proxys() -> None:
    """One has it for IPv4, the other for IPv6."""
    host = Played(("nginx.service",), nginx=Daemon("active", True), caddy=Daemon("active", True, ports=(80,)))
    with pytest.raises(HandoverError, match=r"^port 80 is held by caddy "):
        hand_over(host, nginx())
    hand_over(host, nginx(take_over=True))
    assert host.log == [
        "guard",
        "stop caddy.service",
        "reload nginx.service",
        "no guard",
        "disable caddy.service",
    ]


def test_a_running_proxy_is_told_of_a_port_that_became_free() -> None:
    host = Played(("nginx.service",), nginx=Daemon("active", True, ports=(80,)))
    hand_over(host, nginx())
    assert host.log == ["reload nginx.service"]


def test_a_running_proxy_that_does_not_listen_is_told() -> None:
    host = Played(("nginx.service",), nginx=Daemon("active", True, ports=(80,), stubborn=True))
    with pytest.raises(HandoverError, match=r"^nginx.service runs and does not listen on port 443;"):
        hand_over(host, nginx())


def test_check_mode_tells_and_touches_nothing() -> None:
    host = Played(BOTH, nginx=Daemon(), apache2=Daemon("active", True))
    outcome = hand_over(host, nginx(), check_mode=True)
    assert (outcome.changed, outcome.started, outcome.enabled) == (True, True, True)
    assert (outcome.stopped, host.log) == (["apache2.service"], [])


@pytest.mark.parametrize(
    ("answer", "before", "verdict"),
    [
        (Answer(200), None, True),
        (Answer(502), None, True),
        (Answer(308), Answer(308), True),
        (Answer(429), Answer(200), True),
        (Answer(403), Answer(200), False),
        (Answer(403), Answer(403), True),
        (Answer(403), Answer(400), True),
        (Answer(502), Answer(404), False),
        (Answer(503), Answer(404), False),
        (Answer(504), Answer(401), False),
        (Answer(500), Answer(404), True),
        (Answer(502), Answer(503), True),
        (Answer(503), Answer(503), True),
        (Answer(421), Answer(421), False),
        (Answer(200), Answer(421), True),
        (Answer(None, "no TLS (x)"), Answer(None, "no TLS (x)"), False),
        (Answer(None, "no answer in time"), Answer(200), False),
        (Answer(None, "no answer in time"), Answer(None, "no answer in time"), True),
        (Answer(None, "no answer in time"), None, True),
    ],
)
def test_an_answer_counts_against_what_it_was_before(
    answer: Answer, before: Answer | None, verdict: bool
) -> None:
    assert handover.good(answer, before) is verdict


def _key_pair(directory: Path, name: str) -> Path:
    """Write a self-signed pair into one file; return it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hello.example.org")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    path = directory / name
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(b"# ours\n" + made.public_bytes(serialization.Encoding.PEM) + private)
    return path


@contextlib.contextmanager
def _server(answer: bytes, pair: Path | None = None) -> Iterator[int]:
    """Answer one connection; yields the port."""
    with socket.create_server(("127.0.0.1", 0)) as here:

        def serve() -> None:
            with contextlib.suppress(OSError):
                connection, _address = here.accept()
                with connection:
                    if pair:
                        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                        context.load_cert_chain(pair)
                        with context.wrap_socket(connection, server_side=True) as secure:
                            secure.recv(4096)
                            secure.sendall(answer)
                    else:
                        connection.recv(4096)
                        connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield here.getsockname()[1]
        thread.join(10)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"HTTP/1.1 308 Permanent Redirect\r\n\r\n", "status 308"),
        (b"", "the end of the connection"),
        (b"SSH-2.0-OpenSSH_10.0\r\n", "something that is not HTTP"),
    ],
)
def test_a_site_is_asked_over_plain_http(answer: bytes, told: str) -> None:
    with _server(answer) as port:
        assert str(Host().ask(Site("hello.example.org", port, 1, ""), False)) == told


def test_a_site_that_does_not_listen_gives_no_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as here:
        port = here.getsockname()[1]
    assert Host().ask(Site("hello.example.org", port, 1, ""), False).fault.startswith("no answer (")


def test_a_site_is_asked_over_https_and_must_show_the_certificate_of_its_file(tmp_path: Path) -> None:
    pair, other = _key_pair(tmp_path, "one.pem"), _key_pair(tmp_path, "two.pem")
    with _server(b"HTTP/1.1 200 OK\r\n\r\n", pair) as port:
        assert Host().ask(Site("hello.example.org", 1, port, str(pair)), True) == Answer(200)
    with _server(b"HTTP/1.1 200 OK\r\n\r\n", pair) as port:
        assert Host().ask(Site("hello.example.org", 1, port, str(other)), True) == Answer(
            None, f"another certificate than {other}"
        )
