"""A small app for the tests of a deploy: says which release answers, and breaks when it is told to."""

from __future__ import annotations

import os
import signal
import threading
import time

from flask import Flask

VERSION = "one"

if os.environ.get("BREAK") == "import":
    raise RuntimeError("broken on purpose: import")
if os.environ.get("BREAK") == "slow":
    time.sleep(3)


def end_once_live() -> None:
    """Kill the master when this release serves, as a crash after the switch would."""
    while os.path.basename(os.path.realpath("/srv/hello/current")) != os.environ["FLASK_RELEASE"]:
        time.sleep(0.1)
    time.sleep(1)
    os.kill(os.getppid(), signal.SIGKILL)


def create_app() -> Flask:
    app = Flask(__name__)
    how = os.environ.get("BREAK", "")
    if how == "crash":
        threading.Thread(target=end_once_live, daemon=True).start()

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
