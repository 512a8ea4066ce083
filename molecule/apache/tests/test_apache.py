"""What Apache does beyond the behaviour that all proxies share."""

from __future__ import annotations

import pytest
from ansible_collections.flaskworks.server.tests.acceptance.client import Client
from testinfra.host import Host


def test_no_connection_to_the_app_is_kept(client: Client, host: Host) -> None:
    for _ in range(20):
        client.ask("/release")
    assert "gunicorn.sock" not in host.check_output("ss -xH state established")


@pytest.mark.parametrize(
    "path", ["/server-status", "/server-status?auto", "/icons/", "/manual/", "/cgi-bin/"]
)
def test_the_app_has_every_path_for_itself(client: Client, path: str) -> None:
    """None of those that the distribution's configuration knows."""
    assert client.ask(path).body == b"nothing here\n"


def test_files_beside_what_is_served_configure_nothing(client: Client, host: Host) -> None:
    beside = "/srv/hello/releases/one/static/static/.htaccess"
    try:
        host.check_output(f"echo Deny from all >{beside}")
        assert client.ask("/static/style.css").status == 200
    finally:
        host.check_output(f"rm -f {beside}")
