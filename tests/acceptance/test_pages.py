"""What visitors see when no app answers: error pages, and the page of a site in maintenance."""

from __future__ import annotations

import json

import pytest
from ansible_collections.flaskworks.server.tests.acceptance.client import Answer, Client

SECURITY_HEADERS = {
    "Strict-Transport-Security": ["max-age=63072000"],
    "X-Content-Type-Options": ["nosniff"],
    "Content-Security-Policy": ["frame-ancestors 'self'"],
    "Reporting-Endpoints": ['default="https://reports.example.org/"'],
}
JSON = [("Accept", "application/json")]


def is_a_page(answer: Answer, words: str) -> bool:
    """Tell whether this is a page of HTML with these words, and with every header that any answer has."""
    assert answer.one("Content-Type").replace(" ", "").lower() == "text/html;charset=utf-8"
    assert {name: answer.all(name) for name in SECURITY_HEADERS} == SECURITY_HEADERS
    assert answer.one("X-Request-ID")
    assert answer.all("X-XSS-Protection") == []
    return words in answer.body.decode()


class TestErrorPages:
    """The site "away" has no app and a page of its own; "hello" gives up on its app after three seconds."""

    @staticmethod
    def ask_away(client: Client, target: str = "/", **how: object) -> Answer:
        return client.ask(
            target,
            host="away.example.org:8443",
            sni="away.example.org",
            port=8443,
            **how,  # type: ignore[arg-type]
        )

    @pytest.mark.parametrize("headers", [[], JSON], ids=["a browser", "a program"])
    def test_a_site_without_its_app_says_so(self, client: Client, headers: list[tuple[str, str]]) -> None:
        answer = self.ask_away(client, "/some/page?x=y", headers=headers)
        assert answer.status in (502, 503)
        assert is_a_page(answer, "<p>Störung bei {{ today }}.</p>")
        assert answer.all("Retry-After") == []

    def test_it_says_so_to_a_form_and_to_who_wants_no_body(self, client: Client) -> None:
        form = self.ask_away(client, method="POST", body=b"x" * 5000)
        assert form.status in (502, 503)
        assert is_a_page(form, "<p>Störung bei {{ today }}.</p>")
        head = self.ask_away(client, method="HEAD")
        assert (head.status, head.body) == (form.status, b"")

    def test_an_app_that_is_too_slow_gets_the_same_page(self, client: Client) -> None:
        answer = client.ask("/slow/6", method="POST", body=b"x=1")
        assert answer.status in (502, 504)
        assert is_a_page(answer, "<h1>No answer at the moment</h1>")

    @pytest.mark.parametrize("status", [500, 502, 503, 504])
    def test_the_apps_own_errors_pass_untouched(self, client: Client, status: int) -> None:
        answer = client.ask(f"/status/{status}")
        assert (answer.status, answer.body) == (status, b"as asked\n")
        assert answer.one("Content-Type") == "text/plain"

    @pytest.mark.parametrize("page", ["error", "maintenance"])
    def test_the_pages_are_not_there_for_themselves(self, client: Client, page: str) -> None:
        assert client.ask(f"/.flask-pages/{page}.html").status == 404


class TestMaintenance:
    """The site "closed" is in maintenance, with a page and a health check of its own."""

    @staticmethod
    def ask_closed(client: Client, target: str, **how: object) -> Answer:
        return client.ask(
            target,
            host="closed.example.org",
            sni="closed.example.org",
            **how,  # type: ignore[arg-type]
        )

    @pytest.mark.parametrize(
        ("method", "target"),
        [
            ("GET", "/"),
            ("GET", "/release?x=y"),
            ("POST", "/echo"),
            ("DELETE", "/echo"),
            ("GET", "/static/style.css"),
            ("GET", "/static/app.3f2a91bc.js"),
            ("GET", "/static/no-such-file"),
            ("GET", "/static/before.css"),
            ("GET", "/media/photo.txt"),
            ("GET", "/media/none.txt"),
            ("GET", "/echo/health/"),
            ("GET", "/echo/healthy"),
            ("GET", "/echo/health/../../release"),
            ("GET", "/.well-known/security.txt"),
            ("GET", "/.env"),
            ("GET", "/.git/config"),
            ("POST", "/.env"),
            ("GET", "/static/.secret"),
            ("GET", "/static/.hidden/file.txt"),
            ("GET", "/static/%2esecret"),
            ("GET", "/static/../.env"),
            ("GET", "/static/%2e%2e/outside.txt"),
            ("GET", "/static/..%2foutside.txt"),
            ("GET", "/static/%252e%252e/outside.txt"),
            ("GET", "/media/.photo"),
            ("GET", "/media/../.git/config"),
        ],
    )
    @pytest.mark.parametrize("headers", [[], JSON], ids=["a browser", "a program"])
    def test_visitors_get_the_page_of_the_site(
        self, client: Client, method: str, target: str, headers: list[tuple[str, str]]
    ) -> None:
        body = b"x" * 5000 if method == "POST" else b""
        answer = self.ask_closed(client, target, method=method, headers=headers, body=body)
        assert answer.status == 503
        assert answer.one("Retry-After") == "120"
        assert is_a_page(answer, "<p>Geschlossen für {{ today }}.</p>")

    @pytest.mark.parametrize("target", ["/../etc/passwd", "/%2e%2e/etc/passwd", "/static/../../etc/passwd"])
    def test_what_is_no_address_is_refused_as_ever(self, client: Client, target: str) -> None:
        opened = client.ask(target)
        closed = self.ask_closed(client, target)
        assert (opened.status, closed.status) == (400, 400)

    def test_head_answers_without_the_body(self, client: Client) -> None:
        answer = self.ask_closed(client, "/", method="HEAD")
        assert (answer.status, answer.body, answer.one("Retry-After")) == (503, b"", "120")

    def test_nobody_keeps_the_page(self, client: Client) -> None:
        first = self.ask_closed(client, "/static/app.3f2a91bc.js")
        assert first.all("Cache-Control") in ([], ["no-store"])
        again = self.ask_closed(
            client,
            "/",
            headers=[
                ("If-None-Match", "*"),
                ("If-Modified-Since", "Fri, 01 Jan 2100 00:00:00 GMT"),
                ("Range", "bytes=0-3"),
            ],
        )
        assert again.status == 503
        assert is_a_page(again, "<p>Geschlossen für {{ today }}.</p>")

    def test_who_watches_the_app_still_sees_it(self, client: Client) -> None:
        answer = self.ask_closed(client, "/echo/health?x=1")
        assert answer.status == 200
        assert json.loads(answer.body)["target"] == "/echo/health?x=1"
        assert answer.all("Retry-After") == []

    @pytest.mark.parametrize("target", ["/", "/static/style.css", "/media/photo.txt"])
    def test_everybody_sees_the_page_of_a_site_for_few(self, client: Client, target: str) -> None:
        answer = client.ask(target, host="shut.example.org", sni="shut.example.org")
        assert (answer.status, answer.one("Retry-After")) == (503, "300")
        assert answer.all("WWW-Authenticate") == []
        assert is_a_page(answer, "<h1>Back soon</h1>")

    def test_its_health_check_is_for_few_all_the_same(self, client: Client) -> None:
        answer = client.ask("/echo/health", host="shut.example.org", sni="shut.example.org")
        assert answer.status in (401, 403)
        assert b"environ" not in answer.body

    def test_plain_http_still_moves_to_the_origin(self, client: Client) -> None:
        answer = client.ask("/x", host="closed.example.org", port=80, tls=False)
        assert answer.one("Location") == "https://closed.example.org/x"

    def test_the_sites_beside_it_are_open(self, client: Client) -> None:
        assert client.ask("/release").body == b"one"
