"""Fixtures of every scenario's tests.

host      testinfra's host, once for each platform (or only those named by the module's `testinfra_hosts`)
hosts     all of them by name
client    what asks a host for the sites of tests/acceptance; all of them by name are clients
outside   how a client elsewhere sees a platform: requests to its address, certificate checked against a CA
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import testinfra
import yaml
from ansible_collections.flaskworks.server.tests.acceptance.client import Client
from testinfra.host import Host


@dataclass(frozen=True)
class Platform:
    """One host of the scenario."""

    name: str
    container: str
    address: str


def _platforms() -> dict[str, Platform]:
    directory = Path(os.environ["MOLECULE_INVENTORY_FILE"]).parent
    entries = yaml.safe_load((directory / "connections.yml").read_text())["all"]["hosts"]
    return {name: Platform(name, entry["container"], entry["address"]) for name, entry in entries.items()}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests that take `platform`, directly or through `host`, once for each platform."""
    chosen = [mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")]
    if "platform" in metafunc.fixturenames and "platform" not in chosen:
        names = getattr(metafunc.module, "testinfra_hosts", None) or list(_platforms())
        metafunc.parametrize("platform", names, indirect=True, scope="session")


@pytest.fixture(scope="session")
def platforms() -> dict[str, Platform]:
    """All hosts of the scenario by name."""
    return _platforms()


@pytest.fixture(scope="session")
def platform(request: pytest.FixtureRequest, platforms: dict[str, Platform]) -> Platform:
    """Return the host under test: its name, container and address."""
    return platforms[request.param]


@pytest.fixture(scope="session")
def clients(platforms: dict[str, Platform]) -> dict[str, Client]:
    """Return what asks each host for the sites of tests/acceptance, trusting the authority of that host."""
    directory = Path(os.environ["MOLECULE_INVENTORY_FILE"]).parents[1]
    return {name: Client(one.address, str(directory / f"{name}.pem")) for name, one in platforms.items()}


@pytest.fixture(scope="session")
def client(platform: Platform, clients: dict[str, Client]) -> Client:
    """Return what asks the host under test for them."""
    return clients[platform.name]


@pytest.fixture(scope="session")
def hosts(platforms: dict[str, Platform]) -> dict[str, Host]:
    """Return testinfra's hosts by name, root inside the containers whatever way Ansible took."""
    return {name: testinfra.get_host(f"docker://{each.container}") for name, each in platforms.items()}


@pytest.fixture(scope="session")
def host(platform: Platform, hosts: dict[str, Host]) -> Host:
    """Return testinfra's host under test."""
    return hosts[platform.name]


class _AtAddress(httpx.BaseTransport):
    """Connects to one address whatever name the URL has; Host, SNI and certificate check keep the name."""

    def __init__(self, address: str, verify: ssl.SSLContext, http2: bool) -> None:
        self._address = address
        self._verify = verify
        self._http2 = http2
        # One pool for each name: all have the same address, and a connection that was verified for one
        # must not serve another.
        self._pools: dict[str, httpx.HTTPTransport] = {}

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        name = request.url.host
        if name not in self._pools:
            self._pools[name] = httpx.HTTPTransport(verify=self._verify, http2=self._http2)
        request.extensions = {**request.extensions, "sni_hostname": name}
        named, request.url = request.url, request.url.copy_with(host=self._address)
        try:
            return self._pools[name].handle_request(request)
        finally:
            request.url = named

    def close(self) -> None:
        for pool in self._pools.values():
            pool.close()


@pytest.fixture(scope="session")
def outside() -> Iterator[Callable[..., httpx.Client]]:
    """Return a maker of HTTP clients: `outside(platform, ca=path)` gives an httpx.Client.

    `https://any.name/` goes to the platform's address; the certificate must be valid for that name and
    signed by `ca` (a PEM file's path, or its text). Without `ca` no certificate is trusted. HTTP/2 is
    offered, redirects are not followed; further keywords go to httpx.Client.
    """
    clients: list[httpx.Client] = []

    def client(
        platform: Platform, *, ca: str | Path | None = None, http2: bool = True, **settings: object
    ) -> httpx.Client:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if ca is not None:
            if "BEGIN CERTIFICATE" in str(ca):
                context.load_verify_locations(cadata=str(ca))
            else:
                context.load_verify_locations(cafile=str(ca))
        made = httpx.Client(
            transport=_AtAddress(platform.address, context, http2),
            **{"timeout": 15.0, "follow_redirects": False, **settings},  # type: ignore[arg-type]
        )
        clients.append(made)
        return made

    yield client
    for made in clients:
        made.close()
