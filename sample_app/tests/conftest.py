"""An app with the settings of production, and a visitor behind one proxy."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

sys.path.insert(0, str(Path(__file__).parent.parent / "src"))

SECRET_KEY = "3f9a62c1d07be58414af90cd2b6e7731e80d5c49fa1362b7084c9de5a17f60b3"


class ProxiedClient(FlaskClient):
    """A visitor at 203.0.113.7, behind one proxy that ends TLS."""

    def open(self, *args: Any, **kwargs: Any) -> TestResponse:
        return super().open(*args, **{"base_url": "http://hello.example.org"} | kwargs)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {
        "SECRET_KEY": SECRET_KEY,
        "FORWARDED_HOPS": "1",
        "DATABASE_PATH": str(tmp_path / "hello.db"),
        "HELLO_MIGRATE": "1",
        "FLASK_RELEASE": "20261120T120000Z-0123456789",
    }


@pytest.fixture
def app(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Flask:
    from hello import create_app, pages
    from hello.breakage import Counter

    monkeypatch.setattr(pages, "static_answers", Counter())
    return create_app(environment)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    app.test_client_class = ProxiedClient
    client = app.test_client()
    client.environ_base.update(
        REMOTE_ADDR="",  # what gunicorn reports for a connection over a Unix socket
        HTTP_X_FORWARDED_FOR="203.0.113.7",
        HTTP_X_FORWARDED_PROTO="https",
        HTTP_X_FORWARDED_HOST="hello.example.org",
        HTTP_X_REAL_IP="203.0.113.7",
    )
    return client
