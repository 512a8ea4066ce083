"""Requests that name a host in two ways or in a strange one, and methods that no site has."""

from __future__ import annotations

import json

import pytest
from ansible_collections.flaskworks.server.tests.acceptance.client import Client
from ansible_collections.flaskworks.server.tests.acceptance.expected import ORIGIN, seen_by_app

REFUSED = (400, 403, 421)


def request(target: str, *hosts: str) -> bytes:
    lines = [f"GET {target} HTTP/1.1", *(f"Host: {host}" for host in hosts), "Connection: close", "", ""]
    return "\r\n".join(lines).encode("latin-1")


@pytest.mark.parametrize(
    "hosts",
    [
        ("hello.example.org", "evil.example.com"),
        ("evil.example.com", "hello.example.org"),
        ("hello.example.org", "hello.example.org"),
        ("hello.example.org", ""),
    ],
)
@pytest.mark.parametrize(("port", "tls"), [(80, False), (443, True)])
def test_two_hosts_are_refused(client: Client, hosts: tuple[str, str], port: int, tls: bool) -> None:
    assert client.send(request("/echo", *hosts), port=port, tls=tls).status == 400


class TestWholeAddresses:
    """An address in the request line counts more than the header beside it (RFC 9112, 3.2.2)."""

    def test_another_host_is_refused(self, client: Client) -> None:
        answer = client.send(request("https://evil.example.com/echo", "hello.example.org"))
        assert answer.status in REFUSED
        assert b"environ" not in answer.body

    def test_an_address_of_another_scheme_and_host_does_not_reach_the_app(self, client: Client) -> None:
        """Apache takes the whole for a path of the site, or counts only the header."""
        answer = client.send(request("http://evil.example.com/echo", "hello.example.org"))
        if client.proxy == "nginx":
            assert answer.status in REFUSED
        elif answer.status == 200:
            assert [value for value in seen_by_app(answer).values() if "evil" in value] == []

    def test_another_host_is_refused_without_tls(self, client: Client) -> None:
        answer = client.send(request("http://evil.example.com/echo", "hello.example.org"), port=80, tls=False)
        assert answer.status in REFUSED

    def test_the_own_host_is_served_under_its_own_name(self, client: Client) -> None:
        answer = client.send(request(f"{ORIGIN}/echo/x?y", "evil.example.com"))
        seen = seen_by_app(answer)
        assert seen["HTTP_HOST"] == "hello.example.org"
        assert [value for value in seen.values() if "evil" in value] == []
        assert json.loads(answer.body)["target"] == "/echo/x?y"

    def test_somebody_behind_an_at_sign_is_no_host(self, client: Client) -> None:
        answer = client.send(request("https://hello.example.org@evil.example.com/echo", "hello.example.org"))
        assert answer.status in REFUSED

    @pytest.mark.parametrize("target", ["echo", "*", "hello.example.org:443", "?x", "\\echo", "file:///echo"])
    def test_what_is_neither_path_nor_address_is_refused(self, client: Client, target: str) -> None:
        answer = client.send(request(target, "hello.example.org"))
        assert answer.status in (400, 404, 405)
        assert b"environ" not in answer.body


class TestStrangeHosts:
    """The app is told its own name, whatever a client calls it; or the request is refused."""

    HOSTS = (
        "hello.example.org:8443",
        "hello.example.org:65536",
        "hello.example.org:evil",
        "hello.example.org:443@evil.example.com",
        "hello.example.org:@evil.example.com",
        "hello.example.org@evil.example.com",
        "evil.example.com@hello.example.org",
        "evil@hello.example.org",
        "hello.example.org/evil",
        "hello.example.org?evil",
        "hello.example.org#evil",
        "hello.example.org\\evil",
        "hello.example.org,evil.example.com",
        "hello.example.org evil.example.com",
        "hello.example.org\tevil.example.com",
        "hello.example.org;evil",
        "hello.example.org.",
        "hello.example.org..",
        ".hello.example.org",
        "hello%2eexample.org",
        "[hello.example.org]",
        "[::1]",
        "127.0.0.1",
        "localhost",
        "h\xe9llo.example.org",
        "https://hello.example.org",
    )

    @pytest.mark.parametrize("host", HOSTS)
    def test_none_reaches_the_app(self, client: Client, host: str) -> None:
        answer = client.ask("/echo", host=host)
        if answer.status == 200:
            seen = seen_by_app(answer)
            assert seen["HTTP_HOST"] == seen["HTTP_X_FORWARDED_HOST"] == "hello.example.org"
            assert seen["HTTP_X_FORWARDED_PORT"] == "443"
            assert [value for value in seen.values() if "evil" in value] == []
        else:
            assert answer.status in REFUSED

    @pytest.mark.parametrize("host", [host for host in HOSTS if "@" in host or "," in host or ":" in host])
    def test_none_gets_into_a_redirect(self, client: Client, host: str) -> None:
        answer = client.ask("/echo", host=host, port=80, tls=False)
        assert answer.status in (*REFUSED, 308)
        assert answer.all("Location") in ([], [f"{ORIGIN}/echo"])

    @pytest.mark.parametrize("host", ["evil@hello.example.org", "evil.example.com@hello.example.org"])
    def test_a_name_behind_an_at_sign_is_not_the_sites(self, client: Client, host: str) -> None:
        assert client.ask("/echo", host=host).status in REFUSED


class TestRedirects:
    @pytest.mark.parametrize(
        ("host", "port", "tls"), [("hello.example.org", 80, False), ("www.hello.example.org", 443, True)]
    )
    def test_line_breaks_in_a_path_end_no_header(
        self, client: Client, host: str, port: int, tls: bool
    ) -> None:
        target = "/a%0d%0aX-Evil:%20yes%0d%0a%0d%0a?b=%0d%0aX-Evil:%20yes"
        answer = client.ask(target, host=host, port=port, tls=tls, sni=host)
        assert answer.status == 308
        assert answer.one("Location") == f"{ORIGIN}{target}"
        assert answer.all("X-Evil") == []


class TestMethods:
    @pytest.mark.parametrize("target", ["/echo", "/static/style.css", "/"])
    @pytest.mark.parametrize(("port", "tls"), [(80, False), (443, True)])
    def test_nothing_is_traced(self, client: Client, target: str, port: int, tls: bool) -> None:
        answer = client.ask(target, method="TRACE", headers=[("Cookie", "secret=1")], port=port, tls=tls)
        assert answer.status in ((400, 403, 405) if tls else (400, 403, 405, 308))
        assert b"secret" not in answer.body

    @pytest.mark.parametrize("target", ["hello.example.org:443", "evil.example.com:443", "/echo"])
    @pytest.mark.parametrize(("port", "tls"), [(80, False), (443, True)])
    def test_nobody_gets_connected(self, client: Client, target: str, port: int, tls: bool) -> None:
        with client.talk(port=port, tls=tls) as conversation:
            conversation.send(f"CONNECT {target} HTTP/1.1\r\nHost: hello.example.org\r\n\r\n".encode())
            assert conversation.head("CONNECT").status in (400, 403, 404, 405, 421)

    def test_no_other_protocol_is_switched_to_without_tls(self, client: Client) -> None:
        answer = client.ask(
            "/echo",
            headers=[
                ("Upgrade", "h2c"),
                ("HTTP2-Settings", "AAMAAABkAARAAAAAAAIAAAAA"),
                ("Connection", "Upgrade, HTTP2-Settings"),
            ],
            port=80,
            tls=False,
        )
        assert answer.status == 308

    def test_http2_is_not_spoken_without_tls(self, client: Client) -> None:
        with client.talk(port=80, tls=False) as conversation:
            conversation.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
            assert not conversation.rest().startswith(b"\0\0")


class TestHopByHop:
    """What a client calls its own affair with the proxy must not take from the app what it believes."""

    def test_the_truth_cannot_be_declared_hop_by_hop(self, client: Client) -> None:
        names = [
            "X-Forwarded-For",
            "X-Forwarded-Proto",
            "X-Forwarded-Host",
            "X-Forwarded-Port",
            "X-Real-IP",
            "X-Request-ID",
            "Host",
        ]
        told = client.ask("/echo", headers=[("Connection", ", ".join(names))])
        seen = seen_by_app(told)
        with client.connect() as connection:
            own_address = connection.getsockname()[0]
        assert {name: seen.get(name) for name in seen if name.startswith(("HTTP_X_", "HTTP_HOST"))} == {
            "HTTP_HOST": "hello.example.org",
            "HTTP_X_FORWARDED_FOR": own_address,
            "HTTP_X_FORWARDED_PROTO": "https",
            "HTTP_X_FORWARDED_HOST": "hello.example.org",
            "HTTP_X_FORWARDED_PORT": "443",
            "HTTP_X_REAL_IP": own_address,
            "HTTP_X_REQUEST_ID": told.one("X-Request-ID"),
        }
