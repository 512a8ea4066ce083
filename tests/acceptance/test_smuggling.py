"""Requests that two parsers could understand differently: a second one must not be hidden in any of them.

Every request here is the last of its connection (`Connection: close`), so whatever comes behind it must get
neither an answer from the proxy nor to the app.
"""

from __future__ import annotations

import json
import uuid

import pytest
from ansible_collections.flaskworks.server.tests.acceptance.client import Answer, Client
from ansible_collections.flaskworks.server.tests.acceptance.expected import heard, seen_by_app


def only_answer(client: Client, *lines: bytes, body: bytes = b"", target: bytes = b"/echo") -> Answer:
    """Send a POST with these header lines and body, and behind it a request that nobody may hear."""
    word = uuid.uuid4().hex
    head = b"\r\n".join(
        [b"POST " + target + b" HTTP/1.1", b"Host: hello.example.org", b"Connection: close", *lines, b"", b""]
    )
    hidden = f"GET /echo/{word} HTTP/1.1\r\nHost: hello.example.org\r\n\r\n".encode()
    with client.talk() as conversation:
        conversation.send(head + body.replace(b"HIDDEN", hidden) + hidden)
        answer = conversation.answer("POST")
        assert conversation.rest() == b"", "there is a second answer"
    assert heard(client, word) == 0, "the app has heard a hidden request"
    return answer


NO_CHUNKS = (400, 411, 413, 500, 501)
"""What Apache answers to chunks: it takes none (411), or has found something wrong before it says so."""

CHUNKED = b"5\r\nhello\r\n0\r\n\r\n"


class TestLengths:
    @pytest.mark.parametrize(
        "lines",
        [
            (b"Content-Length: 5", b"Transfer-Encoding: chunked"),
            (b"Transfer-Encoding: chunked", b"Content-Length: 5"),
            (b"Content-Length: 5", b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
            (b"Content-Length: 5", b"Transfer-Encoding: identity"),
            (b"Content-Length: 0", b"Transfer-Encoding: CHUNKED"),
        ],
    )
    @pytest.mark.parametrize("target", [b"/echo", b"/static/style.css", b"/static/app/x"])
    def test_length_and_encoding_together_hide_nothing(
        self, client: Client, lines: tuple[bytes, ...], target: bytes
    ) -> None:
        answer = only_answer(client, *lines, body=b"0\r\n\r\nHIDDEN", target=target)
        assert answer.status in {"nginx": (400, 501), "apache": (*NO_CHUNKS, 405)}[client.proxy]

    @pytest.mark.parametrize(
        "values",
        [
            (b"5", b"6"),
            (b"6", b"5"),
            (b"5", b"5"),
            (b"0", b"5"),
            (b"5, 6",),
            (b"5, 5",),
            (b"+5",),
            (b"-5",),
            (b"-1",),
            (b"5 5",),
            (b"0x5",),
            (b"5.0",),
            (b"5e0",),
            (b"5;",),
            (b"five",),
            (b"99999999999999999999",),
            (b"18446744073709551621",),
            (b"\xb2",),
        ],
    )
    def test_lengths_that_are_doubtful_are_refused(self, client: Client, values: tuple[bytes, ...]) -> None:
        lines = [b"Content-Length: " + value for value in values]
        assert only_answer(client, *lines, body=b"hello").status in (400, 413)

    def test_space_around_a_length_is_no_part_of_it(self, client: Client) -> None:
        answer = only_answer(client, b"Content-Length:   5  ", body=b"hello")
        assert (answer.status, json.loads(answer.body)["body"]) == (200, 5)

    @pytest.mark.parametrize("value", [b"\t5", b"5\t", b" \t5"])
    def test_tabs_around_a_length_are_none_either_or_refused(self, client: Client, value: bytes) -> None:
        answer = only_answer(client, b"Content-Length:" + value, body=b"hello")
        if client.proxy == "nginx":
            assert answer.status == 400
        else:
            assert (answer.status, json.loads(answer.body)["body"]) == (200, 5)

    def test_a_request_without_a_length_has_no_body(self, client: Client) -> None:
        answer = only_answer(client)
        assert (answer.status, json.loads(answer.body)["body"]) == (200, 0)


class TestEncodings:
    @pytest.mark.parametrize(
        "lines",
        [
            (b"Transfer-Encoding: xchunked",),
            (b"Transfer-Encoding: chunke",),
            (b"Transfer-Encoding: chunked, identity",),
            (b"Transfer-Encoding: identity, chunked",),
            (b"Transfer-Encoding: chunked, chunked",),
            (b"Transfer-Encoding: gzip, chunked",),
            (b"Transfer-Encoding: gzip",),
            (b"Transfer-Encoding: chunked;q=1",),
            (b'Transfer-Encoding: "chunked"',),
            (b"Transfer-Encoding: chunked\x00",),
            (b"Transfer-Encoding: \x00chunked",),
            (b"Transfer-Encoding: \x0bchunked",),
            (b"Transfer-Encoding: chunked\x0b",),
            (b"Transfer-Encoding: \xa0chunked",),
            (b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity"),
            (b"Transfer-Encoding: identity", b"Transfer-Encoding: chunked"),
            (b"Transfer-Encoding: x", b"Transfer-Encoding: chunked"),
            (b"Transfer-Encoding : chunked",),
            (b"Transfer-Encoding\t: chunked",),
            (b"\x00Transfer-Encoding: chunked",),
            (b"X: y\rTransfer-Encoding: chunked",),
        ],
    )
    def test_anything_but_plain_chunks_is_refused(self, client: Client, lines: tuple[bytes, ...]) -> None:
        answer = only_answer(client, *lines, body=CHUNKED)
        assert answer.status in {"nginx": (400, 501), "apache": NO_CHUNKS}[client.proxy]

    @pytest.mark.parametrize("spelling", [b"chunked", b"Chunked", b"CHUNKED", b"  chunked  "])
    def test_chunks_in_any_case_are_understood(self, client: Client, spelling: bytes) -> None:
        answer = only_answer(client, b"Transfer-Encoding:" + spelling, body=CHUNKED)
        if client.proxy == "nginx":
            assert (answer.status, json.loads(answer.body)["body"]) == (200, 5)
        else:
            assert answer.status == 411

    def test_an_underscore_makes_it_another_header(self, client: Client) -> None:
        answer = only_answer(client, b"Transfer_Encoding: chunked", b"Content_Length: 3")
        assert json.loads(answer.body)["body"] == 0
        assert {"HTTP_TRANSFER_ENCODING", "HTTP_CONTENT_LENGTH"} & set(seen_by_app(answer)) == set()

    def test_old_http_with_chunks_hides_nothing(self, client: Client) -> None:
        with client.talk() as conversation:
            conversation.send(
                b"POST /echo HTTP/1.0\r\nHost: hello.example.org\r\nTransfer-Encoding: chunked\r\n\r\n"
                + CHUNKED
            )
            answer = conversation.answer("POST")
            assert conversation.rest() == b""
        assert answer.status == {"nginx": 400, "apache": 411}[client.proxy]


class TestChunks:
    @pytest.mark.parametrize(
        "body",
        [
            b"5x\r\nhello\r\n0\r\n\r\n",
            b"0x5\r\nhello\r\n0\r\n\r\n",
            b"-5\r\nhello\r\n0\r\n\r\n",
            b"+5\r\nhello\r\n0\r\n\r\n",
            b"x\r\nhello\r\n0\r\n\r\n",
            b"\r\nhello\r\n0\r\n\r\n",
            b";a=b\r\nhello\r\n0\r\n\r\n",
            b"5_0\r\nhello\r\n0\r\n\r\n",
            b"\xb2\r\nhello\r\n0\r\n\r\n",
            b"10000000000000005\r\nhello\r\n0\r\n\r\n",
            b"fffffffffffffffffffff\r\nhello\r\n0\r\n\r\n",
            b"8000000000000000\r\nhello\r\n0\r\n\r\n",
            b"5\r\nhelloX\r\n0\r\n\r\n",
            b"5\r\nhello0\r\n\r\n",
            b"5\r\nhello\r\n\r\n0\r\n\r\n",
        ],
    )
    def test_sizes_that_are_wrong_are_refused(self, client: Client, body: bytes) -> None:
        answer = only_answer(client, b"Transfer-Encoding: chunked", body=body)
        assert answer.status in {"nginx": (400, 413), "apache": NO_CHUNKS}[client.proxy]

    @pytest.mark.parametrize(
        "body",
        [
            b"5;a=b\r\nhello\r\n0\r\n\r\n",
            b'5;a="b;c"\r\nhello\r\n0;d\r\n\r\n',
            b"005\r\nhello\r\n000\r\n\r\n",
            b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
        ],
    )
    def test_what_the_standard_allows_passes(self, client: Client, body: bytes) -> None:
        answer = only_answer(client, b"Transfer-Encoding: chunked", body=body)
        if client.proxy == "nginx":
            assert (answer.status, json.loads(answer.body)["body"]) == (200, 5)
        else:
            assert answer.status == 411

    @pytest.mark.parametrize(
        "body",
        [
            b"6\r\nhello\r\n0\r\n\r\n",
            b"5\nhello\r\n0\r\n\r\n",
            b"5\r\nhello\n0\r\n\r\n",
            b"5\r\nhello\r\n0\n\n",
            b"5;\nxx\r\nhello\r\n0\r\n\r\n",
            b"5;a\nHIDDEN\r\nhello\r\n0\r\n\r\n",
            b"5 \r\nhello\r\n0\r\n\r\n",
            b" 5\r\nhello\r\n0\r\n\r\n",
            b"5\r\r\nhello\r\n0\r\n\r\n",
            b"5;\x00\r\nhello\r\n0\r\n\r\n",
            b"5\r\nhello\r\n0\r\nHIDDEN\r\n",
            b"5\r\nhello\r\n0\r\nContent-Length: 30\r\n\r\n",
        ],
    )
    def test_what_parsers_disagree_about_hides_nothing(self, client: Client, body: bytes) -> None:
        answer = only_answer(client, b"Transfer-Encoding: chunked", body=body)
        assert answer.status in {"nginx": (200, 400), "apache": NO_CHUNKS}[client.proxy]

    def test_a_trailer_becomes_no_header(self, client: Client) -> None:
        answer = only_answer(
            client,
            b"Transfer-Encoding: chunked",
            b"Trailer: X-Forwarded-For, X-Evil",
            body=b"5\r\nhello\r\n0\r\nX-Forwarded-For: 203.0.113.66\r\nX-Evil: yes\r\n\r\n",
        )
        if client.proxy == "apache":
            assert answer.status == 411
            return
        seen = seen_by_app(answer)
        assert "HTTP_X_EVIL" not in seen
        assert "203.0.113.66" not in seen["HTTP_X_FORWARDED_FOR"]


class TestHeaders:
    @pytest.mark.parametrize(
        "line",
        [
            b"X-Evil: a\x00b",
            b"X-Evil\x00: a",
            b"X-Evil: a\rX-Forwarded-For: 203.0.113.66",
            b"X-Evil\r: a",
            b"X-Evil : a",
            b"X-Evil\t: a",
            b"Content-Length : 5",
            b"Host : evil.example.com",
            b"X Evil: a",
            b"X-\x7fEvil: a",
            b"X-\x01Evil: a",
        ],
    )
    def test_lines_that_are_malformed_are_refused(self, client: Client, line: bytes) -> None:
        assert only_answer(client, line).status == 400

    @pytest.mark.parametrize("line", [b": a", b"X(Evil): a", b"X-Evil\xe9: a", b'"X-Evil": a', b"X-Evil@: a"])
    def test_names_that_are_none_are_refused_or_dropped(self, client: Client, line: bytes) -> None:
        answer = only_answer(client, line)
        assert answer.status == 400 or "EVIL" not in " ".join(seen_by_app(answer))

    def test_a_line_without_a_colon_says_nothing(self, client: Client) -> None:
        answer = only_answer(client, b"X-Evil")
        if client.proxy == "nginx":
            assert seen_by_app(answer)["HTTP_X_EVIL"] == ""
        else:
            assert answer.status == 400

    @pytest.mark.parametrize("fold", [b"\r\n ", b"\r\n\t"])
    def test_folded_lines_are_refused_or_unfolded(self, client: Client, fold: bytes) -> None:
        answer = only_answer(client, b"X-Evil: a" + fold + b"X-Forwarded-For: 203.0.113.66")
        if client.proxy == "nginx":
            assert answer.status == 400
        else:
            seen = seen_by_app(answer)
            assert seen["HTTP_X_EVIL"] == "a X-Forwarded-For: 203.0.113.66"
            assert "203.0.113.66" not in seen["HTTP_X_FORWARDED_FOR"]

    @pytest.mark.parametrize("name", [b"Transfer-Encoding", b"Content-Length"])
    def test_a_folded_length_hides_nothing(self, client: Client, name: bytes) -> None:
        value = {b"Transfer-Encoding": b"chunked", b"Content-Length": b"5"}[name]
        body = {b"Transfer-Encoding": CHUNKED, b"Content-Length": b"hello"}[name]
        answer = only_answer(client, name + b":\r\n " + value, body=body)
        if client.proxy == "nginx":
            assert answer.status == 400
        elif name == b"Transfer-Encoding":
            assert answer.status == 411
        else:
            assert (answer.status, json.loads(answer.body)["body"]) == (200, 5)

    def test_line_feeds_alone_end_lines_or_the_exchange(self, client: Client) -> None:
        """RFC 9112, 2.2 allows to take them for line ends, not to hand them on."""
        answer = client.send(
            b"GET /echo HTTP/1.1\nHost: hello.example.org\nX-Forwarded-For: 203.0.113.66\n"
            b"Connection: close\n\n"
        )
        if client.proxy == "nginx":
            assert "203.0.113.66" not in " ".join(seen_by_app(answer).values())
        else:
            assert answer.status == 400

    def test_a_line_feed_in_a_value_hides_no_header(self, client: Client) -> None:
        answer = only_answer(client, b"X-Evil: a\nX-Forwarded-For: 203.0.113.66")
        assert answer.status == 400 or "203.0.113.66" not in " ".join(seen_by_app(answer).values())


class TestRequestLines:
    @pytest.mark.parametrize(
        "line",
        [
            b"GET /echo\x00 HTTP/1.1",
            b"GET /echo\r HTTP/1.1",
            b"GET /echo\x01 HTTP/1.1",
            b"GET /echo\x7f HTTP/1.1",
            b"G\x00ET /echo HTTP/1.1",
            b"GE T /echo HTTP/1.1",
            b"GET\t/echo HTTP/1.1",
            b"GET /echo HTTP/1.1 HTTP/1.1",
            b"GET /echo x HTTP/1.1",
            b"GET /echo HTTP/1.1.1",
            b"GET /echo HTTP/11",
            b"GET /echo HTTPS/1.1",
            b"GET /echo http/1.1",
            b"GET HTTP/1.1",
            b" GET /echo HTTP/1.1",
            b"GET /echo%00 HTTP/1.1",
            b"GET /echo%zz HTTP/1.1",
            b"GET /% HTTP/1.1",
        ],
    )
    def test_those_that_are_malformed_are_refused(self, client: Client, line: bytes) -> None:
        answer = client.send(line + b"\r\nHost: hello.example.org\r\nConnection: close\r\n\r\n")
        assert answer.status in (400, 404, 405, 501, 505)
        assert b"environ" not in answer.body


class TestKeptConnections:
    def test_two_requests_at_once_get_an_answer_each(self, client: Client) -> None:
        request = b"GET /echo/%d HTTP/1.1\r\nHost: hello.example.org\r\n\r\n"
        with client.talk() as conversation:
            conversation.send(request % 1 + request % 2)
            answers = [conversation.answer(), conversation.answer()]
        assert [json.loads(answer.body)["target"] for answer in answers] == ["/echo/1", "/echo/2"]
        assert answers[0].one("X-Request-ID") != answers[1].one("X-Request-ID")

    def test_what_follows_a_refused_body_is_no_request(self, client: Client) -> None:
        word = uuid.uuid4().hex
        hidden = f"GET /echo/{word} HTTP/1.1\r\nHost: hello.example.org\r\n\r\n".encode()
        with client.talk() as conversation:
            conversation.send(
                b"POST /echo HTTP/1.1\r\nHost: hello.example.org\r\nContent-Length: 65537\r\n\r\n" + hidden
            )
            assert conversation.answer("POST").status == 413
        assert heard(client, word) == 0

    def test_an_upgrade_that_the_app_ignores_opens_no_tunnel(self, client: Client) -> None:
        """What follows is a request like any other: it is answered under the proxy's eyes."""
        with client.talk() as conversation:
            conversation.send(
                b"GET /echo HTTP/1.1\r\nHost: hello.example.org\r\nUpgrade: websocket\r\n"
                b"Connection: Upgrade\r\nSec-WebSocket-Version: 777\r\n\r\n"
            )
            assert conversation.answer().status == 200
            conversation.send(
                b"GET /echo HTTP/1.1\r\nHost: evil.example.com\r\nX-Forwarded-For: 203.0.113.66\r\n"
                b"Connection: close\r\n\r\n"
            )
            second = conversation.answer()
        assert second.status in (400, 403, 421)
