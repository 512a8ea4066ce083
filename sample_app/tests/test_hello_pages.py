"""What a visitor, a proxy and a deployment get to see."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from hello import create_app


def token_of(page: str) -> str:
    found = re.search(r'name="token" value="([^"]+)"', page)
    assert found
    return found[1]


def test_the_page_shows_its_deployment(client: FlaskClient) -> None:
    response = client.get("/")
    page = response.text
    assert response.status_code == 200
    assert response.headers["Cache-Control"] == "no-store"
    assert "<code>20261120T120000Z-0123456789</code>" in page
    assert "<dt>Scheme</dt><dd>https</dd>" in page
    assert "<dt>Host</dt><dd>hello.example.org</dd>" in page
    assert "<dt>Visitor</dt><dd>203.0.113.7</dd>" in page
    assert 'class="check passed" data-check="proxy"' in page
    assert 'class="check unknown" data-check="static"' in page


def test_the_page_obeys_a_strict_content_security_policy(client: FlaskClient) -> None:
    for path in ("/", "/nowhere"):
        page = client.get(path).text
        assert "default-src 'none'; style-src 'self'; script-src 'self'" in page
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=|<script>|javascript:|https?://", page)


def test_the_session_cookie(client: FlaskClient) -> None:
    cookie = client.get("/").headers["Set-Cookie"]
    assert cookie.startswith("__Host-hello=")
    assert cookie.endswith("; Secure; HttpOnly; Path=/; SameSite=Lax")


def test_the_same_as_json(client: FlaskClient) -> None:
    answer = client.get("/api/deployment").get_json()
    assert answer["release"] == "20261120T120000Z-0123456789"
    assert (answer["scheme"], answer["host"], answer["client"]) == (
        "https",
        "hello.example.org",
        "203.0.113.7",
    )
    assert (answer["prefix"], answer["forwarded_hops"]) == ("", 1)
    assert list(answer["checks"]) == ["debug", "secret_key", "cookies", "https", "proxy", "static", "account"]
    assert answer["checks"]["https"] == {
        "passed": True,
        "title": "HTTPS",
        "explanation": "This page came over HTTPS.",
    }


def test_without_hops_forwarded_headers_are_not_believed(environment: dict[str, str]) -> None:
    client = create_app(environment | {"FORWARDED_HOPS": "0"}).test_client()
    headers = {"X-Forwarded-For": "198.51.100.9", "X-Forwarded-Proto": "https", "X-Forwarded-Prefix": "/evil"}
    answer = client.get("/api/deployment", headers=headers).get_json()
    assert (answer["scheme"], answer["client"], answer["prefix"]) == ("http", "127.0.0.1", "")
    assert answer["checks"]["proxy"]["passed"] is False


def test_a_forwarded_host_is_never_believed(client: FlaskClient) -> None:
    answer = client.get("/echo", headers={"X-Forwarded-Host": "evil.example.com"}).get_json()
    assert answer["host"] == "hello.example.org"
    assert answer["external"] == "https://hello.example.org/"


def test_a_prefix_reaches_every_address(client: FlaskClient) -> None:
    page = client.get("/", headers={"X-Forwarded-Prefix": "/app"}).text
    assert 'href="/app/static/hello.css"' in page
    assert 'action="/app/guest-book"' in page
    assert "<dt>Prefix</dt><dd>/app</dd>" in page


def test_static_files_from_python_carry_a_mark(client: FlaskClient) -> None:
    assert client.get("/api/deployment").get_json()["checks"]["static"]["passed"] is None
    response = client.get("/static/hello.css")
    assert response.headers["X-Served-By-App"] == "hello"
    assert "X-Served-By-App" not in client.get("/").headers
    assert client.get("/api/deployment").get_json()["checks"]["static"]["passed"] is False


def test_a_missing_static_file_is_no_evidence(client: FlaskClient) -> None:
    assert client.get("/static/nothing.css").status_code == 404
    assert client.get("/api/deployment").get_json()["checks"]["static"]["passed"] is None


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("hello.css", "text/css; charset=utf-8"),
        ("hello.js", "text/javascript; charset=utf-8"),
        ("logo.svg", "image/svg+xml; charset=utf-8"),
        ("favicon.svg", "image/svg+xml; charset=utf-8"),
    ],
)
def test_static_files(client: FlaskClient, name: str, kind: str) -> None:
    response = client.get(f"/static/{name}")
    assert (response.status_code, response.headers["Content-Type"]) == (200, kind)
    assert "http://" not in response.text.replace("http://www.w3.org/2000/svg", "")


def test_errors_look_like_the_page(client: FlaskClient) -> None:
    response = client.get("/nowhere")
    assert (response.status_code, response.mimetype) == (404, "text/html")
    assert "<h1>Not Found</h1>" in response.text
    assert set(client.delete("/").headers["Allow"].split(", ")) == {"GET", "HEAD", "OPTIONS"}


def test_alive(client: FlaskClient) -> None:
    response = client.get("/healthz")
    assert response.status_code == 200
    assert response.get_json()["status"] == "ok"
    assert response.get_json()["release"] == "20261120T120000Z-0123456789"


def test_ready(client: FlaskClient) -> None:
    response = client.get("/readyz")
    assert response.status_code == 200
    assert response.get_json() == {"status": "ready", "release": "20261120T120000Z-0123456789"}


def test_not_migrated(environment: dict[str, str]) -> None:
    client = create_app(environment | {"HELLO_MIGRATE": "0"}).test_client()
    response = client.get("/readyz")
    assert response.status_code == 503
    assert response.get_json()["reason"] == "The database does not exist; run: flask --app hello migrate."
    assert client.get("/healthz").status_code == 200
    page = client.get("/")
    assert page.status_code == 200
    assert "The book is closed. The database does not exist; run: flask --app hello migrate." in page.text
    assert "<form" not in page.text


def test_no_database_at_all(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "hello.db").write_text(
        "this is no database, this is a text of more than a hundred bytes. " * 20
    )
    client = create_app(environment | {"HELLO_MIGRATE": "0"}).test_client()
    response = client.get("/readyz")
    assert response.status_code == 503
    assert response.get_json()["reason"] == "The database cannot be read: file is not a database."
    assert client.get("/").status_code == 200


def test_a_line_in_the_guest_book(client: FlaskClient) -> None:
    token = token_of(client.get("/").text)
    form = {"token": token, "name": " Ada ", "message": "<b>calm</b>\nand quick"}
    response = client.post("/guest-book", data=form)
    assert (response.status_code, response.location) == (303, "/#guest-book")
    page = client.get("/").text
    assert "<p>&lt;b&gt;calm&lt;/b&gt; and quick</p><small>Ada · " in page
    assert "under <code>20261120T120000Z-0123456789</code>" in page
    assert "Thank you, your line is in the book." in page


@pytest.mark.parametrize(("name", "message"), [("", "x"), ("x", " "), ("n" * 41, "x"), ("x", "m" * 201)])
def test_lines_of_a_wrong_length_are_refused(client: FlaskClient, name: str, message: str) -> None:
    token = token_of(client.get("/").text)
    client.post("/guest-book", data={"token": token, "name": name, "message": message})
    page = client.get("/").text
    assert "A name has 1 to 40 characters, a message 1 to 200." in page
    assert '<ol class="entries">' not in page


@pytest.mark.parametrize("token", ["", "forged", "ümlaut"])
def test_a_forged_form_writes_nothing(client: FlaskClient, token: str) -> None:
    client.get("/")
    response = client.post("/guest-book", data={"token": token, "name": "M", "message": "x"})
    assert response.status_code == 400
    assert "<h1>This form is too old</h1>" in response.text
    assert '<ol class="entries">' not in client.get("/").text


def test_a_form_without_a_session_writes_nothing(client: FlaskClient) -> None:
    assert client.post("/guest-book", data={"token": "", "name": "M", "message": "x"}).status_code == 400


def test_a_book_that_vanished(client: FlaskClient, app: Flask) -> None:
    token = token_of(client.get("/").text)
    Path(app.config["DATABASE_PATH"]).unlink()
    client.post("/guest-book", data={"token": token, "name": "Ada", "message": "x"})
    assert "Nothing was written. The database does not exist" in client.get("/").text
