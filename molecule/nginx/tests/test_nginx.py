"""What nginx does beyond the behaviour that all proxies share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.flaskworks.server.tests.acceptance.client import Client
from testinfra.host import Host


@pytest.fixture(scope="session")
def client(platform: Any) -> Client:
    directory = Path(os.environ["MOLECULE_INVENTORY_FILE"]).parents[1]
    return Client(platform.address, str(directory / f"{platform.name}.pem"))


def test_brotli_is_sent_where_the_module_is(client: Client, host: Host) -> None:
    beside = "/srv/hello/releases/one/static/static/style.css.br"
    try:
        host.check_output(f"printf small >{beside}")
        answer = client.ask("/static/style.css", headers=[("Accept-Encoding", "gzip, br")])
        assert (answer.one("Content-Encoding"), answer.body) == ("br", b"small")
        assert answer.one("Content-Type").startswith("text/css")
        assert client.ask("/static/style.css", headers=[("Accept-Encoding", "gzip")]).body != b"small"
    finally:
        host.check_output(f"rm -f {beside}")


def test_connections_to_the_app_are_kept(client: Client, host: Host) -> None:
    for _ in range(20):
        client.ask("/release")
    assert "gunicorn.sock" in host.check_output("ss -xH state connected")
