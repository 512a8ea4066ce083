"""Heads and bodies that are too large, and clients that are too slow."""

from __future__ import annotations

import json
import socket
import time
import uuid
from contextlib import ExitStack, suppress

import pytest
from ansible_collections.flaskworks.server.tests.acceptance.client import Client
from ansible_collections.flaskworks.server.tests.acceptance.expected import heard

HOST = b"Host: hello.example.org\r\n"


class TestHeads:
    def test_long_addresses_pass(self, client: Client) -> None:
        target = f"/echo/{'x' * 3900}"
        assert json.loads(client.ask(target).body)["target"] == target

    @pytest.mark.parametrize("length", [16_384, 100_000])
    @pytest.mark.parametrize("path", ["/echo", "/static/style.css"])
    def test_longer_ones_are_refused(self, client: Client, path: str, length: int) -> None:
        assert client.ask(f"{path}?{'x' * length}").status == 414

    def test_long_headers_pass(self, client: Client) -> None:
        cookie = f"session={'x' * 7900}"
        answer = client.ask("/echo", headers=[("Cookie", cookie)])
        assert json.loads(answer.body)["environ"]["HTTP_COOKIE"] == cookie

    @pytest.mark.parametrize("length", [16_384, 100_000])
    def test_longer_ones_are_refused_without_being_shown(self, client: Client, length: int) -> None:
        answer = client.ask("/echo", headers=[("Cookie", f"secret={'x' * length}")])
        assert answer.status in (400, 431)
        assert b"secret" not in answer.body

    def test_too_many_headers_are_refused(self, client: Client) -> None:
        word = uuid.uuid4().hex
        headers = [(f"X-Header-{number}", "x" * 50) for number in range(1000)]
        assert client.ask(f"/echo/{word}", headers=headers).status in (400, 431)
        assert heard(client, word) == 0


class TestBodies:
    """413, whatever way the body comes and whoever would get it; the limit of the site is 65536 bytes.

    Apache takes no body whose length it is not told (411).
    """

    @staticmethod
    def chunked(target: str, body: bytes) -> bytes:
        chunks = b"".join(
            b"%x\r\n%b\r\n" % (len(part), part)
            for part in (body[start : start + 5000] for start in range(0, len(body), 5000))
        )
        return (
            f"POST {target} HTTP/1.1\r\n".encode()
            + HOST
            + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
            + chunks
            + b"0\r\n\r\n"
        )

    def test_chunks_up_to_the_limit_pass(self, client: Client) -> None:
        answer = client.send(self.chunked("/echo", b"x" * 65536), method="POST")
        if client.proxy == "nginx":
            assert (answer.status, json.loads(answer.body)["body"]) == (200, 65536)
        else:
            assert answer.status == 411

    @pytest.mark.parametrize("target", ["/echo", "/static/app/x", "/status/200"])
    @pytest.mark.parametrize("size", [65537, 500_000])
    def test_chunks_above_it_are_refused(self, client: Client, target: str, size: int) -> None:
        answer = client.send(self.chunked(target, b"x" * size), method="POST")
        assert answer.status == {"nginx": 413, "apache": 411}[client.proxy]

    @pytest.mark.parametrize("target", ["/echo", "/static/app/x", "/status/200"])
    @pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "GET"])
    def test_lengths_above_it_are_refused(self, client: Client, method: str, target: str) -> None:
        assert client.ask(target, method=method, body=b"x" * 65537).status == 413

    def test_the_app_hears_nothing_of_them(self, client: Client) -> None:
        word = uuid.uuid4().hex
        assert client.ask(f"/echo/{word}", method="POST", body=b"x" * 65537).status == 413
        assert heard(client, word) == 0

    def test_who_asks_before_sending_is_told_to_go_on(self, client: Client) -> None:
        with client.talk() as conversation:
            conversation.send(
                b"POST /echo HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\nExpect: 100-continue\r\n"
                b"Connection: close\r\n\r\n"
            )
            assert conversation.read(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
            conversation.send(b"hello")
            assert json.loads(conversation.answer("POST").body)["body"] == 5


def still_open(connection: socket.socket) -> bool:
    """Tell whether nothing has come yet, neither an answer nor the end."""
    connection.setblocking(False)
    try:
        connection.recv(1)
    except (BlockingIOError, InterruptedError):
        return True
    except OSError as error:
        return type(error).__name__ == "SSLWantReadError"
    return False


class TestSlowClients:
    def test_hundreds_of_them_keep_nobody_out(self, client: Client) -> None:
        """Half a head each, over TLS and without, and some that do not even shake hands."""
        with ExitStack() as opened:
            slow: list[socket.socket] = []
            for number in range(300):
                if number % 3 == 0:
                    connection: socket.socket = opened.enter_context(client.connect())
                else:
                    connection = opened.enter_context(
                        socket.create_connection((client.address, (443, 80)[number % 2]), timeout=15)
                    )
                if number % 3 == 0 or number % 2:
                    connection.sendall(b"GET /slow-head HTTP/1.1\r\n" + HOST + b"X-A: ")
                slow.append(connection)
            assert client.ask("/release").status == 200
            assert client.ask("/static/style.css").status == 200
            assert still_open(slow[-1]), "the others were answered only after the slow ones were cut"

    def test_slow_bodies_occupy_no_app(self, client: Client) -> None:
        """The app has eight threads; there are more clients that send the beginning of a form."""
        with ExitStack() as opened:
            slow = [opened.enter_context(client.connect()) for _ in range(24)]
            for connection in slow:
                connection.sendall(
                    b"POST /echo HTTP/1.1\r\n" + HOST + b"Content-Length: 60000\r\n\r\n" + b"x" * 1000
                )
            assert client.ask("/release").status == 200
            assert still_open(slow[-1])

    def test_heads_that_never_end_are_cut(
        self, client: Client, begun_early: dict[str, list[socket.socket]]
    ) -> None:
        """However busily they drip: what counts is the time for all of it."""
        _silent, *dripping = begun_early[client.address]
        end = time.monotonic() + 300
        while any(still_open(connection) for connection in begun_early[client.address]):
            assert time.monotonic() < end, "still open after five minutes"
            time.sleep(0.2)
            for connection in dripping:
                connection.settimeout(15)
                with suppress(OSError):
                    connection.sendall(b"X-A: b\r\n")
