from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from ansible_collections.flaskworks.server.tests.acceptance.client import Client


def _targets() -> list[Client]:
    if "ACCEPTANCE_ADDRESS" in os.environ:
        return [Client(os.environ["ACCEPTANCE_ADDRESS"], os.environ["ACCEPTANCE_AUTHORITY"])]
    if "MOLECULE_INVENTORY_FILE" in os.environ:
        directory = Path(os.environ["MOLECULE_INVENTORY_FILE"]).parent
        hosts = yaml.safe_load((directory / "connections.yml").read_text())["all"]["hosts"]
        return [
            Client(host["address"], str(directory.parent / f"{name}.pem"))
            for name, host in sorted(hosts.items())
        ]
    raise pytest.UsageError("ACCEPTANCE_ADDRESS is not set; tests/acceptance/README.md says what it means")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Ask every host of the scenario."""
    if "client" in metafunc.fixturenames:
        metafunc.parametrize("client", _targets(), ids=lambda client: client.address, scope="session")
