"""The page, the same as JSON, the guest book, and the two questions about health."""

from __future__ import annotations

import os
import secrets
import sqlite3
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flask import (
    Blueprint,
    Response,
    current_app,
    flash,
    jsonify,
    redirect,
    render_template,
    request,
    session,
    url_for,
)
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as Answer

from hello import database, deployment
from hello.breakage import Counter

blueprint = Blueprint("pages", __name__)

LONGEST_NAME = 40
LONGEST_MESSAGE = 200

static_answers = Counter()  # static files answered by this process instead of the proxy
started = datetime.now(UTC)


@blueprint.get("/")
def index() -> Response:
    """Show the deployment."""
    checks = checklist()
    settled = {
        passed: deployment.headline([replace(c, passed=passed) if c.name == "static" else c for c in checks])
        for passed in (True, False)
    }
    reason, entries = guest_book()
    response = Response(
        render_template(
            "index.html",
            about=about(),
            checks=checks,
            headline=deployment.headline(checks),
            settled=settled,
            static_passed=deployment.STATIC_PASSED,
            static_failed=deployment.STATIC_FAILED,
            entries=entries,
            not_ready=reason,
            token=form_token(),
            longest_name=LONGEST_NAME,
            longest_message=LONGEST_MESSAGE,
        )
    )
    return _fresh(response)


@blueprint.post("/guest-book")
def write() -> Answer:
    """Add an entry, then show the page again."""
    expected, given = session.get("token", ""), request.form.get("token", "")
    if not expected or not secrets.compare_digest(expected.encode(), given.encode()):
        return Response(
            render_template(
                "message.html",
                title="This form is too old",
                text="Load the page again and send it once more. Over plain HTTP the session cookie is lost.",
            ),
            400,
        )
    name = " ".join(request.form.get("name", "").split())
    message = " ".join(request.form.get("message", "").split())
    if not (0 < len(name) <= LONGEST_NAME and 0 < len(message) <= LONGEST_MESSAGE):
        flash(f"A name has 1 to {LONGEST_NAME} characters, a message 1 to {LONGEST_MESSAGE}.")
    else:
        try:
            database.require(_path())
            database.write(_path(), name, message, current_app.config["RELEASE"])
            flash("Thank you, your line is in the book.")
        except (database.NotReadyError, sqlite3.Error) as error:
            flash(f"Nothing was written. {error}")
    return redirect(url_for("pages.index", _anchor="guest-book"), 303)


@blueprint.get("/api/deployment")
def api_deployment() -> Response:
    """Answer what the page shows."""
    checks = {
        check.name: {"passed": check.passed, "title": check.title, "explanation": check.explanation}
        for check in checklist()
    }
    return _fresh(jsonify(**about(), checks=checks))


@blueprint.get("/healthz")
def health() -> tuple[Response, int]:
    """Alive: the process answers."""
    release = current_app.config["RELEASE"]
    if current_app.config["BREAKAGE"].health:
        return _fresh(jsonify(status="failing", reason="HELLO_BREAK=health", release=release)), 503
    return _fresh(jsonify(status="ok", release=release, pid=os.getpid())), 200


@blueprint.get("/readyz")
def ready() -> tuple[Response, int]:
    """Ready: what the app depends on is there."""
    release = current_app.config["RELEASE"]
    try:
        database.require(_path())
    except database.NotReadyError as error:
        return _fresh(jsonify(status="not ready", reason=str(error), release=release)), 503
    return _fresh(jsonify(status="ready", release=release)), 200


@blueprint.app_errorhandler(HTTPException)
def failed(error: HTTPException) -> Answer:
    """Show an error in the style of the page."""
    answer = error.get_response()
    if isinstance(answer, Answer) and answer.status_code >= 400:
        answer.set_data(render_template("message.html", title=error.name, text=error.description))
        answer.content_type = "text/html; charset=utf-8"
    return answer


def about() -> dict[str, Any]:
    """Collect what this process knows about itself and the request."""
    seen = seen_request()
    return {
        "release": current_app.config["RELEASE"],
        "machine": deployment.machine(),
        "pid": os.getpid(),
        "started": started.strftime("%Y-%m-%d %H:%M:%S UTC"),
        "server": asdict(deployment.server()),
        "versions": deployment.versions(),
        "scheme": seen.scheme,
        "host": seen.host,
        "client": seen.client,
        "prefix": seen.prefix,
        "forwarded_hops": current_app.config["FORWARDED_HOPS"],
    }


def seen_request() -> deployment.Seen:
    """Describe the request in hand."""
    return deployment.Seen(
        scheme=request.scheme,
        host=request.host,
        client=request.remote_addr or "",
        prefix=request.script_root,
        forwarded_for=_values("X-Forwarded-For"),
        forwarded_proto=_values("X-Forwarded-Proto"),
        forwarded_host=_values("X-Forwarded-Host"),
        real_ip=request.headers.get("X-Real-IP", ""),
    )


def checklist() -> list[deployment.Check]:
    """Judge this deployment by its settings and the request in hand."""
    config = current_app.config
    return deployment.checklist(
        debug=current_app.debug,
        secret_key=config["SECRET_KEY"],
        cookie_secure=config["SESSION_COOKIE_SECURE"],
        cookie_httponly=config["SESSION_COOKIE_HTTPONLY"],
        cookie_samesite=config["SESSION_COOKIE_SAMESITE"],
        hops=config["FORWARDED_HOPS"],
        seen=seen_request(),
        static_answers=static_answers.value,
    )


def guest_book() -> tuple[str | None, list[database.Entry]]:
    """Return why the book is closed, or None, and its newest entries."""
    try:
        database.require(_path())
        return None, database.entries(_path())
    except (database.NotReadyError, sqlite3.Error) as error:
        return str(error), []


def form_token() -> str:
    """Return the secret that a form must bring back, the same for the whole session."""
    if "token" not in session:
        session["token"] = secrets.token_urlsafe(16)
    return str(session["token"])


def _path() -> Path:
    path: Path = current_app.config["DATABASE_PATH"]
    return path


def _values(header: str) -> tuple[str, ...]:
    return tuple(
        value.strip() for value in ",".join(request.headers.getlist(header)).split(",") if value.strip()
    )


def _fresh(response: Response) -> Response:
    """Keep caches away: the answer depends on who answers."""
    response.headers["Cache-Control"] = "no-store"
    return response
