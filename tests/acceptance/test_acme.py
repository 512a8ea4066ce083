"""A certificate authority finds the proofs that lie in the webroot, on plain HTTP and before the redirect."""

from __future__ import annotations

import pytest
from ansible_collections.flaskworks.server.tests.acceptance.client import Client

CHALLENGES = "/.well-known/acme-challenge"
PROOF = f"{CHALLENGES}/evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA"


@pytest.mark.parametrize(
    ("host", "port"),
    [("hello.example.org", 80), ("www.hello.example.org", 80), ("away.example.org:8080", 8080)],
)
def test_a_proof_is_found_under_every_name(client: Client, host: str, port: int) -> None:
    answer = client.ask(PROOF, host=host, port=port, tls=False)
    assert (answer.status, answer.body) == (200, b"proof")


@pytest.mark.parametrize("path", [f"{CHALLENGES}/missing", f"{CHALLENGES}/"])
def test_what_is_no_proof_is_not_there(client: Client, path: str) -> None:
    answer = client.ask(path, port=80, tls=False)
    assert answer.status in (403, 404)
    assert b"evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ" not in answer.body


@pytest.mark.parametrize(
    "path", [f"{CHALLENGES}/../other", f"{CHALLENGES}/%2e%2e/other", "/.well-known/other"]
)
def test_nothing_beside_the_proofs_is_served(client: Client, path: str) -> None:
    answer = client.ask(path, port=80, tls=False)
    assert answer.status != 200
    assert answer.body != b"other"


def test_strange_names_find_none(client: Client) -> None:
    assert client.ask(PROOF, host="unknown.example.org", port=80, tls=False).status == 421
