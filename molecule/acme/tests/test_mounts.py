"""An app below a prefix in the site of another, from its description to visitors, behind both proxies.

The tests build on each other, in their order, and take the hosts as those of the certificates leave them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from testinfra.host import Host

from tests.plays import PROJECT, Play, start

EPHEMERAL = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
INVENTORY = EPHEMERAL / "inventory"
BOARD = EPHEMERAL / "board"
ORIGIN = "https://hello.example.org"
WEB = ("trixie", "bookworm")  # behind nginx, behind Apache

DESCRIPTION = {
    "flask_defaults": {"tls": {"provider": "self_signed"}},
    "flask_apps": [
        {
            "name": "hello",
            "domains": ["hello.example.org", "www.hello.example.org"],
            "source": {"path": str(PROJECT / "sample_app")},
            "wsgi": "hello:create_app()",
            "health": "/healthz",
            "static": {"/static/": "src/hello/static"},
            "config": {"HELLO_MIGRATE": "1"},
        },
        {
            "name": "board",
            "domains": ["hello.example.org", "www.hello.example.org"],
            "prefix": "/board",
            "source": {"path": str(BOARD)},
            "wsgi": "notes:app",
            "health": "/health/live",
            "static": {"/static/": "static"},
            "secrets": [],
        },
    ],
    "flask_secrets": {"hello": {"SECRET_KEY": "a key of this test alone, which keeps no secret"}},
}
STRICT = """
@app.before_request
def only_below_the_prefix():
    if request.path == "/health/live" and request.script_root != "/board":
        return "asked without the prefix", 500
"""
"""Added to the app: the gate must ask as the proxy does."""

Clients = Mapping[str, httpx.Client]


def play(name: str, **variables: str) -> Play:
    return start(
        INVENTORY, name, output=EPHEMERAL / "play.log", variables={**DESCRIPTION, **variables}
    ).wait()


def serving(hosts: Mapping[str, Host], app: str) -> dict[str, str]:
    """The release of an app on each host."""
    return {name: hosts[name].check_output(f"basename $(readlink /srv/{app}/current)") for name in WEB}


def told(clients: Clients, path: str) -> list[tuple[int, str]]:
    """What every host answers, and the end of its first heading."""
    answers = [client.get(ORIGIN + path) for client in clients.values()]
    return [(one.status_code, "".join(re.findall(r"(\w+)</h1>", one.text))) for one in answers]


@pytest.fixture(scope="module")
def clients(platforms: Mapping[str, Any], outside: Callable[..., httpx.Client]) -> Clients:
    """Visitors of both hosts."""
    shutil.rmtree(BOARD, ignore_errors=True)
    shutil.copytree(PROJECT / "examples/notes", BOARD, ignore=shutil.ignore_patterns("__pycache__", "tests"))
    # On hosts that were kept, what an earlier run has rolled back from would be refused.
    (BOARD / "run.txt").write_text(f"{time.time()}\n")
    with (BOARD / "notes.py").open("a") as module:
        module.write(STRICT)
    done = play("site")
    assert done.code == 0, done.output
    return {name: outside(platforms[name], ca=INVENTORY / ".tls/ca.pem") for name in WEB}


@pytest.mark.parametrize("name", WEB)
def test_its_links_forms_and_files_are_below_the_prefix(clients: Clients, name: str) -> None:
    client = clients[name]
    entry = client.get(f"{ORIGIN}/board?a=b")
    assert (entry.status_code, entry.headers["location"]) == (308, f"{ORIGIN}/board/?a=b")
    page = client.get(f"{ORIGIN}/board/")
    assert page.status_code == 200
    assert re.findall(r'(?:href|src|action)="([^"]+)"', page.text) == [
        "/board/static/notes.svg",
        "/board/static/notes.css",
        "/board/static/notes.svg",
        "/board/notes",
    ]
    style = client.get(f"{ORIGIN}/board/static/notes.css")
    assert (style.status_code, style.headers["content-type"].split(";")[0]) == (200, "text/css")
    assert style.headers["cache-control"] == "no-cache"
    posted = client.post(f"{ORIGIN}/board/notes", data={"text": "below a prefix"})
    assert (posted.status_code, posted.headers["location"]) == (303, "/board/")
    # Flask knows no other path for cookies; docs/operations.md says what follows from that.
    assert re.search(r"^notes=.*; Secure; HttpOnly; Path=/; SameSite=Lax$", posted.headers["set-cookie"])
    assert "below a prefix" in client.get(f"{ORIGIN}/board/").text


@pytest.mark.parametrize("name", WEB)
def test_both_apps_are_themselves(clients: Clients, hosts: Mapping[str, Host], name: str) -> None:
    mounted = clients[name].get(f"{ORIGIN}/board/api/notes").json()
    above = clients[name].get(f"{ORIGIN}/api/deployment").json()
    assert (mounted["release"], above["release"]) == (
        serving(hosts, "board")[name],
        serving(hosts, "hello")[name],
    )
    assert (mounted["scheme"], mounted["host"]) == ("https", "hello.example.org")
    assert clients[name].get(f"{ORIGIN}/static/hello.css").status_code == 200
    assert clients[name].get(f"{ORIGIN}/static/notes.css").status_code == 404
    assert clients[name].get("https://www.hello.example.org/board/?a").headers["location"] == (
        f"{ORIGIN}/board/?a"
    )


def test_a_release_of_it_comes_and_goes_and_leaves_the_other_app_alone(
    clients: Clients, hosts: Mapping[str, Host]
) -> None:
    above, first = serving(hosts, "hello"), serving(hosts, "board")
    page = BOARD / "templates/board.html"
    page.write_text(page.read_text().replace("Notes</h1>", "Board</h1>"))
    (BOARD / "static/notes.css").write_text("/* two */")
    done = play("site")
    assert done.code == 0, done.output
    assert done.changed == 4, done.output  # staged and switched on two hosts: nothing was provisioned anew
    assert told(clients, "/board/") == [(200, "Board")] * 2
    assert [one.get(f"{ORIGIN}/board/static/notes.css").text for one in clients.values()] == ["/* two */"] * 2
    done = play("rollback", app="board")
    assert done.code == 0, done.output
    assert told(clients, "/board/") == [(200, "Notes")] * 2
    assert serving(hosts, "board") == first
    assert serving(hosts, "hello") == above


def test_its_state_is_told_and_a_monitor_is_content(clients: Clients, hosts: Mapping[str, Host]) -> None:
    report = EPHEMERAL / "report.json"
    done = play("doctor", report=str(report))
    assert done.code == 0, done.output
    written = json.loads(report.read_text())
    assert (written["well"], written["wrong"]) == (True, [])
    assert sorted((one["app"], one["host"]) for one in written["apps"]) == sorted(
        (app, host) for app in ("hello", "board") for host in WEB
    )
    assert {(one["health"], one["service"]) for one in written["apps"]} == {("200 OK", "active")}
    for one in written["apps"]:
        (certificate,) = one["certificates"]
        assert certificate["names"] == ["hello.example.org", "www.hello.example.org"]
        assert one["release"] == serving(hosts, one["app"])[one["host"]]


def test_maintenance_closes_one_of_both(clients: Clients) -> None:
    paths = ("/", "/static/hello.css", "/healthz", "/board/", "/board/static/notes.css", "/board/health/live")

    def statuses() -> list[list[int]]:
        return [[client.get(ORIGIN + path).status_code for path in paths] for client in clients.values()]

    for app, closed in (
        ("board", [200, 200, 200, 503, 503, 200]),
        ("hello", [503, 503, 200, 200, 200, 200]),
    ):
        done = play("maintenance", app=app, state="on")
        assert done.code == 0, done.output
        assert statuses() == [closed] * 2
        entry = "/" if app == "hello" else "/board/"
        for client in clients.values():
            page = client.get(ORIGIN + entry)
            assert (page.headers["retry-after"], "Back soon" in page.text) == ("300", True)
        done = play("maintenance", app=app, state="off")
        assert done.code == 0, done.output
        assert statuses() == [[200] * 6] * 2
