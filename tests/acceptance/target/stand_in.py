"""The app behind the acceptance tests: it says what reached it and answers what it is asked for.

Plain WSGI and nothing else, so that only the proxy and gunicorn stand between it and the test.
The environment variable RELEASE names the release it plays.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import select
import socket
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

Start = Callable[[str, list[tuple[str, str]]], Any]
PLAIN = ("Content-Type", "text/plain")

HEARD: deque[str] = deque(maxlen=10_000)
"""The targets of the latest requests, those that nobody should have sent among them."""

FRAMES = {
    "policy": ("Content-Security-Policy", "frame-ancestors https://partner.example.org; img-src *"),
    "options": ("X-Frame-Options", "DENY"),
}
"""What the app may say of frames."""

FLAGS: defaultdict[str, threading.Event] = defaultdict(threading.Event)
"""What tests and requests in progress tell each other, by a name that a test has made up."""

PATIENCE = 60
"""Seconds until a request in progress stops to wait for a flag."""


def application(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
    verb, _, argument = environ["PATH_INFO"].lstrip("/").partition("/")
    if verb == "heard":
        count = sum(argument in target for target in HEARD)
        return _answer(start, "200 OK", str(count).encode(), "text/plain")
    HEARD.append(environ["RAW_URI"])
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
                ("X-Powered-By", "Stand-in/1.0 Python/3"),
                ("X-Kept", "yes"),
            ],
        )
        return [b"own headers\n"]
    if verb == "frames":
        start("200 OK", [PLAIN, *(FRAMES[name] for name in argument.split("+"))])
        return [b"who may show this in a frame\n"]
    if verb == "raises":
        raise RuntimeError("as asked")
    if verb == "big-header":
        start(
            "200 OK", [PLAIN, ("Set-Cookie", f"session={'x' * 4000}"), ("Set-Cookie", f"other={'y' * 4000}")]
        )
        return [b"big header\n"]
    if verb == "slow":
        time.sleep(float(argument))
        return _answer(start, "200 OK", b"at last\n", "text/plain")
    if verb == "raise":
        FLAGS[argument].set()
        return _answer(start, "200 OK", b"raised\n", "text/plain")
    if verb == "flag":
        return _answer(start, "200 OK", str(FLAGS[argument].is_set()).encode(), "text/plain")
    if verb == "events":
        start("200 OK", [("Content-Type", "text/event-stream"), ("X-Accel-Buffering", "no")])
        return _events(argument)
    if verb == "endless":
        start("200 OK", [PLAIN])
        return _endless(argument)
    if verb == "nothing":
        start("204 No Content", [])
        return []
    if verb == "broken":
        environ["gunicorn.socket"].shutdown(socket.SHUT_RDWR)
        raise StopIteration  # gunicorn then leaves the connection alone
    if verb == "cut":
        length = [("Content-Length", "200000")] if argument == "length" else []
        start("200 OK", [PLAIN, *length])
        return _cut()
    if verb == "version":
        return _version(environ, start)
    if verb == "packed":
        start("200 OK", [PLAIN, ("Content-Encoding", "gzip"), ("Content-Length", "4000")])
        return [b"x" * 4000]
    if verb == "websocket":
        _websocket(environ["gunicorn.socket"], environ["HTTP_SEC_WEBSOCKET_KEY"])
        raise StopIteration  # gunicorn then leaves the connection alone
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


def _events(flag: str) -> Iterator[bytes]:
    yield b"data: first\n\n"
    end = time.monotonic() + PATIENCE
    while not FLAGS[flag].wait(0.5) and time.monotonic() < end:
        yield b": still here\n\n"  # keeps the proxy from giving up
    if FLAGS[flag].is_set():
        yield b"data: second\n\n"


def _endless(flag: str) -> Iterator[bytes]:
    end = time.monotonic() + PATIENCE
    try:
        while time.monotonic() < end:
            yield b"more\n" * 1000
            time.sleep(0.01)
    except GeneratorExit:
        FLAGS[flag].set()
        raise


def _cut() -> Iterator[bytes]:
    yield b"x" * 100_000
    raise RuntimeError("as asked")


def _version(environ: dict[str, Any], start: Start) -> list[bytes]:
    """A page that knows when a browser has it already."""
    tag = '"version-1"'
    if tag in environ.get("HTTP_IF_NONE_MATCH", ""):
        start("304 Not Modified", [("ETag", tag)])
        return []
    body = b"<p>The first version of a page.</p>\n" * 200
    start("200 OK", [("Content-Type", "text/html"), ("Content-Length", str(len(body))), ("ETag", tag)])
    return [body]


def _websocket(connection: socket.socket, key: str) -> None:
    """Send back what comes, until the other side closes (RFC 6455)."""
    accept = hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()
    connection.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + base64.b64encode(accept) + b"\r\n\r\n"
    )
    end = time.monotonic() + PATIENCE
    frames = connection.makefile("rb", buffering=0)
    while time.monotonic() < end:
        if not select.select([connection], [], [], 0.5)[0]:
            connection.sendall(b"\x89\x00")  # a ping keeps the proxy from giving up
            continue
        head = _exactly(frames, 2)
        length = head[1] & 0x7F
        if length == 126:
            length = int.from_bytes(_exactly(frames, 2), "big")
        mask = _exactly(frames, 4)
        data = bytes(byte ^ mask[index % 4] for index, byte in enumerate(_exactly(frames, length)))
        size = bytes([length]) if length < 126 else b"\x7e" + length.to_bytes(2, "big")
        connection.sendall(head[:1] + size + data)
        if head[0] & 0x0F == 8:
            return


def _exactly(file: Any, length: int) -> bytes:
    data = b""
    while len(data) < length:
        more = file.read(length - len(data))
        if not more:
            raise EOFError
        data += more
    return data
