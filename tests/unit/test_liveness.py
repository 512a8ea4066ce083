"""Apps that are asked whether they live, on a host that is a directory."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from ansible_collections.flaskworks.server.plugins.module_utils import liveness
from ansible_collections.flaskworks.server.plugins.module_utils.release import locking

RELEASE = "20261121T101500Z-3fb1c0de42"
OTHER = "20261121T111500Z-58784cd42b"
FIRST = "restart 1, the next one not within 55 s"
GOOD, BAD, SILENT = (200, "200 OK"), (500, "500 Oh dear"), (None, "no answer within 5 s")


class Outside(liveness.System):
    """A host whose clock moves when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.answers: dict[str, tuple[int | None, str]] = {}
        self.asked: list[tuple[str, bytes, float]] = []
        self.active, self.started = True, 0.0
        self.restarts: list[tuple[str, int, float]] = []
        self.lines: list[str] = []
        self.meanwhile: Callable[[], object] = list

    def clock(self) -> float:
        return self.now

    def ask(self, path: str, question: bytes, seconds: float) -> tuple[int | None, str]:
        self.asked.append((path, question, seconds))
        return self.answers.get(path.split("/releases/", maxsplit=1)[0].rpartition("/")[2], GOOD)

    def service(self, _unit: str) -> tuple[bool, float, int]:
        return self.active, self.started, 4711

    def restart(self, unit: str, main: int, seconds: float) -> None:
        self.restarts.append((unit, main, seconds))
        self.started = self.now
        self.meanwhile()

    def say(self, identifier: str, text: str) -> None:
        self.lines.append(f"{identifier}: {text}")


class Bench:
    """Apps below a directory."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.outside = folder, Outside()

    def settings(self, app: str, **changes: object) -> str:
        values = {
            "name": app,
            "unit": f"flask-{app}",
            "home": f"{self.folder}/srv/{app}",
            "origin": "https://x.example.org:8443/below",
            "path": "/healthz?a=b",
            "status": 200,
            "start": 25,
            "interval": 10,
            "timeout": 5,
            "failures": 3,
            **changes,
        }
        return "# Ansible managed\n" + "".join(f"{key} = {value}\n" for key, value in values.items())

    def app(self, name: str, **changes: object) -> Path:
        home = self.folder / "srv" / name
        declared = self.folder / "etc" / name
        declared.mkdir(parents=True, exist_ok=True)
        (declared / "liveness.conf").write_text(self.settings(name, **changes))
        for release in (RELEASE, OTHER):
            (home / "releases" / release).mkdir(parents=True, exist_ok=True)
            (home / "releases" / release / "liveness.conf").write_text(self.settings(name, **changes))
        (home / ".lock").touch()
        self.point(name, RELEASE)
        return home

    def point(self, name: str, release: str) -> None:
        current = self.folder / "srv" / name / "current"
        current.unlink(missing_ok=True)
        current.symlink_to(f"releases/{release}")

    def tick(self, times: int = 1, seconds: float = 10) -> None:
        for _ in range(times):
            self.outside.now += seconds
            liveness.main(self.outside, f"{self.folder}/etc/*/liveness.conf", f"{self.folder}/state.json")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_an_app_is_asked_as_its_proxy_would(bench: Bench) -> None:
    home = bench.app("hello")
    bench.tick()
    ((path, question, seconds),) = bench.outside.asked
    assert (path, seconds) == (f"{home}/releases/{RELEASE}/gunicorn.sock", 5)
    lines = question.decode().split("\r\n")
    assert lines[:6] == [
        "GET /healthz?a=b HTTP/1.1",
        "Host: x.example.org:8443",
        "X-Forwarded-For: 127.0.0.1",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Host: x.example.org:8443",
        "X-Forwarded-Port: 8443",
    ]
    assert "X-Forwarded-Prefix: /below" in lines
    assert (bench.outside.restarts, bench.outside.lines) == ([], [])


def test_three_failures_in_a_row_restart_it(bench: Bench) -> None:
    bench.app("hello")
    bench.outside.answers["hello"] = SILENT
    bench.tick(2)
    assert bench.outside.restarts == []
    bench.tick()
    assert bench.outside.restarts == [(f"flask-hello@{RELEASE}.service", 4711, 5)]
    failure = f"flask-hello: {RELEASE} does not answer /healthz?a=b as it should (200): no answer within 5 s"
    assert bench.outside.lines == [
        f"{failure}; failure 1 of 3",
        f"{failure}; failure 2 of 3",
        f"{failure}; failure 3 of 3",
        f"flask-hello: {RELEASE} is restarted, since it did not answer /healthz?a=b 3 times in a row; "
        + FIRST,
    ]


def test_a_right_answer_between_begins_the_count_anew(bench: Bench) -> None:
    bench.app("hello")
    for answer in (BAD, BAD, GOOD, BAD, BAD, GOOD):
        bench.outside.answers["hello"] = answer
        bench.tick()
    assert bench.outside.restarts == []
    assert bench.outside.lines[2] == f"flask-hello: {RELEASE} answers /healthz?a=b again"


def test_restarts_of_what_never_gets_well_are_further_and_further_apart(bench: Bench) -> None:
    bench.app("hello")
    bench.outside.answers["hello"] = BAD
    moments: list[float] = []
    while len(moments) < 11 and bench.outside.now < 100_000:
        bench.tick()
        if len(bench.outside.restarts) > len(moments):
            moments.append(bench.outside.now)
    pauses = [after - before for before, after in pairwise(moments)]
    assert pauses == [60, 110, 220, 440, 880, 1760, 3520, 3600, 3600, 3600]


def test_what_is_well_again_is_forgiven_when_the_pause_is_over(bench: Bench) -> None:
    bench.app("hello")
    for last in (FIRST, "restart 2, the next one not within 110 s"):
        bench.outside.answers["hello"] = BAD
        while not bench.outside.lines or not bench.outside.lines[-1].endswith(last):
            bench.tick()
        # Well for a moment only: that forgives nothing.
        bench.outside.answers["hello"] = GOOD
        bench.tick(2)
    bench.tick(12)
    bench.outside.answers["hello"] = BAD
    bench.tick(3)
    assert bench.outside.lines[-1].endswith(FIRST)


@pytest.mark.parametrize("why", ["starts", "is stopped"])
def test_nothing_is_held_against_what_starts_or_is_stopped(bench: Bench, why: str) -> None:
    bench.app("hello")
    bench.outside.answers["hello"] = SILENT
    bench.tick(2)
    if why == "starts":
        bench.outside.started = bench.outside.now  # 25 seconds
        bench.tick(2)
    else:
        bench.outside.active = False
        bench.tick(10)
        bench.outside.active = True
    assert bench.outside.restarts == []
    bench.tick(2)
    assert bench.outside.restarts == []
    bench.tick()
    assert len(bench.outside.restarts) == 1


def test_a_deploy_at_work_is_left_alone_and_told_who_restarts(bench: Bench) -> None:
    home = bench.app("hello")
    bench.outside.answers["hello"] = SILENT
    with open(home / ".lock", "r+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        bench.tick(10)
        assert bench.outside.restarts == []
    holders = []
    bench.outside.meanwhile = lambda: holders.append(locking.holder(str(home)))
    bench.tick()
    assert len(bench.outside.restarts) == 1
    assert [(one.who, one.what) for one in holders if one] == [("flaskworks-liveness", "restart")]
    assert locking.holder(str(home)) is None


def test_another_release_begins_anew(bench: Bench) -> None:
    bench.app("hello")
    bench.outside.answers["hello"] = SILENT
    bench.tick(2)
    bench.point("hello", OTHER)
    bench.tick(2)
    assert bench.outside.restarts == []
    bench.tick()
    assert bench.outside.restarts == [(f"flask-hello@{OTHER}.service", 4711, 5)]


def test_who_is_asked_follows_what_is_declared_and_what_serves(bench: Bench) -> None:
    removed = bench.folder / "etc" / "removed" / "liveness.conf"
    for name in ("removed", "older", "nothing", "asked"):
        bench.app(name)
    removed.unlink()
    (bench.folder / "srv/older/releases" / RELEASE / "liveness.conf").unlink()
    (bench.folder / "srv/nothing/current").unlink()
    bench.tick()
    assert [path.split("/")[-4] for path, _question, _seconds in bench.outside.asked] == ["asked"]


def test_each_app_has_its_own_interval(bench: Bench) -> None:
    bench.app("often", interval=5)
    bench.app("seldom", interval=60)
    # A timer is never quite on time.
    for late in (0, 0.2, -0.2, 0.1, 0) * 5:
        bench.tick(seconds=5 + late)
    asked = [path.split("/")[-4] for path, _question, _seconds in bench.outside.asked]
    assert (asked.count("often"), asked.count("seldom")) == (25, 3)


def test_one_app_that_goes_wrong_stops_no_other(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    errors: list[object] = []
    monkeypatch.setattr(threading, "excepthook", errors.append)
    bench.app("broken", status="none")
    bench.app("hello")
    bench.outside.answers["hello"] = SILENT
    bench.tick(3)
    assert len(errors) == 3
    assert [unit for unit, _main, _seconds in bench.outside.restarts] == [f"flask-hello@{RELEASE}.service"]


def test_what_was_remembered_badly_is_forgotten(bench: Bench) -> None:
    bench.app("hello")
    bench.outside.answers["hello"] = SILENT
    for text in ("{", ""):
        (bench.folder / "state.json").write_text(text)
        bench.tick()
    assert json.loads((bench.folder / "state.json").read_text())["hello"][RELEASE]["failed"] == 1


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        yield listener


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (b"HTTP/1.1 200 OK\r\nServer: x\r\n", (200, "200 OK")),
        (b"HTTP/1.1 503 Service Unavailable\r\n", (503, "503 Service Unavailable")),
        (b"", (None, "the connection was closed without an answer")),
        (b"SSH-2.0-x\r\n", (None, "no answer of HTTP: SSH-2.0-x")),
        (None, (None, "no answer within 0.2 s")),
    ],
)
def test_answers_in_words(
    tmp_path: Path, listening: socket.socket, said: bytes | None, answer: tuple[int | None, str]
) -> None:
    def serve() -> None:
        peer = listening.accept()[0]
        with peer:
            peer.recv(100)
            if said is None:
                over.wait()
            else:
                peer.sendall(said)

    over = threading.Event()
    server = threading.Thread(target=serve)
    server.start()
    try:
        assert liveness.System().ask(str(tmp_path / "s"), b"GET /\r\n", 0.2) == answer
    finally:
        over.set()
        server.join()


def test_a_socket_that_is_not_there(tmp_path: Path) -> None:
    assert liveness.System().ask(str(tmp_path / "none"), b"", 1) == (
        None,
        "no connection (No such file or directory)",
    )


def test_it_runs_alone_with_the_standard_library(tmp_path: Path) -> None:
    """As on a host: no package, no site, nothing to look for."""
    program = liveness.__file__
    assert program
    done = subprocess.run(
        ["/usr/bin/python3", "-I", "-S", "-B", program],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": ""},
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
