"""Endpoints that load a deployment in known ways."""

from __future__ import annotations

import hashlib
import time

import pytest
from flask.testing import FlaskClient


def test_a_small_answer(client: FlaskClient) -> None:
    assert client.get("/json").get_json() == {"message": "hello", "numbers": [1, 2, 3], "ok": True}


@pytest.mark.parametrize(("size", "expected"), [("0", 0), ("1", 1), ("65536", 65536), ("200001", 200001)])
def test_a_download_has_its_length(client: FlaskClient, size: str, expected: int) -> None:
    response = client.get(f"/stream?bytes={size}")
    assert response.headers["Content-Length"] == size
    assert len(response.data) == expected


def test_a_download_is_predictable(client: FlaskClient) -> None:
    digest = hashlib.sha256(client.get("/stream?bytes=1000").data).hexdigest()
    assert digest == hashlib.sha256((bytes(range(256)) * 4)[:1000]).hexdigest()
    assert client.get("/stream").headers["Content-Length"] == "1048576"


def test_a_huge_download_is_not_held_in_memory(client: FlaskClient) -> None:
    response = client.get("/stream?bytes=1073741824", buffered=False)
    assert response.headers["Content-Length"] == "1073741824"
    assert len(next(iter(response.response))) == 65536
    response.close()


@pytest.mark.parametrize("method", ["post", "put"])
def test_an_upload_is_counted_and_digested(client: FlaskClient, method: str) -> None:
    response = getattr(client, method)("/upload", data=b"hello")
    assert response.get_json() == {
        "bytes": 5,
        "sha256": "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
    }


def test_an_upload_may_be_larger_than_a_block(client: FlaskClient) -> None:
    assert client.post("/upload", data=b"x" * 300_000).get_json()["bytes"] == 300_000


def test_a_wait(client: FlaskClient) -> None:
    before = time.monotonic()
    assert client.get("/sleep?seconds=0.05").get_json() == {"slept": 0.05}
    assert time.monotonic() - before >= 0.05


def test_some_work(client: FlaskClient) -> None:
    before = time.thread_time()
    answer = client.get("/burn?ms=20").get_json()
    assert time.thread_time() - before >= 0.02
    assert answer["burnt"] == 20
    assert answer["rounds"] > 0


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("/stream?bytes=1073741825", "bytes is '1073741825'; it must be a number from 0 to 1073741824."),
        ("/stream?bytes=lots", "bytes is 'lots'; it must be a number from 0 to 1073741824."),
        ("/sleep?seconds=61", "seconds is '61'; it must be a number from 0 to 60."),
        ("/sleep?seconds=nan", "seconds is 'nan'; it must be a number from 0 to 60."),
        ("/burn?ms=-1", "ms is '-1'; it must be a number from 0 to 10000."),
        ("/burn?ms=inf", "ms is 'inf'; it must be a number from 0 to 10000."),
    ],
)
def test_bounds(client: FlaskClient, path: str, sentence: str) -> None:
    response = client.get(path)
    assert (response.status_code, response.get_json()) == (400, {"error": sentence})


def test_an_echo(client: FlaskClient) -> None:
    answer = client.post("/echo?a=1", data="body", headers={"X-Test": "yes"}).get_json()
    assert (answer["method"], answer["path"], answer["query"]) == ("POST", "/echo", "a=1")
    assert (answer["scheme"], answer["client"], answer["body"]) == ("https", "203.0.113.7", "body")
    assert ["X-Test", "yes"] in answer["headers"]
