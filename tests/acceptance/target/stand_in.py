"""The app behind the acceptance tests: it says what reached it and answers what it is asked for.

Plain WSGI and nothing else, so that only the proxy and gunicorn stand between it and the test.
The environment variable RELEASE names the release it plays.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

Start = Callable[[str, list[tuple[str, str]]], Any]
PLAIN = ("Content-Type", "text/plain")


def application(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
    verb, _, argument = environ["PATH_INFO"].lstrip("/").partition("/")
    if verb == "echo" or environ["PATH_INFO"].startswith("/static/app/"):
        body = environ["wsgi.input"].read()
        seen = {
            name: value
            for name, value in environ.items()
            if name.startswith("HTTP_") or name == "SCRIPT_NAME"
        }
        heard = {
            "method": environ["REQUEST_METHOD"],
            "target": environ["RAW_URI"],
            "body": len(body),
            "environ": seen,
        }
        return _answer(start, "200 OK", json.dumps(heard).encode(), "application/json")
    if verb == "bytes":
        return _answer(start, "200 OK", _pattern(int(argument)), "application/octet-stream")
    if verb == "stream":
        start("200 OK", [PLAIN])
        return _chunks(int(argument))
    if verb == "page":
        return _answer(
            start,
            "200 OK",
            b"<p>All work and no play makes a dull page.</p>\n" * 200,
            "text/html; charset=utf-8",
        )
    if verb == "status":
        return _answer(start, f"{argument} As asked", b"as asked\n", "text/plain")
    if verb == "own-headers":
        start(
            "200 OK",
            [
                PLAIN,
                ("X-Content-Type-Options", "from-the-app"),
                ("Strict-Transport-Security", "max-age=1"),
                ("X-Request-ID", "from-the-app"),
                ("X-Kept", "yes"),
            ],
        )
        return [b"own headers\n"]
    if verb == "big-header":
        start(
            "200 OK", [PLAIN, ("Set-Cookie", f"session={'x' * 4000}"), ("Set-Cookie", f"other={'y' * 4000}")]
        )
        return [b"big header\n"]
    if verb == "slow":
        time.sleep(float(argument))
        return _answer(start, "200 OK", b"at last\n", "text/plain")
    if verb == "release":
        return _answer(start, "200 OK", os.environ["RELEASE"].encode(), "text/plain")
    return _answer(start, "404 Not Found", b"nothing here\n", "text/plain")


def _answer(start: Start, status: str, body: bytes, kind: str) -> list[bytes]:
    start(status, [("Content-Type", kind), ("Content-Length", str(len(body)))])
    return [body]


def _pattern(length: int) -> bytes:
    return (bytes(range(256)) * (length // 256 + 1))[:length]


def _chunks(count: int) -> Iterator[bytes]:
    for number in range(count):
        yield f"{number:07}\n".encode()
