"""Endpoints that load a deployment in known ways; all of them are bounded."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterator

from flask import Blueprint, Response, jsonify, request, url_for
from werkzeug.exceptions import BadRequest

blueprint = Blueprint("instruments", __name__)

BLOCK = bytes(range(256)) * 256  # 64 KiB; the stream repeats it, so its digest is predictable
MOST_BYTES = 1 << 30
MOST_SECONDS = 60.0
MOST_MILLISECONDS = 10_000.0
MOST_ECHO = 1 << 16  # bytes of a body that /echo gives back


@blueprint.errorhandler(BadRequest)
def refuse(error: BadRequest) -> tuple[Response, int]:
    return jsonify(error=error.description), 400


@blueprint.get("/json")
def small() -> Response:
    """A small answer, for benchmarks."""
    return jsonify(message="hello", numbers=[1, 2, 3], ok=True)


@blueprint.get("/stream")
def stream() -> Response:
    """Send ``bytes`` bytes (default 1 MiB), one block at a time."""
    size = int(_number("bytes", 1 << 20, MOST_BYTES))

    def blocks() -> Iterator[bytes]:
        for _ in range(size // len(BLOCK)):
            yield BLOCK
        if size % len(BLOCK):
            yield BLOCK[: size % len(BLOCK)]

    response = Response(blocks(), mimetype="application/octet-stream")
    response.content_length = size
    return response


@blueprint.route("/upload", methods=["POST", "PUT"])
def upload() -> Response:
    """Read a body of any size in blocks; answer its size and digest."""
    digest, size = hashlib.sha256(), 0
    while block := request.stream.read(len(BLOCK)):
        digest.update(block)
        size += len(block)
    return jsonify(bytes=size, sha256=digest.hexdigest())


@blueprint.get("/sleep")
def sleep() -> Response:
    """Wait for ``seconds`` seconds, as for a slow neighbour."""
    seconds = _number("seconds", 1, MOST_SECONDS)
    time.sleep(seconds)
    return jsonify(slept=seconds)


@blueprint.get("/burn")
def burn() -> Response:
    """Keep the processor busy for ``ms`` milliseconds of this thread's own time."""
    milliseconds = _number("ms", 5, MOST_MILLISECONDS)
    end = time.thread_time() + milliseconds / 1000
    rounds = 0
    while time.thread_time() < end:
        sum(range(200))
        rounds += 1
    return jsonify(burnt=milliseconds, rounds=rounds)


@blueprint.route("/echo", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
def echo() -> Response:
    """Give the request back as the app sees it."""
    return jsonify(
        method=request.method,
        path=request.path,
        query=request.query_string.decode("latin-1"),
        scheme=request.scheme,
        host=request.host,
        client=request.remote_addr,
        prefix=request.script_root,
        external=url_for("pages.index", _external=True),
        headers=[[name, value] for name, value in request.headers.items()],
        body=request.stream.read(MOST_ECHO).decode("utf-8", "replace"),
    )


def _number(name: str, default: float, most: float) -> float:
    text = request.args.get(name, str(default))
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= most:  # false for nan, too
        raise BadRequest(f"{name} is {text!r}; it must be a number from 0 to {most:.0f}.")
    return value
