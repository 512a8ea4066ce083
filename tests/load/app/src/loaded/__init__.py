"""The app under load. Every answer says in X-Release which version gave it."""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterator

from flask import Flask, Response, request

from .version import BROKEN, VERSION

BLOCK = bytes(range(256)) * 1024
LONGEST = 20.0
LARGEST = 200_000_000

if BROKEN == "import":
    raise RuntimeError("broken on purpose: import")

app = Flask(__name__)


@app.after_request
def say_version(response: Response) -> Response:
    response.headers["X-Release"] = VERSION
    return response


@app.get("/")
def index() -> str:
    return "hello\n"


@app.get("/healthz")
def health() -> tuple[str, int]:
    if BROKEN == "hang":
        time.sleep(60)
    return ("broken on purpose: health\n", 503) if BROKEN == "health" else ("ok\n", 200)


@app.get("/slow")
def slow() -> str:
    time.sleep(min(LONGEST, float(request.args["seconds"])))
    return "hello at last\n"


@app.post("/echo")
def echo() -> Response:
    return Response(request.get_data(), mimetype="application/octet-stream")


@app.post("/upload")
def upload() -> str:
    """Count and sum what comes, without keeping it."""
    size, checksum = 0, 0
    while piece := request.stream.read(len(BLOCK)):
        size += len(piece)
        checksum = zlib.crc32(piece, checksum)
        time.sleep(0)  # lets the other requests of a gevent worker in
    return f"{size} {checksum:08x}"


@app.get("/download")
def download() -> Response:
    size = min(LARGEST, int(request.args["bytes"]))

    def pieces() -> Iterator[bytes]:
        for begin in range(0, size, len(BLOCK)):
            yield BLOCK[: size - begin]
            time.sleep(0)  # as above

    return Response(pieces(), headers={"Content-Length": str(size)}, mimetype="application/octet-stream")
