"""The playbook that closes a site for a while, on hosts that serve the sites of tests/acceptance."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from ansible_collections.flaskworks.server.tests.acceptance.client import Client

INVENTORY = Path(os.environ["MOLECULE_INVENTORY_FILE"]).parent
HOSTS = yaml.safe_load((INVENTORY / "connections.yml").read_text())["all"]["hosts"]
CLIENTS = [Client(host["address"], str(INVENTORY.parent / f"{name}.pem")) for name, host in HOSTS.items()]

APP = {"name": "hello", "domains": ["hello.example.org"], "source": {"path": "/none"}, "wsgi": "none:app"}
APPS = [APP]


def switch(app: str, state: str, *options: str) -> tuple[list[tuple[str, int]], str]:
    """Run the playbook; what each host counted as changed, and all that was said, in one line."""
    done = subprocess.run(
        [
            *("ansible-playbook", "-i", str(INVENTORY), "flaskworks.server.maintenance", *options),
            *("-e", f"app={app}", "-e", f"state={state}"),
            *("-e", json.dumps({"flask_hosts": "all", "flask_apps": APPS})),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "ANSIBLE_FORCE_COLOR": "0", "NO_COLOR": "1"},
    )
    changed = re.findall(r"^(\S+) +: ok=.* changed=(\d+) ", done.stdout, re.MULTILINE)
    counts = [(name, int(number)) for name, number in changed if name in HOSTS]
    return sorted(counts), " ".join((done.stdout + done.stderr).split())


def counted(number: int) -> list[tuple[str, int]]:
    return sorted((name, number) for name in HOSTS)


@pytest.fixture
def afterwards_open() -> Iterator[None]:
    yield
    switch("hello", "off")


@pytest.mark.usefixtures("afterwards_open")
def test_a_site_is_closed_and_opened_without_a_deploy() -> None:
    closed = "visitors see its page, and only its health check reaches the app"
    opened = "visitors see the app"
    for state, option, change, sentence, status in (
        ("on", ["--check"], 1, f"hello: maintenance would be on; {closed}", 200),
        ("on", [], 1, f"hello: maintenance is on; {closed}", 503),
        ("on", [], 0, f"hello: maintenance is on, as it was before; {closed}", 503),
        ("off", [], 1, f"hello: maintenance is off; {opened}", 200),
    ):
        counts, said = switch("hello", state, *option)
        assert counts == counted(change), said
        assert said.count(sentence) == len(HOSTS), said
        for client in CLIENTS:
            answer = client.ask("/release")
            assert (answer.status, answer.all("Retry-After")) == (status, ["300"] if status == 503 else [])
            assert (b"<h1>Back soon</h1>" in answer.body) is (status == 503)
            # Not there in any case, but while the site is closed nobody is told.
            hidden = ("/.env", "/.git/config", "/static/.secret", "/static/%2e%2e/.git/config")
            assert [client.ask(path).status for path in hidden] == 4 * [503 if status == 503 else 404]
