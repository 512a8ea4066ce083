"""A configuration that nginx refuses leaves no trace; one that loses sites removes them."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.flaskworks.server.tests.acceptance.client import Client
from testinfra.host import Host

SCENARIO = Path(__file__).resolve().parents[1]
INVENTORY = Path(os.environ["MOLECULE_INVENTORY_FILE"]).parent


@pytest.fixture(scope="session")
def client(platform: Any) -> Client:
    return Client(platform.address, str(INVENTORY.parent / f"{platform.name}.pem"))


@pytest.fixture
def sites() -> list[dict[str, Any]]:
    described = yaml.safe_load((SCENARIO.parents[1] / "tests/acceptance/target/sites.yml").read_text())
    return list(described["acceptance_sites"])


def converge(sites: list[dict[str, Any]]) -> tuple[int, str]:
    done = subprocess.run(
        [
            "ansible-playbook",
            "-i",
            INVENTORY,
            SCENARIO / "converge.yml",
            "-e",
            json.dumps({"nginx_sites": sites}),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def fingerprints(host: Host) -> str:
    return str(
        host.check_output(
            "find /etc/nginx /etc/sysusers.d /etc/systemd/system -type f -exec sha256sum {} + | sort -k 2"
        )
    )


def test_a_site_that_is_wrong_by_itself_is_not_installed(
    client: Client, host: Host, sites: list[dict[str, Any]]
) -> None:
    before = fingerprints(host)
    sites[0]["headers"] = [{"name": "X-Broken", "value": "half a variable$"}]
    sites[1]["timeout"] = 31  # valid, but not installed without the other
    code, said = converge(sites)
    assert code != 0
    assert "/etc/nginx/sites-enabled/flask-hello.conf was refused" in said
    assert "invalid variable name" in said
    assert fingerprints(host) == before
    assert client.ask("/release").status == 200


def test_sites_that_are_wrong_together_are_taken_back(
    client: Client, host: Host, sites: list[dict[str, Any]]
) -> None:
    before = fingerprints(host)
    sites[1]["upstream"] = "flask-hello"
    code, said = converge(sites)
    assert code != 0
    assert "duplicate upstream" in said
    assert "put back as before" in said
    assert fingerprints(host) == before
    assert client.ask("/release").status == 200


def test_a_port_that_somebody_else_holds_is_refused_by_name(
    client: Client, host: Host, sites: list[dict[str, Any]]
) -> None:
    before = fingerprints(host)
    sites[1]["http_port"] = 8081
    host.check_output("systemd-run --unit=squatter --collect python3 -m http.server 8081")
    try:
        host.check_output("timeout 10 sh -c 'until ss -Hltn sport = :8081 | grep -q .; do sleep 0.1; done'")
        code, said = converge(sites)
    finally:
        host.check_output("systemctl stop squatter.service")
    assert code != 0
    assert "port 8081 is held by python3 (process " in said
    assert fingerprints(host) == before
    assert client.ask("/release").status == 200


@pytest.fixture
def afterwards_as_before(sites: list[dict[str, Any]]) -> Iterator[None]:
    yield
    code, said = converge(sites)
    assert code == 0, said


@pytest.mark.usefixtures("afterwards_as_before")
def test_sites_that_are_gone_are_removed(client: Client, host: Host) -> None:
    code, said = converge([])
    assert code == 0, said
    assert host.check_output("ls -A /etc/nginx/sites-enabled") == ""
    assert host.service("nginx.service").is_running
    assert client.ask("/", port=80, tls=False).status == 421
