"""One pass over a real gunicorn, through a Unix socket as behind a proxy."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = str(Path(__file__).parent.parent / "src")
PROXIED = {"Host": "hello.example.org", "X-Forwarded-For": "203.0.113.7", "X-Forwarded-Proto": "https"}


class Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=20)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


@pytest.fixture
def served(environment: dict[str, str], tmp_path: Path) -> Iterator[Path]:
    settings = tmp_path / "gunicorn.conf.py"
    settings.write_text('workers = 2\nthreads = 4\nworker_class = "gthread"\n')
    address = tmp_path / "g.sock"
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "gunicorn",
            "-c",
            str(settings),
            "-b",
            f"unix:{address}",
            "hello:create_app()",
        ],
        env=environment | {"PYTHONPATH": SOURCE, "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=tmp_path,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 30
        while not address.exists():
            assert process.poll() is None, "gunicorn ended"
            assert time.monotonic() < deadline, "gunicorn did not start"
            time.sleep(0.05)
        yield address
    finally:
        process.terminate()
        process.wait(20)


def test_a_worker_knows_its_server(served: Path) -> None:
    connection = Connection(served)
    connection.request("GET", "/api/deployment", headers=PROXIED)
    answer = json.loads(connection.getresponse().read())
    assert answer["server"] == {"worker_class": "gthread", "workers": 2, "threads": 4}
    assert (answer["scheme"], answer["host"], answer["client"]) == (
        "https",
        "hello.example.org",
        "203.0.113.7",
    )
    assert answer["checks"]["proxy"]["passed"] is True


def test_a_body_of_unknown_length(served: Path) -> None:
    connection = Connection(served)
    connection.request("POST", "/upload", body=iter([b"hel", b"lo"]), headers=PROXIED, encode_chunked=True)
    assert json.loads(connection.getresponse().read()) == {
        "bytes": 5,
        "sha256": "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
    }
