"""A small app for the tests of a deploy: says which release answers, and breaks when it is told to."""

from __future__ import annotations

import os
import time

from flask import Flask

VERSION = "one"

if os.environ.get("BREAK") == "import":
    raise RuntimeError("broken on purpose: import")


def create_app() -> Flask:
    app = Flask(__name__)
    how = os.environ.get("BREAK", "")

    @app.get("/")
    def index() -> dict[str, str]:
        return {
            "version": VERSION,
            "release": os.environ["FLASK_RELEASE"],
            "feature": os.environ.get("FEATURE", ""),
        }

    @app.get("/healthz")
    def health() -> tuple[str, int]:
        if how == "hang":
            time.sleep(60)
        return ("broken on purpose: health", 503) if how == "health" else ("ok", 200)

    return app
