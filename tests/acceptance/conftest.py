from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml
from ansible_collections.flaskworks.server.tests.acceptance.client import Client


def _targets() -> list[Client]:
    if "ACCEPTANCE_ADDRESS" in os.environ:
        return [Client(*(os.environ[f"ACCEPTANCE_{name}"] for name in ("ADDRESS", "AUTHORITY", "PROXY")))]
    if "MOLECULE_INVENTORY_FILE" in os.environ:
        directory = Path(os.environ["MOLECULE_INVENTORY_FILE"]).parent
        hosts = yaml.safe_load((directory / "connections.yml").read_text())["all"]["hosts"]
        return [
            Client(
                host["address"],
                str(directory.parent / f"{name}.pem"),
                os.environ.get("ACCEPTANCE_PROXY") or os.environ["MOLECULE_SCENARIO_NAME"],
            )
            for name, host in sorted(hosts.items())
        ]
    raise pytest.UsageError("ACCEPTANCE_ADDRESS is not set; tests/acceptance/README.md says what it means")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Ask every host of the scenario."""
    if "client" in metafunc.fixturenames:
        metafunc.parametrize("client", _targets(), ids=lambda client: client.address, scope="session")


@pytest.fixture(scope="session", autouse=True)
def begun_early() -> Iterator[dict[str, list[socket.socket]]]:
    """Begin requests that never end, by address; early, so that no test has to wait until they are cut.

    The first of a host does not even shake hands, the others send the beginning of a head.
    """
    with ExitStack() as opened:
        begun: dict[str, list[socket.socket]] = {}
        for client in _targets():
            silent, plain = (
                opened.enter_context(socket.create_connection((client.address, port), timeout=15))
                for port in (443, 80)
            )
            begun[client.address] = [silent, plain, opened.enter_context(client.connect())]
            for connection in begun[client.address][1:]:
                connection.sendall(b"GET /never HTTP/1.1\r\nHost: hello.example.org\r\n")
        yield begun
