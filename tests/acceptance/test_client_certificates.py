"""Sites that ask for a certificate: "members" demands one, "guests" takes one, "hello" asks nobody."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.flaskworks.server.tests.acceptance.client import Answer, Client

SPOOFED = [
    ("X-Client-Subject", "CN=root"),
    ("x-client-verify", "SUCCESS"),
    ("X_Client_Subject", "CN=root"),
    ("X_Client_Verify", "SUCCESS"),
]
SECURITY_HEADERS = {
    "Strict-Transport-Security": ["max-age=63072000"],
    "X-Content-Type-Options": ["nosniff"],
    "Content-Security-Policy": ["frame-ancestors 'self'"],
}


def showing(client: Client, name: str) -> Client:
    """Return a client with the certificate of `name`."""
    return replace(client, certificate=str(Path(client.authority).parent / f"{name}.pem"))


def ask(client: Client, site: str, target: str = "/echo", *, sni: str = "", spoofed: bool = False) -> Answer:
    host = f"{site}.example.org"
    return client.ask(target, host=host, sni=sni or host, headers=SPOOFED if spoofed else [])


def learned(answer: Answer) -> dict[str, str]:
    """Return what the app learned of the visitor's certificate."""
    assert answer.status == 200
    seen = json.loads(answer.body)["environ"]
    return {name: value for name, value in seen.items() if name.startswith("HTTP_X_CLIENT")}


def refused(client: Client, site: str, sni: str = "") -> bool:
    """Tell whether the handshake fails, or the answer is a refusal."""
    try:
        answer = ask(client, site, sni=sni)
    except OSError:
        return True
    assert b"environ" not in answer.body
    return answer.status in (403, 421)


@pytest.mark.parametrize("target", ["/echo", "/static/style.css", "/no-such-page"])
def test_without_a_certificate_members_are_refused(client: Client, target: str) -> None:
    answer = ask(client, "members", target, spoofed=True)
    assert answer.status == 403
    assert {name: answer.all(name) for name in SECURITY_HEADERS} == SECURITY_HEADERS
    assert b"style.css of" not in answer.body


@pytest.mark.parametrize("spoofed", [False, True], ids=["honest", "spoofed"])
@pytest.mark.parametrize(("site", "who"), [("members", "alice"), ("guests", "bob")])
def test_the_app_learns_whose_certificate_it_is(client: Client, site: str, who: str, spoofed: bool) -> None:
    answer = ask(showing(client, who), site, spoofed=spoofed)
    assert learned(answer) == {
        "HTTP_X_CLIENT_VERIFY": "SUCCESS",
        "HTTP_X_CLIENT_SUBJECT": f"CN={who},O=Example",
    }


def test_files_are_served_to_members(client: Client) -> None:
    assert ask(showing(client, "alice"), "members", "/static/style.css").status == 200


@pytest.mark.parametrize("spoofed", [False, True], ids=["honest", "spoofed"])
def test_without_a_certificate_guests_are_told_apart(client: Client, spoofed: bool) -> None:
    assert learned(ask(client, "guests", spoofed=spoofed)) == {"HTTP_X_CLIENT_VERIFY": "NONE"}


@pytest.mark.parametrize("who", ["", "alice"], ids=["without", "with a certificate"])
def test_where_nobody_is_asked_the_app_learns_nothing(client: Client, who: str) -> None:
    asking = showing(client, who) if who else client
    assert learned(ask(asking, "hello", spoofed=True)) == {}


@pytest.mark.parametrize(("site", "who"), [("members", "bob"), ("members", "late"), ("guests", "alice")])
def test_certificates_of_others_and_of_yesterday_are_refused(client: Client, site: str, who: str) -> None:
    assert refused(showing(client, who), site)


@pytest.mark.parametrize("sni", ["hello.example.org", "guests.example.org", "www.hello.example.org"])
@pytest.mark.parametrize("who", ["", "alice", "bob"])
def test_no_other_site_is_a_way_around(client: Client, sni: str, who: str) -> None:
    """A handshake with another site of the host, then a request for the members."""
    assert refused(showing(client, who) if who else client, "members", sni=sni)


def test_what_was_proved_to_one_site_is_not_told_to_another(client: Client) -> None:
    with contextlib.suppress(OSError):
        answer = ask(showing(client, "alice"), "hello", sni="members.example.org", spoofed=True)
        assert answer.status == 421 or learned(answer) == {}


@pytest.mark.parametrize(("first", "who"), [("hello", ""), ("guests", ""), ("guests", "bob")])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_session_of_another_site_is_no_way_around(
    client: Client, first: str, who: str, version: ssl.TLSVersion
) -> None:
    """What the handshake with one site has proved must not count when the session is resumed with another."""
    asking = showing(client, who) if who else client
    context = ssl.create_default_context(cafile=asking.authority)
    context.minimum_version = context.maximum_version = version
    if asking.certificate:
        context.load_cert_chain(asking.certificate)
    session = None
    for site in (first, "members"):
        name = f"{site}.example.org"
        request = f"GET /echo HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode()
        try:
            with (
                socket.create_connection((asking.address, 443), timeout=15) as plain,
                context.wrap_socket(plain, server_hostname=name, session=session) as connection,
            ):
                connection.sendall(request)
                with connection.makefile("rb") as stream:
                    answer = stream.read()
                session = connection.session
        except OSError:
            assert site == "members"
            return
        if site == first:
            assert answer.startswith(b"HTTP/1.1 200 ")
        else:
            assert answer.startswith((b"HTTP/1.1 403 ", b"HTTP/1.1 421 "))
            assert b"environ" not in answer
