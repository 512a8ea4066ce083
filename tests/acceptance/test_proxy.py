"""What every proxy of the collection does. target/sites.yml holds the sites that are asked here."""

from __future__ import annotations

import gzip
import http.client
import json
import re
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor

import pytest
from ansible_collections.flaskworks.server.tests.acceptance.client import Client
from ansible_collections.flaskworks.server.tests.acceptance.expected import (
    ORIGIN,
    SECURITY_HEADERS,
    seen_by_app,
)


class TestNames:
    """One canonical origin; the other names lead there, strange names lead nowhere."""

    @pytest.mark.parametrize(
        "host", ["hello.example.org", "www.hello.example.org", "HELLO.example.org", "hello.example.org:80"]
    )
    def test_plain_http_moves_to_the_origin_with_path_and_query(self, client: Client, host: str) -> None:
        answer = client.ask("/a%20path/%C3%BC?q=1&q=%2F", host=host, port=80, tls=False)
        assert answer.status in (301, 308)
        assert answer.one("Location") == f"{ORIGIN}/a%20path/%C3%BC?q=1&q=%2F"

    def test_plain_http_never_reaches_the_app(self, client: Client) -> None:
        answer = client.ask("/echo", method="POST", port=80, tls=False, body=b"secret=1")
        assert answer.status == 308
        assert answer.one("Location") == f"{ORIGIN}/echo"

    def test_plain_http_does_not_announce_hsts(self, client: Client) -> None:
        assert client.ask("/", port=80, tls=False).all("Strict-Transport-Security") == []

    def test_static_files_are_not_served_without_tls(self, client: Client) -> None:
        assert (
            client.ask("/static/style.css", port=80, tls=False).one("Location")
            == f"{ORIGIN}/static/style.css"
        )

    def test_other_names_move_to_the_origin(self, client: Client) -> None:
        answer = client.ask("/page?x=y", host="www.hello.example.org", sni="www.hello.example.org")
        assert answer.status in (301, 308)
        assert answer.one("Location") == f"{ORIGIN}/page?x=y"

    def test_ports_of_a_site_are_part_of_its_origin(self, client: Client) -> None:
        answer = client.ask("/x", host="away.example.org:8080", port=8080, tls=False)
        assert answer.one("Location") == "https://away.example.org:8443/x"

    @pytest.mark.parametrize(
        "path", ["//evil.example.com/x", "/\\evil.example.com", "http://evil.example.com/x"]
    )
    def test_no_path_leads_the_redirect_elsewhere(self, client: Client, path: str) -> None:
        answer = client.ask(path, port=80, tls=False)
        assert answer.status >= 400 or answer.one("Location").startswith(f"{ORIGIN}/")

    @pytest.mark.parametrize(
        "host",
        [
            "unknown.example.org",
            "192.0.2.1",
            "example.org",
            "evil.hello.example.org",
            "hello.example.org.evil.example.com",
            "",
        ],
    )
    @pytest.mark.parametrize(("port", "tls"), [(80, False), (443, True)])
    def test_unknown_hosts_are_refused(self, client: Client, host: str, port: int, tls: bool) -> None:
        answer = client.ask("/echo", host=host, port=port, tls=tls)
        assert answer.status in (400, 403, 421)
        assert b"environ" not in answer.body

    @pytest.mark.parametrize("port", [8080, 8443])
    def test_unknown_hosts_are_refused_on_every_port(self, client: Client, port: int) -> None:
        assert client.ask(
            "/", host="unknown.example.org", port=port, tls=port == 8443, sni="away.example.org"
        ).status in (400, 403, 421)

    def test_requests_without_a_host_are_refused(self, client: Client) -> None:
        assert client.send(b"GET /echo HTTP/1.1\r\nConnection: close\r\n\r\n").status == 400
        assert client.send(b"GET /echo HTTP/1.0\r\n\r\n", port=80, tls=False).status in (400, 403, 421)

    @pytest.mark.parametrize("sni", ["unknown.example.org", "evil.hello.example.org"])
    def test_unknown_names_in_the_handshake_show_no_certificate(self, client: Client, sni: str) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        with (
            socket.create_connection((client.address, 443), timeout=15) as plain,
            pytest.raises((ssl.SSLError, ConnectionError)),
        ):
            context.wrap_socket(plain, server_hostname=sni)

    def test_a_handshake_without_a_name_shows_no_certificate(self, client: Client) -> None:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            client.connect(sni=None)

    def test_the_certificate_is_valid_for_every_name(self, client: Client) -> None:
        for name, port in [
            ("hello.example.org", 443),
            ("www.hello.example.org", 443),
            ("away.example.org", 8443),
        ]:
            with client.connect(port, name) as connection:
                assert connection.version() == "TLSv1.3"

    def test_old_tls_is_refused(self, client: Client) -> None:
        context = ssl.create_default_context(cafile=client.authority)
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
        with (
            socket.create_connection((client.address, 443), timeout=15) as plain,
            pytest.raises((ssl.SSLError, ConnectionError)),
        ):
            context.wrap_socket(plain, server_hostname="hello.example.org")

    def test_http2_is_spoken(self, client: Client) -> None:
        with client.connect(alpn=("h2", "http/1.1")) as connection:
            assert connection.selected_alpn_protocol() == "h2"
            connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
            header = connection.recv(9)
            assert header[3] == 4, "the first frame of an HTTP/2 server is SETTINGS"


class TestWhatTheAppLearns:
    """The app may believe what it is told about the client, because only the proxy tells it."""

    SPOOFED = (
        ("X-Forwarded-For", "203.0.113.66"),
        ("X-Forwarded-For", "203.0.113.67, 10.0.0.1"),
        ("X_Forwarded_For", "203.0.113.68"),
        ("x-forwarded-for", "203.0.113.69"),
        ("X-Forwarded-Proto", "http"),
        ("X-Forwarded-Host", "evil.example.com"),
        ("X_Forwarded_Host", "evil.example.com"),
        ("X-Forwarded-Port", "6666"),
        ("X-Forwarded-Prefix", "/evil"),
        ("X-Forwarded-Server", "evil.example.com"),
        ("X-Forwarded-Ssl", "off"),
        ("X-Forwarded-Protocol", "http"),
        ("X-Real-IP", "203.0.113.66"),
        ("Forwarded", "for=203.0.113.66;host=evil.example.com;proto=http"),
        ("Proxy", "http://evil.example.com"),
        ("SCRIPT_NAME", "/evil"),
        ("X-Request-ID", "spoofed"),
    )

    @pytest.mark.parametrize("headers", [(), SPOOFED], ids=["honest", "spoofed"])
    def test_it_learns_the_truth_whatever_the_client_says(
        self, client: Client, headers: tuple[tuple[str, str], ...]
    ) -> None:
        with client.connect() as connection:
            own_address = connection.getsockname()[0]
        seen = seen_by_app(client.ask("/echo", host="HELLO.example.org:443", headers=headers))
        assert seen["HTTP_HOST"] == "hello.example.org"
        assert seen["HTTP_X_FORWARDED_FOR"] == own_address
        assert seen["HTTP_X_REAL_IP"] == own_address
        assert seen["HTTP_X_FORWARDED_PROTO"] == "https"
        assert seen["HTTP_X_FORWARDED_HOST"] == "hello.example.org"
        assert seen["HTTP_X_FORWARDED_PORT"] == "443"
        assert seen["SCRIPT_NAME"] == ""
        for absent in (
            "FORWARDED",
            "PROXY",
            "X_FORWARDED_PREFIX",
            "X_FORWARDED_SERVER",
            "X_FORWARDED_SSL",
            "X_FORWARDED_PROTOCOL",
        ):
            assert f"HTTP_{absent}" not in seen
        assert not [
            value for value in seen.values() if "evil" in value or "203.0.113." in value or value == "spoofed"
        ]

    def test_every_request_has_an_id_known_to_client_and_app(self, client: Client) -> None:
        answers = [client.ask("/echo") for _ in range(2)]
        told = [answer.one("X-Request-ID") for answer in answers]
        assert told == [seen_by_app(answer)["HTTP_X_REQUEST_ID"] for answer in answers]
        assert told[0] != told[1]
        assert all(re.fullmatch(r"[0-9a-zA-Z_@-]{16,}", identity) for identity in told)

    @pytest.mark.parametrize("target", ["/echo/a%2Fb//c?x=%20+&y", "/echo/%C3%BC;v=1?"])
    def test_the_target_arrives_as_it_was_sent(self, client: Client, target: str) -> None:
        assert json.loads(client.ask(target).body)["target"] == target

    @pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
    def test_methods_and_bodies_arrive(self, client: Client, method: str) -> None:
        heard = json.loads(client.ask("/echo", method=method, body=b"x" * 5000).body)
        assert (heard["method"], heard["body"]) == (method, 5000)

    def test_only_websockets_may_switch_protocols(self, client: Client) -> None:
        smuggled = seen_by_app(
            client.ask(
                "/echo",
                headers=[
                    ("Upgrade", "h2c"),
                    ("HTTP2-Settings", "AAMAAABkAARAAAAAAAIAAAAA"),
                    ("Connection", "Upgrade, HTTP2-Settings"),
                ],
            )
        )
        assert "HTTP_UPGRADE" not in smuggled
        opened = seen_by_app(
            client.ask("/echo", headers=[("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")])
        )
        assert opened["HTTP_UPGRADE"].lower() == "websocket"
        assert opened["HTTP_CONNECTION"].lower() == "upgrade"


class TestStaticFiles:
    STYLE = b"static/style.css of one\n"

    def test_they_come_from_the_release(self, client: Client) -> None:
        answer = client.ask("/static/style.css?v=1")
        assert answer.status == 200
        assert answer.body.startswith(self.STYLE)
        assert answer.one("Content-Type").startswith("text/css")

    def test_head_answers_without_the_body(self, client: Client) -> None:
        answer = client.ask("/static/style.css", method="HEAD")
        assert (answer.status, answer.body) == (200, b"")
        assert int(answer.one("Content-Length")) > 1000

    @pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "PROPFIND"])
    def test_other_methods_are_refused(self, client: Client, method: str) -> None:
        answer = client.ask("/static/style.css", method=method)
        assert answer.status in (403, 405)

    def test_browsers_ask_again_and_learn_that_nothing_changed(self, client: Client) -> None:
        first = client.ask("/static/style.css")
        assert first.one("Cache-Control") == "no-cache"
        assert first.one("Last-Modified")
        again = client.ask("/static/style.css", headers=[("If-None-Match", first.one("ETag"))])
        assert (again.status, again.body) == (304, b"")

    @pytest.mark.parametrize(
        "path", ["/static/.secret", "/static/.hidden/file.txt", "/static/%2esecret", "/static/x/../.secret"]
    )
    def test_dot_files_are_not_there(self, client: Client, path: str) -> None:
        assert client.ask(path).status in (403, 404)

    @pytest.mark.parametrize(
        "path",
        [
            "/static/../outside.txt",
            "/static/%2e%2e/outside.txt",
            "/static/..%2foutside.txt",
            "/static/%2e%2e%2foutside.txt",
            "/static//../outside.txt",
            "/static../outside.txt",
            "/static/../../../../../../../etc/passwd",
            "/static/..%2f..%2f..%2f..%2f..%2f..%2fetc%2fpasswd",
            "/static/%252e%252e/outside.txt",
            "/static/style.css%00.txt",
        ],
    )
    def test_nothing_outside_the_directory_is_served(self, client: Client, path: str) -> None:
        answer = client.ask(path)
        assert answer.status in (400, 403, 404)
        assert b"outside.txt of" not in answer.body
        assert b"root:" not in answer.body

    @pytest.mark.parametrize(
        ("path", "rule"),
        [
            ("/static/style.css", "no-cache"),
            ("/static/report-20261121.txt", "no-cache"),
            ("/static/before.css", "no-cache"),
            ("/static/app.3f2a91bc.js", "public, max-age=31536000, immutable"),
            ("/static/app.3f2a91bc.js?v=1", "public, max-age=31536000, immutable"),
            ("/static/before.9d0c41fe.js", "public, max-age=31536000, immutable"),
        ],
    )
    def test_only_a_hash_in_the_name_lets_browsers_keep_a_file(
        self, client: Client, path: str, rule: str
    ) -> None:
        first = client.ask(path)
        again = client.ask(path, headers=[("If-None-Match", first.one("ETag"))])
        assert (first.status, again.status) == (200, 304)
        for answer in (first, again):
            assert answer.one("Cache-Control") == rule
            assert {name: answer.all(name) for name in SECURITY_HEADERS} == {
                name: [value] for name, value in SECURITY_HEADERS.items()
            }

    @pytest.mark.parametrize(
        ("path", "status"), [("/static/gone.3f2a91bc.js", 404), ("/echo/app.3f2a91bc.js", 200)]
    )
    def test_what_the_app_answers_is_not_kept(self, client: Client, path: str, status: int) -> None:
        answer = client.ask(path)
        assert answer.status == status
        assert answer.all("Cache-Control") == []

    def test_pages_of_the_release_before_still_get_their_files(self, client: Client) -> None:
        answer = client.ask("/static/before.css")
        assert (answer.status, answer.body) == (200, b"static/static/before.css of two\n")
        assert answer.one("Content-Type").startswith("text/css")
        refused = client.ask("/static/before.css", method="POST", body=b"x")
        assert refused.status in (403, 405)

    @pytest.mark.parametrize(
        "path", ["/static/.before", "/static/../only-outside.txt", "/static/%2e%2e/only-outside.txt"]
    )
    def test_of_the_release_before_no_other_files_are_served(self, client: Client, path: str) -> None:
        answer = client.ask(path)
        assert answer.status in (400, 403, 404)
        assert b"of two" not in answer.body

    def test_files_are_compressed_beforehand(self, client: Client) -> None:
        plain = client.ask("/static/packed.css")
        packed = client.ask("/static/packed.css", headers=[("Accept-Encoding", "gzip")])
        assert plain.body.startswith(b"static/packed.css of one\n")
        assert plain.all("Content-Encoding") == []
        assert packed.one("Content-Encoding") == "gzip"
        assert packed.one("Content-Type").startswith("text/css")
        assert gzip.decompress(packed.body) == b"/* compressed beforehand */"
        assert int(packed.one("Content-Length")) == len(packed.body)
        assert packed.one("ETag") != plain.one("ETag")
        for answer in (plain, packed):
            assert "Accept-Encoding" in answer.one("Vary")

    @pytest.mark.parametrize("path", ["/static/", "/static/no-such-file", "/static/style.css/", "/static"])
    def test_whether_there_is_anything_else_the_app_decides(self, client: Client, path: str) -> None:
        answer = client.ask(path)
        assert (answer.status, answer.body) == (404, b"nothing here\n")

    @pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
    def test_what_is_not_a_file_reaches_the_app_like_any_other_request(
        self, client: Client, method: str
    ) -> None:
        target = "/static/app/a%2Fb//c.css?x=%20+&y"
        answer = client.ask(target, method=method, body=b"x" * 5000)
        heard = json.loads(answer.body)
        assert (heard["method"], heard["target"], heard["body"]) == (method, target, 5000)
        assert heard["environ"]["HTTP_HOST"] == "hello.example.org"
        assert heard["environ"]["HTTP_X_FORWARDED_PROTO"] == "https"
        assert answer.all("Cache-Control") == []
        assert {name: answer.all(name) for name in SECURITY_HEADERS} == {
            name: [value] for name, value in SECURITY_HEADERS.items()
        }


class TestAnswers:
    @pytest.mark.parametrize(
        ("path", "status"),
        [
            ("/page", 200),
            ("/status/404", 404),
            ("/status/500", 500),
            ("/status/301", 301),
            ("/static/style.css", 200),
            ("/static/no-such-file", 404),
            ("/own-headers", 200),
        ],
    )
    def test_security_headers_are_there_once(self, client: Client, path: str, status: int) -> None:
        answer = client.ask(path)
        assert answer.status == status
        assert {name: answer.all(name) for name in SECURITY_HEADERS} == {
            name: [value] for name, value in SECURITY_HEADERS.items()
        }

    def test_security_headers_are_on_refusals_and_redirects(self, client: Client) -> None:
        refused = client.ask("/echo", method="POST", headers=[("Content-Length", "65537")])
        moved = client.ask("/", host="www.hello.example.org", sni="www.hello.example.org")
        missing = client.ask("/", host="away.example.org:8443", sni="away.example.org", port=8443)
        for answer in (refused, moved, missing):
            assert {name: answer.all(name) for name in SECURITY_HEADERS} == {
                name: [value] for name, value in SECURITY_HEADERS.items()
            }

    def test_the_app_keeps_its_other_headers(self, client: Client) -> None:
        answer = client.ask("/own-headers")
        assert answer.one("X-Kept") == "yes"
        assert answer.one("X-Request-ID") != "from-the-app"

    @pytest.mark.parametrize("path", ["/page", "/static/style.css", "/static/no-such-file"])
    def test_the_software_is_not_advertised_in_detail(self, client: Client, path: str) -> None:
        answer = client.ask(path)
        assert not re.search(r"gunicorn|python|\d", " ".join(answer.all("Server")), re.IGNORECASE)
        assert answer.all("X-Powered-By") == []

    def test_without_an_app_the_answer_is_a_clean_error(self, client: Client) -> None:
        assert client.ask("/", host="away.example.org:8443", sni="away.example.org", port=8443).status in (
            502,
            503,
        )

    def test_large_answers_are_complete(self, client: Client) -> None:
        answer = client.ask("/bytes/5000000")
        assert answer.body == (bytes(range(256)) * 19532)[:5000000]

    def test_streamed_answers_are_complete(self, client: Client) -> None:
        answer = client.ask("/stream/200000")
        assert answer.body[-8:] == b"0199999\n"
        assert len(answer.body) == 1600000

    def test_full_cookies_fit(self, client: Client) -> None:
        answer = client.ask("/big-header")
        assert answer.status == 200
        assert [len(cookie) for cookie in answer.all("Set-Cookie")] == [4008, 4006]

    @pytest.mark.parametrize(("path", "kind"), [("/page", "text/html"), ("/static/style.css", "text/css")])
    def test_text_is_compressed_for_who_asks(self, client: Client, path: str, kind: str) -> None:
        plain = client.ask(path)
        packed = client.ask(path, headers=[("Accept-Encoding", "gzip")])
        assert packed.one("Content-Encoding") == "gzip"
        assert "Accept-Encoding" in packed.one("Vary")
        assert packed.one("Content-Type").startswith(kind)
        assert plain.all("Content-Encoding") == []
        assert gzip.decompress(packed.body) == plain.body

    def test_many_at_once(self, client: Client) -> None:
        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda number: client.ask(f"/bytes/{number}"), range(200)))
        assert [len(answer.body) for answer in answers] == list(range(200))


class TestRequestLimit:
    HEAD = b"POST /echo HTTP/1.1\r\nHost: hello.example.org\r\nConnection: close\r\n"

    def test_a_body_of_the_limit_passes(self, client: Client) -> None:
        assert json.loads(client.ask("/echo", method="POST", body=b"x" * 65536).body)["body"] == 65536

    def test_a_larger_one_is_refused(self, client: Client) -> None:
        assert client.ask("/echo", method="POST", body=b"x" * 65537).status == 413

    def test_a_larger_one_is_refused_before_it_is_sent(self, client: Client) -> None:
        assert (
            client.ask(
                "/echo", method="POST", headers=[("Content-Length", "999999999"), ("Expect", "100-continue")]
            ).status
            == 413
        )

    def test_a_larger_one_of_unknown_length_is_refused(self, client: Client) -> None:
        chunk = b"4000\r\n" + b"x" * 0x4000 + b"\r\n"
        head = self.HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
        assert client.send(head + chunk * 5 + b"0\r\n\r\n", method="POST").status in (411, 413)

    def test_contradicting_lengths_smuggle_nothing(self, client: Client) -> None:
        """Refused, or (RFC 9112, 6.3) Transfer-Encoding counts, the app sees one length, and that was all."""
        head = b"POST /echo HTTP/1.1\r\nHost: hello.example.org\r\n"
        head += b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
        hidden = b"GET /release HTTP/1.1\r\nHost: hello.example.org\r\n\r\n"
        with client.connect() as connection:
            connection.sendall(head + b"0\r\n\r\n" + hidden)
            answer = http.client.HTTPResponse(connection, method="POST")
            answer.begin()
            body = answer.read()
            assert answer.status in (400, 411) or json.loads(body)["body"] == 0
            assert answer.will_close
            assert connection.recv(1) == b""
