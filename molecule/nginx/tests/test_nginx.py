"""What nginx does beyond the behaviour that all proxies share."""

from __future__ import annotations

from ansible_collections.flaskworks.server.tests.acceptance.client import Client
from testinfra.host import Host


def test_connections_to_the_app_are_kept(client: Client, host: Host) -> None:
    for _ in range(20):
        client.ask("/release")
    assert "gunicorn.sock" in host.check_output("ss -xH state connected")
