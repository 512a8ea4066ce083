"""The load generator counts what goes wrong: a server that does it on purpose, and literal records."""

from __future__ import annotations

import datetime
import http.server
import ipaddress
import math
import re
import socket
import ssl
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.load import Kind, Load, Record, Stall, Target, Versions
from tests.load.echo import Echo, Server
from tests.load.kinds import KINDS, repeated_checksum
from tests.load.records import Retirement, judge, stalled

KEPT = Kind("keep-alive", "/", clients=2, period=0.02)
FRESH = Kind("new connection", "/", clients=2, period=0.02, fresh=True)
POST = Kind("post", "/echo", clients=2, period=0.02, post=2000, echoed=True)
STATIC = Kind("static", "/static/release.txt", clients=1, period=0.02)
UPLOAD = Kind("upload", "/upload", clients=1, period=0.1, post=3_000_000, pace=0.1)
DOWNLOAD = Kind("download", "/download?bytes=3000000", clients=1, period=0.1, fetch=3_000_000, pace=0.1)


class Misbehaving(http.server.ThreadingHTTPServer):
    """Answers as the app under load does, until it is told to do something else to the next requests."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.release = "one"
        self.done: Counter[str] = Counter()
        self._orders: list[str] = []
        self._lock = threading.Lock()

    def order(self, *orders: str) -> None:
        """Do this to the next requests."""
        with self._lock:
            self._orders += orders

    def take(self, reused: bool) -> str:
        with self._lock:
            if self._orders and (reused or not self._orders[0].startswith("kept")):
                self.done[self._orders[0]] += 1
                return self._orders.pop(0)
            return ""

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that went away."""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Misbehaving
    asked = 0

    def do_GET(self) -> None:
        self.asked += 1
        path, query = urlsplit(self.path).path, parse_qs(urlsplit(self.path).query)
        length = int(self.headers.get("Content-Length", 0))
        sent = self.rfile.read(length)
        body = {
            "/": b"hello\n",
            "/echo": sent,
            "/static/release.txt": self.server.release.encode() + b"\n",
            "/upload": f"{length} {zlib.crc32(sent):08x}".encode(),
        }.get(path, b"")
        if path == "/download":
            block = bytes(range(256)) * 1024
            size = int(query["bytes"][0])
            body = (block * (size // len(block) + 1))[:size]
        self.answer(self.server.take(self.asked > 1), body, static=path.startswith("/static/"))

    do_POST = do_GET

    def answer(self, order: str, body: bytes, *, static: bool) -> None:
        if order in ("drop", "kept: drop"):
            self.close_connection = True
            return
        if order == "kept: reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            self.close_connection = True
            return
        if order == "late":
            time.sleep(2.5)
        if order == "hang":
            time.sleep(7)
        if order == "wrong":
            body = body[:-1] + b"?"
        self.send_response(502 if order == "502" else 200)
        if not static:
            self.send_header("X-Release", "old" if order == "old" else self.server.release)
        if order == "close":
            self.send_header("Connection", "close")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if order == "cut" else body)
        self.close_connection = order in ("cut", "close", "idle close")

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[Misbehaving]:
    made = Misbehaving()
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def target(server: Misbehaving, **settings: Any) -> Target:
    return Target("host", "127.0.0.1", "hello.example.org", server.server_address[1], **settings)


def obeyed(load: Load, server: Misbehaving, *orders: str) -> None:
    """Give these orders, wait until they are carried out, and for some good answers after that."""
    expected = server.done + Counter(orders)
    server.order(*orders)
    end = time.monotonic() + 60
    while server.done != expected:
        assert time.monotonic() < end, server.done
        time.sleep(0.01)
    load.wait({kind.name: 5 for kind in load.kinds}, load.mark(), limit=60)


def test_counts_nothing_but_good_answers_of_a_good_server(server: Misbehaving) -> None:
    kinds = [KEPT, FRESH, POST, STATIC, UPLOAD, DOWNLOAD]
    with Load([target(server)], kinds) as load:
        load.wait({kind.name: 3 for kind in kinds}, load.mark(), release="one", limit=60)
    verdict = load.verdict()
    assert (verdict.failed, verdict.stale) == (0, 0), verdict.explain()
    assert {row.kind for row in verdict.rows} == {kind.name for kind in kinds}
    assert verdict.requests == len(load.records())
    assert set(verdict.releases["host"]) == {"one"}


def test_stretches_transfers_over_their_time(server: Misbehaving) -> None:
    with Load([target(server)], [replace(UPLOAD, pace=0.3), replace(DOWNLOAD, pace=0.3)]) as load:
        load.wait({"upload": 2, "download": 2}, load.mark(), limit=60)
    assert all(record.seconds >= 0.28 for record in load.records())


@pytest.mark.parametrize(
    ("order", "kind", "told"),
    [
        ("502", KEPT, "502: "),
        ("502", POST, "502: "),
        ("wrong", POST, "a wrong body of 2000 bytes"),
        ("wrong", UPLOAD, "a wrong body of 16 bytes"),
        ("wrong", DOWNLOAD, "a wrong body of 3000000 bytes"),
        ("cut", KEPT, "200, closed after 3 of 6 bytes"),
        ("cut", DOWNLOAD, "200, closed after 1500000 of 3000000 bytes"),
        ("drop", FRESH, "closed without an answer"),
        ("drop", UPLOAD, "closed"),
    ],
)
def test_counts_what_fails(server: Misbehaving, order: str, kind: Kind, told: str) -> None:
    with Load([target(server)], [replace(kind, fresh=True)]) as load:
        load.wait({kind.name: 1}, load.mark(), limit=60)
        obeyed(load, server, order, order)
    verdict = load.verdict()
    assert (verdict.failed, verdict.stale) == (2, 0), verdict.explain()
    assert all(told in fault.why for fault in verdict.faults if fault.fault == "failed"), verdict.explain()


def test_counts_what_is_not_answered_in_time(server: Misbehaving) -> None:
    with Load([target(server)], [replace(FRESH, timeout=4.0)]) as load:
        obeyed(load, server, "hang")
    verdict = load.verdict()
    assert verdict.failed == 1, verdict.explain()
    assert [fault.why for fault in verdict.faults] == ["no whole answer within 4 s"]


def test_counts_refused_connections() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nobody = Target("host", "127.0.0.1", "hello.example.org", closed.getsockname()[1])
        with Load([nobody], [KEPT]) as load, pytest.raises(TimeoutError, match=r"0 of 1.*\n.*no connection"):
            load.wait({"keep-alive": 1}, load.mark(), limit=0.5)
    verdict = load.verdict()
    assert verdict.failed == verdict.requests > 0


@pytest.mark.parametrize("order", ["kept: drop", "kept: reset"])
def test_counts_kept_connections_that_are_closed_under_a_request(server: Misbehaving, order: str) -> None:
    with Load([target(server)], [KEPT, POST]) as load:
        obeyed(load, server, order, order, order)
    verdict = load.verdict()
    assert (verdict.failed, verdict.stale) == (0, 3), verdict.explain()
    assert all("kept connection closed under the request" in fault.why for fault in verdict.faults)


@pytest.mark.parametrize("order", ["close", "idle close"])
def test_does_not_mind_a_connection_that_is_closed_between_requests(server: Misbehaving, order: str) -> None:
    with Load([target(server)], [replace(KEPT, period=0.2)]) as load:
        obeyed(load, server, order, order)
    verdict = load.verdict()
    assert (verdict.failed, verdict.stale) == (0, 0), verdict.explain()


def test_counts_late_answers_as_slow(server: Misbehaving) -> None:
    with Load([target(server)], [KEPT, FRESH]) as load:
        load.wait({"keep-alive": 20, "new connection": 20}, load.mark(), limit=60)
        load.settle()
        obeyed(load, server, "late", "late", "late")
    verdict = load.verdict()
    assert verdict.failed == verdict.stale == 0, verdict.explain()
    # A machine that stood still meanwhile would excuse them, but they are noticed.
    late = [fault for fault in verdict.faults if fault.record.seconds >= 2.5]
    assert len(late) == 3
    assert verdict.slow + verdict.excused == len(verdict.faults) >= 3


def test_counts_answers_of_a_release_that_was_to_be_gone(server: Misbehaving) -> None:
    with Load([target(server)], [KEPT, POST]) as load:
        obeyed(load, server, "old")  # nobody said that it must not
        load.retire("old", after=0.0)
        obeyed(load, server, "old", "old")
        load.retire("old", after=600.0)  # the earlier word holds
        obeyed(load, server, "old")
        load.welcome("old")
        obeyed(load, server, "old")
    verdict = load.verdict()
    assert (verdict.failed, verdict.stale) == (0, 3), verdict.explain()
    assert all("answered by old" in fault.why for fault in verdict.faults if fault.fault == "stale")
    assert verdict.releases["host"]["old"] == 5


def test_waits_for_the_release_that_it_is_told(server: Misbehaving) -> None:
    with Load([target(server)], [KEPT, STATIC]) as load:
        begin = load.mark()
        load.wait({"keep-alive": 3, "static": 3}, begin, release="one", limit=60)
        with pytest.raises(TimeoutError, match="not enough answers of two"):
            load.wait({"keep-alive": 1}, begin, release="two", limit=0.3)
        server.release = "two"
        load.wait({"keep-alive": 3, "static": 3}, begin, release="two", limit=60)
    assert set(load.verdict(begin).releases["host"]) == {"one", "two"}


def test_judges_a_part_of_a_run(server: Misbehaving) -> None:
    with Load([target(server)], [replace(KEPT, clients=1)]) as load:
        obeyed(load, server, "502")
        middle = load.mark()
        # What was under way at the mark belongs to the part before it, and must not be what is told to fail.
        load.wait({"keep-alive": 1}, middle, limit=60)
        obeyed(load, server, "502", "502")
    assert load.verdict(until=middle).failed == 1
    assert load.verdict(since=middle).failed == 2


def test_ends_what_is_open_when_it_is_stopped(server: Misbehaving) -> None:
    with Load([target(server)], [replace(DOWNLOAD, period=600.0, pace=1.5), KEPT]) as load:
        load.wait({"keep-alive": 3}, load.mark(), limit=60)
    (download,) = [record for record in load.records() if record.kind == "download"]
    assert download.outcome == "ok"
    assert download.seconds >= 1.4


class _Sticky(Echo):
    """Keeps an answer back, once."""

    ordered = threading.Event()

    def handle(self) -> None:
        while received := self.request.recv(4096):
            if self.ordered.is_set():
                self.ordered.clear()
                time.sleep(1.5)
            self.request.sendall(received)


def test_measures_how_long_the_control_stood_still(server: Misbehaving) -> None:
    control = Server(("127.0.0.1", 0), _Sticky)
    threading.Thread(target=control.serve_forever, daemon=True).start()
    with Load([target(server, control=control.server_address[1])], [KEPT]) as load:
        load.wait({"keep-alive": 50}, load.mark(), limit=60)
        _Sticky.ordered.set()
        end = time.monotonic() + 60
        while load.verdict().longest_stall < 1.4:
            assert time.monotonic() < end
            time.sleep(0.05)
    control.shutdown()
    control.server_close()
    assert load.verdict().stalled["host"] >= 1.4


@dataclass(frozen=True)
class _Busy(Kind):
    """A kind that keeps the generator itself from working, once."""

    def body(self, number: int) -> bytes:
        if number == 3:
            time.sleep(1.0)
        return super().body(number)


def test_measures_its_own_stalls(server: Misbehaving) -> None:
    busy = _Busy("post", "/echo", clients=1, period=0.05, post=100, echoed=True)
    with Load([target(server)], [busy]) as load:
        load.wait({"post": 20}, load.mark(), limit=60)
    assert load.verdict().longest_stall >= 0.9


def test_speaks_tls_and_checks_who_answers(server: Misbehaving, tmp_path: Path) -> None:
    pair, stranger = certificate(tmp_path, "hello.example.org"), certificate(tmp_path, "other.example.org")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    kinds = [KEPT, FRESH, POST, UPLOAD, DOWNLOAD]
    with Load([target(server, authority=str(pair))], kinds) as load:
        load.wait({kind.name: 2 for kind in kinds}, load.mark(), limit=60)
        obeyed(load, server, "kept: drop")
    verdict = load.verdict()
    assert (verdict.failed, verdict.stale) == (0, 1), verdict.explain()
    with Load([target(server, authority=str(stranger))], [FRESH]) as load, pytest.raises(TimeoutError):
        load.wait({"new connection": 1}, load.mark(), limit=0.5)
    assert load.verdict().failed == load.verdict().requests > 0


def certificate(directory: Path, name: str) -> Path:
    """Write a key and a certificate that signs itself into one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.DNSName(name), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
            ),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    path = directory / f"{name}.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path


# What follows needs no server: literal records.


def record(kind: str, start: float, end: float, **others: Any) -> Record:
    return Record("host", kind, start, end, **{"outcome": "ok", "release": "one", **others})


USUAL = [record("keep-alive", number, number + 0.1) for number in range(9)]


@pytest.mark.parametrize(("seconds", "slow"), [(1.0, 0), (1.09, 0), (1.11, 1), (5.0, 1)])
def test_slow_is_a_second_over_the_median(seconds: float, slow: int) -> None:
    verdict = judge([*USUAL, record("keep-alive", 20.0, 20.0 + seconds)], {})
    assert (verdict.slow, verdict.excused) == (slow, 0)


@pytest.mark.parametrize(
    ("stall", "slow", "excused"),
    [
        (Stall("host", 20.5, 21.5, 1.0), 0, 1),  # the request took 1.9 s: 0.8 s too long
        (Stall("host", 20.5, 21.5, 0.7), 1, 0),  # not enough
        (Stall("host", 19.0, 20.5, 1.4), 1, 0),  # only half a second of it was during the request
        (Stall("host", 30.0, 32.0, 2.0), 1, 0),  # at another time
        (Stall("other", 20.5, 21.5, 1.0), 1, 0),  # on another host
    ],
)
def test_only_a_stall_of_the_machine_excuses(stall: Stall, slow: int, excused: int) -> None:
    verdict = judge([*USUAL, record("keep-alive", 20.0, 21.9)], {}, [stall])
    assert (verdict.slow, verdict.excused) == (slow, excused)


def test_a_stall_excuses_no_failure() -> None:
    failed = record("keep-alive", 20.0, 21.0, outcome="failed", reason="502", release="")
    stale = record("keep-alive", 20.0, 21.0, outcome="stale", reason="closed", release="")
    verdict = judge([*USUAL, failed, stale], {}, [Stall("host", 19.0, 22.0, 3.0)])
    assert (verdict.failed, verdict.stale, verdict.slow, verdict.excused) == (1, 1, 0, 0)


def test_stalls_are_summed_as_far_as_they_overlap() -> None:
    stalls = [Stall("host", 0.0, 1.0, 1.0), Stall("host", 2.0, 4.0, 0.5), Stall("host", 5.0, 6.0, 1.0)]
    assert stalled(stalls, 0.75, 5.25) == pytest.approx(0.25 + 0.5 + 0.25)


def test_what_was_settled_stays_nominal() -> None:
    slower = [record("keep-alive", number, number + 3.0) for number in range(9)]
    assert judge(slower, {}).slow == 0
    assert judge(slower, {("host", "keep-alive"): 0.1}).slow == 9


def test_a_retired_release_is_stale_between_its_two_dates() -> None:
    gone = Retirement("host", "one", since=10.0, until=20.0)
    asked = [record("keep-alive", start, start + 0.1) for start in (9.9, 10.1, 19.8, 20.1)]
    assert judge(asked, {}, retirements=[gone]).stale == 2
    assert judge(asked, {}, retirements=[replace(gone, target="other")]).stale == 0
    # It began while the release was away, and reached it when it was back.
    assert judge([record("upload", 15.0, 20.5)], {}, retirements=[gone]).stale == 0
    assert judge(asked, {}, [Stall("host", 9.0, 11.0, 2.0)], [replace(gone, until=math.inf)]).stale == 2


def test_tells_the_figures() -> None:
    failed = record("post", 20.0, 20.5, outcome="failed", reason="502: 'Bad Gateway'", release="")
    verdict = judge([*USUAL, failed, record("keep-alive", 30.0, 35.0)], {}, [Stall("host", 1.0, 1.2, 0.15)])
    lines = verdict.table().splitlines()
    assert re.split(r"\s{2,}", lines[1])[:7] == ["host", "keep-alive", "10", "0", "0", "1", "0"]
    assert re.split(r"\s{2,}", lines[2])[:7] == ["host", "post", "1", "1", "0", "0", "0"]
    assert re.split(r"\s{2,}", lines[3]) == ["all", "11", "1", "0", "1", "0"]
    assert lines[4] == "stalls of the machine in all: host 0.15 s; longest 0.15 s"
    assert "failed  host post: 502: 'Bad Gateway'" in verdict.explain()
    figures = verdict.as_dict()
    assert (figures["requests"], figures["failed"], figures["stale"], figures["slow"]) == (11, 1, 0, 1)
    assert figures["kinds"][0]["longest"] == 5.0
    assert figures["releases"] == {"host": {"one": 10}}


def test_the_kinds_are_those_of_the_issue() -> None:
    by_name = {kind.name: kind for kind in KINDS}
    assert list(by_name) == ["keep-alive", "new connection", "post", "static", "3 s", "upload", "download"]
    assert (by_name["upload"].post, by_name["download"].fetch) == (100_000_000, 100_000_000)
    small = sum(kind.clients / kind.period for kind in KINDS if not kind.pace)
    assert 60 <= small <= 80


def test_knows_the_checksum_of_what_it_sends() -> None:
    block = bytes(range(256)) * 1024
    assert repeated_checksum(600_000) == zlib.crc32((block * 3)[:600_000])
    assert len({POST.body(number) for number in range(10)}) == 10
    assert {len(POST.body(number)) for number in range(10)} == {2000}


def test_writes_versions_of_the_app(tmp_path: Path) -> None:
    versions = Versions(tmp_path / "app")
    versions.write("two", broken="hang")
    text = (tmp_path / "app" / "src" / "loaded" / "version.py").read_text()
    assert text == "VERSION = 'two'\nBROKEN = 'hang'\n"
    assert (tmp_path / "app" / "src" / "loaded" / "static" / "release.txt").read_text() == "two\n"
