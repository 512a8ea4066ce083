"""A Flask app that somebody broke into: it tries what it is told. Runs on the host, in its sandbox."""

from __future__ import annotations

import logging
import os
from importlib import import_module
from typing import Any

import flask

app = flask.Flask(__name__)


@app.get("/")
def index() -> str:
    return "served"


@app.post("/attempts")
def attempts() -> Any:
    return import_module("breakout").outcomes(flask.request.get_json())


@app.get("/work")
def labour() -> Any:
    logging.getLogger("gunicorn.error").info("working")
    return import_module("work").results(os.environ["SHARED_DIRECTORY"])
