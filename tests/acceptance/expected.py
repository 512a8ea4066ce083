"""What more than one file of tests expects of the sites in target/sites.yml."""

from __future__ import annotations

import json

from ansible_collections.flaskworks.server.tests.acceptance.client import Answer, Client

ORIGIN = "https://hello.example.org"
SECURITY_HEADERS = {
    "Strict-Transport-Security": "max-age=63072000",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "SAMEORIGIN",
    "Referrer-Policy": "strict-origin-when-cross-origin",
    "Content-Security-Policy": "frame-ancestors 'self'",
    "Reporting-Endpoints": 'default="https://reports.example.org/"',
}


def seen_by_app(answer: Answer) -> dict[str, str]:
    """Return the variables that the app has got, of an answer to /echo."""
    assert answer.status == 200
    seen = json.loads(answer.body)["environ"]
    assert isinstance(seen, dict)
    return seen


def heard(client: Client, word: str) -> int:
    """Return how many requests with this word in their target have reached the app."""
    answer = client.ask(f"/heard/{word}")
    assert answer.status == 200
    return int(answer.body)


def secured(answer: Answer) -> None:
    """Assert that every security header of the site is there once, with its own value."""
    assert {name: answer.all(name) for name in SECURITY_HEADERS} == {
        name: [value] for name, value in SECURITY_HEADERS.items()
    }
