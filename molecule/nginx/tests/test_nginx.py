"""What nginx does beyond the behaviour that all proxies share."""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.flaskworks.server.tests.acceptance.client import Client
from testinfra.host import Host

LOG = "/var/log/nginx/flask-hello.log"


@pytest.fixture(scope="session")
def client(platform: Any) -> Client:
    directory = Path(os.environ["MOLECULE_INVENTORY_FILE"]).parents[1]
    return Client(platform.address, str(directory / f"{platform.name}.pem"))


def eventually(question: Callable[[], bool], seconds: float = 10) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if question():
            return True
        time.sleep(0.2)
    return False


def test_a_renamed_symlink_moves_app_and_files_without_a_reload(client: Client, host: Host) -> None:
    try:
        for release in ("two", "one", "two"):
            host.check_output(
                f"ln -sfn releases/{release} /srv/hello/next && mv -T /srv/hello/next /srv/hello/current"
            )
            assert client.ask("/static/style.css").body.startswith(
                f"static/style.css of {release}\n".encode()
            )
            # A kept connection to the old release lives for two seconds at most.
            time.sleep(2.5)
            assert client.ask("/release").body.decode() == release
    finally:
        host.check_output("ln -sfn releases/one /srv/hello/next && mv -T /srv/hello/next /srv/hello/current")


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


def test_the_access_log_holds_one_object_per_request(client: Client, host: Host) -> None:
    client.ask(
        '/echo/"}%0a{"x":"?a=\\"\x7f',
        headers=[("User-Agent", '"}\\ \xff\t'), ("Referer", 'https://x.example.org/"')],
    )
    client.send(b"\x16\x03\x01 nonsense\r\n\r\n")
    client.send(b"GET / HTTP/9.9\r\n\r\n")
    told = client.ask("/echo/last").one("X-Request-ID")

    def entries() -> list[dict[str, object]]:
        # In base64, because nginx passes bytes on that are no UTF-8.
        lines = base64.b64decode(host.check_output(f"base64 {LOG}")).decode("utf-8", "surrogateescape")
        return [json.loads(line) for line in lines.splitlines()]

    # The log is buffered for five seconds.
    assert eventually(lambda: any(entry["request_id"] == told for entry in entries()))
    last = next(entry for entry in entries() if entry["request_id"] == told)
    assert last["app"] == "hello"
    assert (last["method"], last["path"], last["status"], last["tls"]) == (
        "GET",
        "/echo/last",
        200,
        "TLSv1.3",
    )
    # nginx takes the two from different clocks of milliseconds, so they may be a tick or two apart.
    assert float(str(last["duration"])) + 0.002 >= float(str(last["upstream_duration"])) >= 0
    assert all(isinstance(entry["status"], int) and isinstance(entry["bytes"], int) for entry in entries())


def test_refused_requests_are_logged_apart(client: Client, host: Host) -> None:
    client.ask("/who-asks", host="unknown.example.org")
    # Not by reading it here: requests were refused whose bytes are no text.
    assert eventually(lambda: host.run("grep -aqF /who-asks /var/log/nginx/flask.log").succeeded)


def test_logs_are_not_readable_by_everybody(host: Host) -> None:
    assert host.file(LOG).mode & 0o007 == 0


def test_the_workers_may_reach_the_sockets(host: Host) -> None:
    assert "flask-proxy" in host.user("www-data").groups


def test_a_crash_is_survived(client: Client, host: Host) -> None:
    service = host.service("nginx.service")
    assert service.is_enabled
    host.check_output("kill -KILL $(cat /run/nginx.pid)")
    assert eventually(lambda: service.is_running)

    def answers() -> bool:
        try:
            return client.ask("/release").status == 200
        except OSError:
            return False

    assert eventually(answers)


def test_nginx_finds_nothing_to_warn_about(host: Host) -> None:
    checked = host.run("nginx -t")
    assert checked.rc == 0
    assert "[warn]" not in checked.stderr


def test_the_distributions_site_is_gone(host: Host) -> None:
    assert not host.file("/etc/nginx/sites-enabled/default").exists
