"""The same in HTTP/2, whose fields may hold what would be two lines in HTTP/1.1.

The proxy translates a request for the app, so whatever would say something else there is refused or dropped.
"""

from __future__ import annotations

import json
import ssl
import uuid
from collections.abc import Sequence

import hpack
import pytest
from ansible_collections.flaskworks.server.tests.acceptance.client import Answer, Client
from ansible_collections.flaskworks.server.tests.acceptance.expected import heard, secured, seen_by_app

Field = tuple[bytes, bytes]

DATA, HEADERS, RST_STREAM, SETTINGS, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 7, 8
ACK = END_STREAM = 1
END_HEADERS = 4
INITIAL_WINDOW_SIZE = 4


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    """Return a frame (RFC 9113, 4.1)."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def fields(
    path: bytes = b"/echo", method: bytes = b"GET", authority: bytes = b"hello.example.org"
) -> list[Field]:
    return [(b":method", method), (b":scheme", b"https"), (b":authority", authority), (b":path", path)]


class Exchange:
    """One request on a connection of its own, and what comes back."""

    def __init__(self, connection: ssl.SSLSocket, body: bytes) -> None:
        self._connection = connection
        self._arriving = connection.makefile("rb")
        self._unsent = body
        self._windows = {0: 65_535, 1: 65_535}
        self._initial = 65_535
        self._fields: list[tuple[str, str]] = []
        self._content = b""

    def begin(self, request: Sequence[Field]) -> None:
        flags = END_HEADERS | (0 if self._unsent else END_STREAM)
        block = hpack.Encoder().encode(list(request))
        self._connection.sendall(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS) + frame(HEADERS, flags, 1, block)
        )

    def answer(self) -> Answer | None:
        """Read the answer, and meanwhile send of the body what the other side wants."""
        try:
            while not self._step():
                pass
        except (OSError, EOFError):
            return None
        name, status = self._fields[0]
        assert name == ":status"
        return Answer(int(status), tuple(self._fields[1:]), self._content)

    def _step(self) -> bool:
        """Send and read one frame; True at the end of the answer."""
        while self._unsent and (size := min(16_384, len(self._unsent), *self._windows.values())) > 0:
            part, self._unsent = self._unsent[:size], self._unsent[size:]
            self._connection.sendall(frame(DATA, 0 if self._unsent else END_STREAM, 1, part))
            self._windows = {stream: window - size for stream, window in self._windows.items()}
        header = self._exactly(9)
        kind, flags, stream = header[3], header[4], int.from_bytes(header[5:], "big")
        payload = self._exactly(int.from_bytes(header[:3], "big"))
        if kind in (RST_STREAM, GOAWAY):
            raise EOFError
        if kind == SETTINGS and not flags & ACK:
            for start in range(0, len(payload), 6):
                if int.from_bytes(payload[start : start + 2], "big") == INITIAL_WINDOW_SIZE:
                    told = int.from_bytes(payload[start + 2 : start + 6], "big")
                    self._windows[1] += told - self._initial
                    self._initial = told
            self._connection.sendall(frame(SETTINGS, ACK))
        if kind == WINDOW_UPDATE:
            self._windows[stream] += int.from_bytes(payload, "big")
        if kind == HEADERS:
            assert flags & END_HEADERS
            decoded = hpack.Decoder().decode(payload)
            self._fields += [(str(name), str(value)) for name, value in decoded]
        if kind == DATA:
            self._content += payload
        return kind in (HEADERS, DATA) and bool(flags & END_STREAM)

    def _exactly(self, length: int) -> bytes:
        data = self._arriving.read(length)
        if len(data) < length:
            raise EOFError
        return data


def exchange(client: Client, request: Sequence[Field], body: bytes = b"") -> Answer | None:
    """Send one request of these fields, in their order; None when it is refused without an answer."""
    with client.connect(alpn=("h2",)) as connection:
        assert connection.selected_alpn_protocol() == "h2"
        begun = Exchange(connection, body)
        begun.begin(request)
        return begun.answer()


def answered(client: Client, request: Sequence[Field], body: bytes = b"") -> Answer:
    answer = exchange(client, request, body)
    assert answer is not None
    return answer


@pytest.mark.parametrize("path", [b"/page", b"/static/style.css", b"/static/.secret", b"/no-such-page"])
def test_answers_are_secured_and_tell_no_version(client: Client, path: bytes) -> None:
    answer = answered(client, fields(path))
    assert answer.status == {b"/page": 200, b"/static/style.css": 200}.get(path, 404)
    secured(answer)
    assert answer.one("X-Request-ID")
    assert answer.all("Server") == {"nginx": [], "apache": ["Apache"]}[client.proxy]


def test_the_app_learns_the_truth(client: Client) -> None:
    with client.connect() as connection:
        own_address = connection.getsockname()[0]
    spoofed = [
        (b"x-forwarded-for", b"203.0.113.66"),
        (b"x_forwarded_for", b"203.0.113.66"),
        (b"x-forwarded-host", b"evil.example.com"),
        (b"x-forwarded-proto", b"http"),
        (b"x-forwarded-prefix", b"/evil"),
        (b"x-real-ip", b"203.0.113.66"),
        (b"forwarded", b"for=203.0.113.66"),
        (b"proxy", b"http://evil.example.com"),
        (b"x-client-subject", b"CN=evil"),
        (b"x-request-id", b"evil"),
    ]
    answer = answered(client, [*fields(authority=b"HELLO.example.org:443"), *spoofed])
    seen = seen_by_app(answer)
    assert {name: value for name, value in seen.items() if name.startswith(("HTTP_X_", "HTTP_HOST"))} == {
        "HTTP_HOST": "hello.example.org",
        "HTTP_X_FORWARDED_FOR": own_address,
        "HTTP_X_FORWARDED_HOST": "hello.example.org",
        "HTTP_X_FORWARDED_PORT": "443",
        "HTTP_X_FORWARDED_PROTO": "https",
        "HTTP_X_REAL_IP": own_address,
        "HTTP_X_REQUEST_ID": answer.one("X-Request-ID"),
    }
    assert [value for value in seen.values() if "evil" in value or "203.0.113." in value] == []


class TestNames:
    @pytest.mark.parametrize(
        "authority",
        [
            b"evil.example.com",
            b"unknown.example.org",
            b"",
            b"evil.example.com@hello.example.org",
            b"hello.example.org@evil.example.com",
            b"hello.example.org/evil",
            b"hello.example.org evil",
            b"hello.example.org\r\nx-evil: yes",
        ],
    )
    def test_those_that_no_site_has_are_refused(self, client: Client, authority: bytes) -> None:
        answer = exchange(client, fields(authority=authority))
        assert answer is None or answer.status in (400, 403, 421)

    @pytest.mark.parametrize("host", [b"evil.example.com", b"hello.example.org"])
    def test_a_host_beside_it_counts_nothing(self, client: Client, host: bytes) -> None:
        answer = exchange(client, [*fields(), (b"host", host)])
        assert (
            answer is None or answer.status == 400 or seen_by_app(answer)["HTTP_HOST"] == "hello.example.org"
        )

    def test_without_one_nobody_is_asked(self, client: Client) -> None:
        answer = exchange(client, [field for field in fields() if field[0] != b":authority"])
        assert answer is None or answer.status in (400, 403, 421)


class TestHiddenRequests:
    """Whatever a field holds, the app hears one request, or none."""

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            (b"x-evil", b"a\r\nx-forwarded-for: 203.0.113.66"),
            (b"x-evil", b"a\nx-forwarded-for: 203.0.113.66"),
            (b"x-evil", b"a\rx-forwarded-for: 203.0.113.66"),
            (b"x-evil", b"a\x00b"),
            (b"x-evil", b"a\r\n\r\nGET /echo/WORD HTTP/1.1\r\nHost: hello.example.org\r\n\r\n"),
            (b"x-evil: a\r\nx-more", b"b"),
            (b"x-evil\r\n\r\nGET /echo/WORD HTTP/1.1\r\nHost: hello.example.org\r\nX", b"b"),
            (b"x evil", b"a"),
            (b"x-evil:", b"a"),
            (b"X-EVIL", b"a"),
            (b"", b"a"),
            (b":x-evil", b"a"),
            (b":path", b"/echo/WORD"),
            (b":method", b"POST"),
            (b"transfer-encoding", b"chunked"),
            (b"connection", b"x-forwarded-for, host"),
            (b"keep-alive", b"timeout=5"),
            (b"upgrade", b"h2c"),
            (b"te", b"gzip, chunked"),
        ],
    )
    def test_fields_that_are_more_than_that_are_refused_or_dropped(
        self, client: Client, name: bytes, value: bytes
    ) -> None:
        word = uuid.uuid4().hex.encode()
        answer = exchange(client, [*fields(), (name.replace(b"WORD", word), value.replace(b"WORD", word))])
        if answer is not None and answer.status not in (400, 501):
            seen = seen_by_app(answer)
            assert "203.0.113." not in " ".join(seen.values())
            assert {"HTTP_X_EVIL", "HTTP_X_MORE", "HTTP_TRANSFER_ENCODING", "HTTP_UPGRADE"} & set(
                seen
            ) == set()
            assert seen["HTTP_X_FORWARDED_HOST"] == "hello.example.org"
        assert heard(client, word.decode()) == 0

    @pytest.mark.parametrize(
        "path",
        [
            b"/echo HTTP/1.1\r\nX-Evil: yes\r\nX: /WORD",
            b"/echo\r\n\r\nGET /echo/WORD HTTP/1.1\r\nHost: hello.example.org\r\n\r\n",
            b"/echo\n/WORD",
            b"/echo\x00/WORD",
            b"",
            b"echo/WORD",
            b"https://evil.example.com/echo/WORD",
        ],
    )
    def test_paths_that_are_more_than_that_are_refused(self, client: Client, path: bytes) -> None:
        word = uuid.uuid4().hex.encode()
        answer = exchange(client, fields(path.replace(b"WORD", word)))
        assert answer is None or answer.status in (400, 403, 404, 421)
        assert answer is None or b"environ" not in answer.body
        assert heard(client, word.decode()) == 0

    @pytest.mark.parametrize(
        "method",
        [b"GET /echo/WORD HTTP/1.1\r\nX:", b"GET\r\n", b"GE T", b"", b"CONNECT", b"TRACE", b"get\x00"],
    )
    def test_methods_that_are_none_are_refused(self, client: Client, method: bytes) -> None:
        word = uuid.uuid4().hex.encode()
        answer = exchange(client, fields(b"/echo/" + word, method.replace(b"WORD", word)))
        assert answer is None or answer.status in (400, 403, 404, 405, 501)
        assert heard(client, word.decode()) == 0

    @pytest.mark.parametrize("length", [b"0", b"3", b"6", b"5000", b"+5", b"5, 5", b"x"])
    def test_lengths_that_are_not_that_of_the_body_are_refused(self, client: Client, length: bytes) -> None:
        word = uuid.uuid4().hex.encode()
        request = [*fields(b"/echo/" + word, b"POST"), (b"content-length", length)]
        answer = exchange(client, request, b"hello")
        if answer is not None and answer.status == 200:  # said before the body has come
            assert (length, json.loads(answer.body)["body"]) == (b"0", 0)
        else:
            assert answer is None or answer.status in (400, 413)


class TestBodies:
    """The limit of the site is 65536 bytes. Apache takes no body whose length it is not told (411)."""

    def test_those_with_a_length_arrive(self, client: Client) -> None:
        answer = answered(client, [*fields(method=b"POST"), (b"content-length", b"5000")], b"x" * 5000)
        assert (answer.status, json.loads(answer.body)["body"]) == (200, 5000)

    def test_those_without_one_arrive(self, client: Client) -> None:
        answer = answered(client, fields(method=b"POST"), b"x" * 5000)
        if client.proxy == "nginx":
            assert (answer.status, json.loads(answer.body)["body"]) == (200, 5000)
        else:
            assert answer.status == 411

    @pytest.mark.parametrize("method", [b"POST", b"PUT", b"DELETE", b"GET"])
    @pytest.mark.parametrize("told", [True, False], ids=["told", "not told"])
    def test_longer_ones_are_refused(self, client: Client, method: bytes, told: bool) -> None:
        word = uuid.uuid4().hex.encode()
        length = [(b"content-length", b"500000")] if told else []
        answer = answered(client, [*fields(b"/echo/" + word, method), *length], b"x" * 500_000)
        assert answer.status == (411 if client.proxy == "apache" and not told else 413)
        assert heard(client, word.decode()) == 0
