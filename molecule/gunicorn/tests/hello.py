"""A WSGI app that tells what it got from its service. Runs on the host; standard library only."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

IMPORTED_BY = os.getpid()


def create_app(greeting: str) -> Callable[..., Iterable[bytes]]:
    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        query = {key: values[0] for key, values in parse_qs(environ["QUERY_STRING"]).items()}
        answer: dict[str, Any] = {
            "greeting": greeting,
            "environment": dict(os.environ),
            "scheme": environ["wsgi.url_scheme"],
            "script": environ.get("SCRIPT_NAME", ""),
            "master": os.getppid(),
            "imported_by": IMPORTED_BY,
            "server": environ["SERVER_SOFTWARE"],
            "threads": environ["wsgi.multithread"],
        }
        if "raise" in query:
            words = f"words of {query['raise']}"
            logging.getLogger("gunicorn.error").warning(words)
        if "sleep" in query:
            time.sleep(float(query["sleep"]))
        if "write" in query:
            try:
                Path(query["write"]).write_text("x")
                answer["write"] = "written"
            except OSError as error:
                answer["write"] = error.strerror
        if "raise" in query:
            raise RuntimeError("as asked")
        write = start_response(query.get("status", "200 OK"), [("Content-Type", "application/json")])
        if "written" in query:
            write(b"by the oldest way")
        return [json.dumps(answer).encode()]

    return app
