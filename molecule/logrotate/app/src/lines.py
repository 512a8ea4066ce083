"""Writes a line in every way in which an app writes lines, each with the number of its request."""

from __future__ import annotations

import logging
import sys
import time

from flask import Flask, request

VERSION = "one"

app = Flask(__name__)


@app.get("/healthz")
def health() -> str:
    return "ok\n"


@app.get("/lines/<int:number>")
def lines(number: int) -> str:
    print(f"began {number}.")
    time.sleep(min(5.0, float(request.args.get("seconds", 0))))
    print(f"printed {number}.")
    print(f"complained {number}.", file=sys.stderr)
    app.logger.warning("flask %d.", number)
    logging.getLogger("gunicorn.error").warning("gunicorn %d.", number)
    return VERSION


@app.get("/long/<int:size>")
def long(size: int) -> str:
    print("x" * min(10_000_000, size))
    return VERSION
