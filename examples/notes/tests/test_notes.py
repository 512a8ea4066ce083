from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

sys.path.insert(0, str(Path(__file__).parent.parent))


@pytest.fixture
def client() -> FlaskClient:
    app: Flask = import_module("notes").app
    return app.test_client()


def test_alive(client: FlaskClient) -> None:
    response = client.get("/health/live")
    assert (response.status_code, response.get_json()) == (200, {"status": "ok"})


def test_a_note_is_pinned(client: FlaskClient) -> None:
    assert "The board is empty." in client.get("/").text
    response = client.post("/notes", data={"text": " buy  <b>milk</b> "})
    assert (response.status_code, response.location) == (303, "/")
    assert "<li>buy &lt;b&gt;milk&lt;/b&gt;</li>" in client.get("/").text
    assert client.get("/api/notes").get_json()["notes"] == ["buy <b>milk</b>"]


def test_an_empty_note_is_not(client: FlaskClient) -> None:
    client.post("/notes", data={"text": "  "})
    assert client.get("/api/notes").get_json()["notes"] == []


@pytest.mark.parametrize("cookie", ["", "{", "7", '["a", 1, null]', "[" * 3000])
def test_a_strange_cookie_does_no_harm(client: FlaskClient, cookie: str) -> None:
    client.set_cookie("notes", cookie)
    assert client.get("/").status_code == 200


def test_full_board_fits_into_a_cookie(client: FlaskClient) -> None:
    for _ in range(7):
        client.post("/notes", data={"text": "ü" * 200})
    cookie = client.get_cookie("notes")
    assert cookie is not None
    assert len(cookie.value) < 3900
    assert client.get("/api/notes").get_json()["notes"] == ["ü" * 80] * 6


def test_forwarded_headers_are_not_believed_by_default(client: FlaskClient) -> None:
    headers = {"X-Forwarded-For": "198.51.100.9", "X-Forwarded-Proto": "https"}
    answer = client.get("/api/notes", headers=headers).get_json()
    assert (answer["scheme"], answer["client"]) == ("http", "127.0.0.1")
