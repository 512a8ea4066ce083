"""A board of notes: one flat module, no factory, no secret, nothing on disk.

The notes of a visitor live in the visitor's own cookie, so any worker of any release shows them.
"""

from __future__ import annotations

import json
import os
import platform

from flask import Flask, jsonify, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from werkzeug.middleware.proxy_fix import ProxyFix

LONGEST = 80  # characters of a note
MOST = 6  # notes; even with every character escaped they fit into a cookie of 4096 bytes

app = Flask(__name__)
hops = int(os.environ.get("FORWARDED_HOPS", "0"))
if hops:
    # Host is set by the proxy; a forwarded one could be forged.
    app.wsgi_app = ProxyFix(  # type: ignore[method-assign]  # the way Flask documents it
        app.wsgi_app, x_for=hops, x_proto=hops, x_host=0, x_port=0, x_prefix=hops
    )


def pinned() -> list[str]:
    """Read the visitor's notes; a cookie may hold anything."""
    try:
        found = json.loads(request.cookies.get("notes", "[]"))
    except (ValueError, RecursionError):
        return []
    texts = [text for text in found if isinstance(text, str)] if isinstance(found, list) else []
    return [text[:LONGEST] for text in texts[:MOST]]


@app.get("/")
def board() -> ResponseReturnValue:
    return render_template("board.html", notes=pinned(), longest=LONGEST)


@app.post("/notes")
def pin() -> ResponseReturnValue:
    response = redirect(url_for("board"), 303)
    text = " ".join(request.form.get("text", "").split())[:LONGEST]
    if text:
        kept = json.dumps([text, *pinned()][:MOST])
        response.set_cookie("notes", kept, secure=request.is_secure, httponly=True, samesite="Lax")
    return response


@app.get("/api/notes")
def api() -> ResponseReturnValue:
    return jsonify(
        notes=pinned(),
        release=os.environ.get("FLASK_RELEASE", "development"),
        python=platform.python_version(),
        pid=os.getpid(),
        scheme=request.scheme,
        host=request.host,
        client=request.remote_addr,
    )


@app.get("/health/live")
def live() -> ResponseReturnValue:
    return jsonify(status="ok")
