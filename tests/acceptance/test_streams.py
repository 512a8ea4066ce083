"""WebSockets, events, downloads, clients and apps that hang up, and old HTTP.

Order is told by flags in the app, not by time: what must come first is read before the flag is raised.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import os
import ssl
import time
import uuid

import pytest
from ansible_collections.flaskworks.server.tests.acceptance.client import Client, Conversation
from ansible_collections.flaskworks.server.tests.acceptance.expected import secured


class TestWebSockets:
    OPENING = (
        b"GET /websocket HTTP/1.1\r\nHost: hello.example.org\r\nOrigin: https://hello.example.org\r\n"
        b"Upgrade: %b\r\nConnection: %b\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )

    @staticmethod
    def frame(kind: int, data: bytes) -> bytes:
        """Return a masked frame, as clients send them (RFC 6455, 5.2)."""
        mask = os.urandom(4)
        size = bytes([0x80 | len(data)]) if len(data) < 126 else b"\xfe" + len(data).to_bytes(2, "big")
        masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(data))
        return bytes([0x80 | kind]) + size + mask + masked

    @staticmethod
    def next_frame(conversation: Conversation) -> tuple[int, bytes]:
        """Read the next frame that is no ping."""
        while True:
            kind, length = conversation.read(2)
            if length == 126:
                length = int.from_bytes(conversation.read(2), "big")
            data = conversation.read(length)
            if kind & 0x0F != 9:
                return kind & 0x0F, data

    @pytest.mark.parametrize(
        ("upgrade", "connection"),
        [(b"websocket", b"Upgrade"), (b"WebSocket", b"keep-alive, Upgrade"), (b"websocket", b"upgrade")],
    )
    def test_messages_go_to_and_fro(self, client: Client, upgrade: bytes, connection: bytes) -> None:
        with client.talk() as conversation:
            conversation.send(self.OPENING % (upgrade, connection))
            opened = conversation.head()
            assert opened.status == 101
            assert opened.headers["Upgrade"] == "websocket"
            # The answer to this key in RFC 6455, 1.3.
            assert opened.headers["Sec-WebSocket-Accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
            for message in (b"first", b"second", b"x" * 20_000):
                conversation.send(self.frame(1, message))
                assert self.next_frame(conversation) == (1, message)
            conversation.send(self.frame(8, b"\x03\xe8"))
            assert self.next_frame(conversation) == (8, b"\x03\xe8")
            assert conversation.rest() == b""

    def test_many_are_open_at_once(self, client: Client) -> None:
        with client.talk() as one, client.talk() as other:
            for conversation in (one, other):
                conversation.send(self.OPENING % (b"websocket", b"Upgrade"))
                assert conversation.head().status == 101
            for conversation, message in ((one, b"a"), (other, b"b"), (one, b"c")):
                conversation.send(self.frame(2, message))
                assert self.next_frame(conversation) == (2, message)


class TestEvents:
    @pytest.mark.parametrize("accepted", ["identity", "gzip"])
    def test_each_event_arrives_before_the_next_is_made(self, client: Client, accepted: str) -> None:
        flag = uuid.uuid4().hex
        with client.talk() as conversation:
            conversation.send(
                f"GET /events/{flag} HTTP/1.1\r\nHost: hello.example.org\r\nAccept: text/event-stream\r\n"
                f"Accept-Encoding: {accepted}\r\n\r\n".encode()
            )
            stream = conversation.head()
            assert stream.headers["Content-Type"] == "text/event-stream"
            assert stream.headers["Content-Encoding"] is None
            assert stream.readline() == b"data: first\n"
            assert client.ask(f"/flag/{flag}").body == b"False"
            client.ask(f"/raise/{flag}")
            lines = stream.read().splitlines()
            assert [line for line in lines if line.startswith(b"data:")] == [b"data: second"]


class TestHangingUp:
    def test_the_app_learns_that_nobody_listens_any_more(self, client: Client) -> None:
        flag = uuid.uuid4().hex
        with client.talk() as conversation:
            conversation.send(f"GET /endless/{flag} HTTP/1.1\r\nHost: hello.example.org\r\n\r\n".encode())
            assert conversation.head().readline() == b"more\n"
        end = time.monotonic() + 50  # the app goes on for a minute when nobody tells it
        while client.ask(f"/flag/{flag}").body != b"True":
            assert time.monotonic() < end, "the app still sends"
            time.sleep(0.1)

    def test_many_that_hang_up_do_no_harm(self, client: Client) -> None:
        request = b"POST /echo HTTP/1.1\r\nHost: hello.example.org\r\nContent-Length: 60000\r\n\r\n"
        for sent in (b"", b"G", request[:40], request, request + b"x" * 30_000):
            for _ in range(10):
                with client.talk() as conversation:
                    conversation.send(sent)
        for _ in range(10):
            with client.talk() as conversation:
                conversation.send(b"GET /bytes/5000000 HTTP/1.1\r\nHost: hello.example.org\r\n\r\n")
                conversation.read(1)
        assert client.ask("/release").status == 200

    @pytest.mark.parametrize("kind", ["length", "chunks"])
    @pytest.mark.parametrize("accepted", ["identity", "gzip"])
    def test_an_answer_that_breaks_off_is_not_taken_for_complete(
        self, client: Client, kind: str, accepted: str
    ) -> None:
        with client.talk() as conversation:
            conversation.send(
                f"GET /cut/{kind} HTTP/1.1\r\nHost: hello.example.org\r\n"
                f"Accept-Encoding: {accepted}\r\n\r\n".encode()
            )
            stream = conversation.head()
            if stream.status == 200:
                with pytest.raises((http.client.IncompleteRead, ConnectionError, ssl.SSLError)):
                    stream.read()
            else:
                assert stream.status == 502
                assert b"xxxx" not in stream.read()
        assert client.ask("/release").status == 200


class TestDownloads:
    @pytest.mark.parametrize("pause", [False, True], ids=["at once", "with a pause"])
    def test_large_answers_are_complete(self, client: Client, pause: bool) -> None:
        """Also for a client that stops reading for a while: nothing is cut where buffers are full."""
        digest = hashlib.sha256()
        length = 0
        with client.talk() as conversation:
            conversation.send(
                b"GET /bytes/50000000 HTTP/1.1\r\nHost: hello.example.org\r\nConnection: close\r\n\r\n"
            )
            answer = conversation.head()
            assert answer.headers["Content-Length"] == "50000000"
            while part := answer.read(1_000_000):
                digest.update(part)
                length += len(part)
                if pause and length == 1_000_000:
                    assert [client.ask("/release").status for _ in range(20)] == [200] * 20
        assert length == 50_000_000
        expected = hashlib.sha256((bytes(range(256)) * 195_313)[:50_000_000])
        assert digest.hexdigest() == expected.hexdigest()


class TestCompression:
    @pytest.mark.parametrize("accepted", ["gzip;q=0", "identity", "br;q=0, gzip;q=0", "deflate"])
    @pytest.mark.parametrize("path", ["/page", "/static/style.css", "/static/packed.css"])
    def test_who_does_not_want_it_gets_none(self, client: Client, path: str, accepted: str) -> None:
        answer = client.ask(path, headers=[("Accept-Encoding", accepted)])
        assert answer.all("Content-Encoding") == []
        assert "Accept-Encoding" in answer.one("Vary")

    @pytest.mark.parametrize("path", ["/bytes/5000", "/static/large.bin"])
    def test_what_gains_nothing_stays_as_it_is(self, client: Client, path: str) -> None:
        answer = client.ask(path, headers=[("Accept-Encoding", "gzip")])
        assert answer.all("Content-Encoding") == []

    def test_what_the_app_compressed_is_not_compressed_again(self, client: Client) -> None:
        answer = client.ask("/packed", headers=[("Accept-Encoding", "gzip")])
        assert (answer.one("Content-Encoding"), answer.body) == ("gzip", b"x" * 4000)

    def test_the_head_is_that_of_the_answer(self, client: Client) -> None:
        headers = [("Accept-Encoding", "gzip")]
        head = client.ask("/page", method="HEAD", headers=headers)
        assert (head.status, head.body) == (200, b"")
        secured(head)

    def test_nothing_of_one_answer_begins_the_next(self, client: Client) -> None:
        """The app answers HEAD with a body, and the proxy keeps the connection."""
        for _ in range(50):
            assert client.ask("/page", method="HEAD").status == 200
            answer = client.ask("/release")
            assert (answer.status, answer.body) == (200, b"one")

    def test_streams_are_compressed_and_complete(self, client: Client) -> None:
        answer = client.ask("/stream/200000", headers=[("Accept-Encoding", "gzip")])
        assert answer.one("Content-Encoding") == "gzip"
        assert gzip.decompress(answer.body) == b"".join(b"%07d\n" % number for number in range(200_000))


class TestOldHttp:
    @pytest.mark.parametrize(
        ("target", "length"), [("/bytes/5000", 5000), ("/stream/2000", 16_000), ("/static/style.css", 2824)]
    )
    def test_it_gets_whole_answers_without_chunks(self, client: Client, target: str, length: int) -> None:
        with client.talk() as conversation:
            conversation.send(f"GET {target} HTTP/1.0\r\nHost: hello.example.org\r\n\r\n".encode())
            answer = conversation.answer()
            assert conversation.rest() == b""
        assert (answer.status, len(answer.body)) == (200, length)
        assert answer.all("Transfer-Encoding") == []
        secured(answer)

    def test_its_bodies_arrive(self, client: Client) -> None:
        answer = client.send(
            b"POST /echo HTTP/1.0\r\nHost: hello.example.org\r\nContent-Length: 5\r\n\r\nhello", method="POST"
        )
        assert (answer.status, b'"body": 5' in answer.body) == (200, True)
