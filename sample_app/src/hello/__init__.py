"""A small Flask app that shows and tests its own deployment.

Everything it wants to know it reads from its environment; README.md has the table.

============================= ======================================================================
``SECRET_KEY``                signs the sessions; without it the app starts in debug mode only
``SECRET_KEY_FILE``           a file with the key, read when ``SECRET_KEY`` is not set
``SECRET_KEY_FALLBACKS``      keys that signed before, a list as JSON; or ``SECRET_KEY_FALLBACKS_FILE``
``FORWARDED_HOPS``            number of proxies in front whose headers are believed (default 0)
``DATABASE_PATH``             the SQLite file (default: ``hello.db`` in ``shared`` beside ``releases``,
                              in the instance directory where there is none)
``HELLO_MIGRATE``             ``1``: bring the database up to date at each start
``FLASK_RELEASE``             the release's name (default: taken from ``…/releases/<id>/…``)
``FLASK_DEBUG``               ``1``: debug mode, never in production
``HELLO_BREAK``               break on purpose, see :mod:`hello.breakage`
============================= ======================================================================
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import click
from flask import Flask, Response, current_app, request
from flask.cli import with_appcontext
from werkzeug.middleware.proxy_fix import ProxyFix

from hello import breakage, database, instruments, pages
from hello.settings import Settings

__all__ = ["create_app"]

breakage.at_import(os.environ)


def create_app(environment: Mapping[str, str] | None = None) -> Flask:
    """Build the app from *environment* (default: the environment of the process)."""
    settings = Settings.from_environment(os.environ if environment is None else environment)
    settings.breakage.at_start()

    app = Flask(__name__)
    app.config.update(
        DEBUG=settings.debug,
        SECRET_KEY=settings.secret_key,
        SECRET_KEY_FALLBACKS=settings.secret_key_fallbacks,
        SESSION_COOKIE_NAME="hello" if settings.debug else "__Host-hello",
        SESSION_COOKIE_PATH="/",
        SESSION_COOKIE_SECURE=not settings.debug,
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
        FORWARDED_HOPS=settings.forwarded_hops,
        RELEASE=settings.release,
        DATABASE_PATH=settings.database or Path(app.instance_path) / "hello.db",
        BREAKAGE=settings.breakage,
    )
    app.json.sort_keys = False  # type: ignore[attr-defined]  # the default provider has it, its base has not

    hops = settings.forwarded_hops
    if hops:
        # The proxy sets Host itself, so X-Forwarded-Host is never believed: a client could forge it.
        fixed = ProxyFix(app.wsgi_app, x_for=hops, x_proto=hops, x_host=0, x_port=0, x_prefix=hops)
        app.wsgi_app = fixed  # type: ignore[method-assign]  # the way Flask documents it

    app.before_request(settings.breakage.at_request)
    app.after_request(_mark_static)
    app.register_blueprint(pages.blueprint)
    app.register_blueprint(instruments.blueprint)
    app.cli.add_command(_migrate)
    if settings.migrate:
        database.migrate(app.config["DATABASE_PATH"])
    return app


def _mark_static(response: Response) -> Response:
    """Let anybody see that a static file came from Python instead of the proxy."""
    if request.endpoint == "static":
        response.headers["X-Served-By-App"] = "hello"
        if response.status_code < 400:
            pages.static_answers.add()
    return response


@click.command("migrate")
@with_appcontext
def _migrate() -> None:
    """Bring the database up to date."""
    path: Path = current_app.config["DATABASE_PATH"]
    try:
        applied = database.migrate(path)
    except database.NotReadyError as error:
        raise click.ClickException(str(error)) from None
    for name in applied:
        click.echo(f"applied {name}")
    if not applied:
        click.echo("nothing to apply")
