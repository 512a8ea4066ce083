"""Headers of every kind of answer of a site: what must be on all of them, and what on none."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from ansible_collections.flaskworks.server.tests.acceptance.client import Answer, Client
from ansible_collections.flaskworks.server.tests.acceptance.expected import secured

HEAD = b"Host: hello.example.org\r\nConnection: close\r\n"

KINDS: dict[str, tuple[int, Callable[[Client], Answer]]] = {
    "page": (200, lambda client: client.ask("/page")),
    "compressed page": (200, lambda client: client.ask("/page", headers=[("Accept-Encoding", "gzip")])),
    "head": (200, lambda client: client.ask("/page", method="HEAD")),
    "options": (200, lambda client: client.ask("/echo", method="OPTIONS")),
    "stream": (200, lambda client: client.ask("/stream/10")),
    "empty": (204, lambda client: client.ask("/nothing")),
    "redirect of the app": (302, lambda client: client.ask("/status/302")),
    "page not modified": (
        304,
        lambda client: client.ask("/version", headers=[("If-None-Match", '"version-1"')]),
    ),
    "error of the app": (500, lambda client: client.ask("/status/500")),
    "busy app": (503, lambda client: client.ask("/status/503")),
    "nothing there": (404, lambda client: client.ask("/no-such-page")),
    "file": (200, lambda client: client.ask("/static/style.css")),
    "file compressed beforehand": (
        200,
        lambda client: client.ask("/static/packed.css", headers=[("Accept-Encoding", "gzip")]),
    ),
    "file of the release before": (200, lambda client: client.ask("/static/before.css")),
    "part of a file": (206, lambda client: client.ask("/static/style.css", headers=[("Range", "bytes=0-9")])),
    "no such part": (416, lambda client: client.ask("/static/style.css", headers=[("Range", "bytes=9999-")])),
    "file not modified": (
        304,
        lambda client: client.ask("/static/style.css", headers=[("If-None-Match", "*")]),
    ),
    "file modified": (412, lambda client: client.ask("/static/style.css", headers=[("If-Match", '"x"')])),
    "no such file": (404, lambda client: client.ask("/static/no-such-file")),
    "dot file": (404, lambda client: client.ask("/static/.secret")),
    "method of a file": (405, lambda client: client.ask("/static/style.css", method="POST")),
    "trace": (405, lambda client: client.ask("/", method="TRACE")),
    "path that leads out": (400, lambda client: client.ask("/../../etc/passwd")),
    "two hosts": (
        400,
        lambda client: client.send(b"GET / HTTP/1.1\r\nHost: hello.example.org\r\n" + HEAD + b"\r\n"),
    ),
    "long address": (414, lambda client: client.ask(f"/{'x' * 16_384}")),
    "long header": (400, lambda client: client.ask("/", headers=[("Cookie", "x" * 16_384)])),
    "large body": (413, lambda client: client.ask("/echo", method="POST", body=b"x" * 65537)),
    "name that moves": (
        308,
        lambda client: client.ask("/", host="www.hello.example.org", sni="www.hello.example.org"),
    ),
    "app that is not there": (
        502,
        lambda client: client.ask("/", host="away.example.org:8443", sni="away.example.org", port=8443),
    ),
    "app that breaks off": (502, lambda client: client.ask("/broken")),
    "app that is too slow": (504, lambda client: client.ask("/slow/6")),
}
"""What is asked, with the status that shows that it is this kind of answer."""


OTHERWISE = {"app that is not there": 503, "app that is too slow": 502}
"""The statuses that are others with Apache."""

EARLY = {"two hosts", "long address", "long header"}
"""Apache refuses these before it knows for which site they are, so none of a site's headers are on them."""


def answer_of(client: Client, kind: str) -> Answer:
    status, ask = KINDS[kind]
    answer = ask(client)
    assert answer.status == (OTHERWISE.get(kind, status) if client.proxy == "apache" else status)
    return answer


@pytest.mark.parametrize("kind", KINDS)
def test_every_answer_is_secured_and_tells_no_version(client: Client, kind: str) -> None:
    answer = answer_of(client, kind)
    if client.proxy == "nginx" or kind not in EARLY:
        secured(answer)
        assert re.fullmatch(r"[0-9a-zA-Z_@-]{16,}", answer.one("X-Request-ID"))
    silent(answer, client)
    for absent in (
        "X-XSS-Protection",
        "X-Powered-By",
        "Via",
        "X-Accel-Buffering",
        "Alt-Svc",
        "X-Flask-Release",
    ):
        assert answer.all(absent) == []


def silent(answer: Answer, client: Client) -> None:
    """Assert that an answer tells neither a version nor what is behind the proxy."""
    # nginx does not say who serves; Apache cannot be silent.
    assert answer.all("Server") == {"nginx": [], "apache": ["Apache"]}[client.proxy]
    assert not re.search(
        rb"nginx/|apache/|debian|openssl|gunicorn|python|port \d|/srv/|traceback", answer.body, re.IGNORECASE
    )


@pytest.mark.parametrize(
    ("host", "port", "tls"),
    [
        ("hello.example.org", 80, False),
        ("away.example.org:8080", 8080, False),
        ("unknown.example.org", 80, False),
        ("unknown.example.org", 443, True),
        ("", 80, False),
    ],
)
def test_answers_of_no_site_tell_no_version_either(client: Client, host: str, port: int, tls: bool) -> None:
    silent(client.ask("/", host=host, port=port, tls=tls), client)


@pytest.mark.parametrize("raw", [b"\x16\x03\x01\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET /\x00\r\n\r\n"])
@pytest.mark.parametrize(("port", "tls"), [(80, False), (443, True)])
def test_neither_do_answers_to_nonsense(client: Client, raw: bytes, port: int, tls: bool) -> None:
    with client.talk(port=port, tls=tls) as conversation:
        conversation.send(raw)
        said = conversation.rest()
    servers = re.findall(rb"^server: *(.*?)\r?$", said, re.IGNORECASE | re.MULTILINE)
    assert servers in ([], *([[b"Apache"]] if client.proxy == "apache" else []))
    assert not re.search(rb"nginx/|apache/|debian|openssl|gunicorn|python", said, re.IGNORECASE)


def test_plain_http_to_the_port_of_tls_tells_no_version(client: Client) -> None:
    answer = client.ask("/", port=443, tls=False)
    assert answer.status in (400, 421)
    silent(answer, client)


def test_what_the_app_says_about_itself_stays_inside(client: Client) -> None:
    answer = client.ask("/own-headers")
    assert answer.all("X-Powered-By") == []
    secured(answer)


PARTNER = "frame-ancestors https://partner.example.org; img-src *"


@pytest.mark.parametrize(
    ("site", "said", "policy", "options"),
    [
        ("hello", "policy", [PARTNER], ["SAMEORIGIN"]),
        # With a frame-ancestors beside it, browsers would not look at it.
        ("hello", "options", [], ["DENY"]),
        ("hello", "policy+options", [PARTNER], ["DENY"]),
        ("hello", "policy+policy", [PARTNER, PARTNER], ["SAMEORIGIN"]),
        ("guests", "policy+options", ["default-src 'self'; img-src 'self' data:"], ["DENY"]),
        ("guests", "policy", ["default-src 'self'; img-src 'self' data:"], ["DENY"]),
    ],
)
def test_the_app_decides_who_may_show_it_unless_the_description_does(
    client: Client, site: str, said: str, policy: list[str], options: list[str]
) -> None:
    host = f"{site}.example.org"
    answer = client.ask(f"/frames/{said}", host=host, sni=host)
    assert answer.status == 200
    assert answer.all("Content-Security-Policy") == policy
    assert answer.all("X-Frame-Options") == options
