"""Answers prove a release only when they come from its process: real processes, sockets and /proc."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.flaskworks.server.plugins.module_utils.release import proof
from ansible_collections.flaskworks.server.plugins.module_utils.release.ports import Answer, Host

NAME = "20261121T101500Z-3fb1c0de42"
SERVICE = f"flask-hello@{NAME}.service"

# Answers what its variables tell it to; says on its output when it listens.
SERVER = """
import os, socket, sys
listener = socket.socket(socket.AF_UNIX)
if sys.argv[1] == "inherit":
    listener = socket.socket(fileno=int(sys.argv[2]))
else:
    listener.bind(sys.argv[1])
    listener.listen()
print("listens", flush=True)
while True:
    peer = listener.accept()[0]
    peer.recv(65536)
    peer.sendall(os.environ.get("ANSWER", "HTTP/1.1 200 OK\\r\\n\\r\\nfine").encode())
    peer.close()
"""

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A release with code and an environment; short, because a socket's path may have 107 bytes."""
    environment = tmp_path / "e"
    (environment / "bin").mkdir(parents=True)
    (environment / "bin" / "python").symlink_to(os.path.realpath(sys.executable))
    release = tmp_path / "r"
    (release / "src").mkdir(parents=True)
    (release / "venv").symlink_to("../e")
    return release


@pytest.fixture
def start(place: Path) -> Iterator[Start]:
    """Start a server as the unit of the release would, or differently."""
    begun: list[subprocess.Popen[str]] = []

    def go(
        target: str = "",
        *more: str,
        cwd: Path | None = None,
        python: Path | None = None,
        release: str | None = NAME,
        keep: tuple[int, ...] = (),
        **variables: str,
    ) -> subprocess.Popen[str]:
        own = {"PATH": os.environ["PATH"], **variables}
        if release is not None:
            own["FLASK_RELEASE"] = release
        process = subprocess.Popen(
            [
                str(python or place / "venv" / "bin" / "python"),
                "-c",
                SERVER,
                target or str(place / "gunicorn.sock"),
                *more,
            ],
            cwd=cwd or place / "src",
            env=own,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=keep,
        )
        begun.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "listens\n"
        return process

    yield go
    for process in begun:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def ask(place: Path) -> Answer:
    return Host().probe(str(place / "gunicorn.sock"), b"GET / HTTP/1.1\r\n\r\n", 30, lambda: False)


def claim(place: Path, main: int, peer: int) -> proof.Claim:
    return proof.Claim(SERVICE, main, peer, str(place), NAME)


def test_a_process_of_the_release_leaves_no_doubt(place: Path, start: Start) -> None:
    process = start()
    answer = ask(place)
    assert (answer.status, answer.peer) == (200, process.pid)
    assert proof.doubt(claim(place, process.pid, answer.peer)) is None


def test_a_service_without_a_process_proves_nothing(place: Path) -> None:
    assert proof.doubt(claim(place, 0, 5)) == f"{SERVICE} has no process"


def test_a_service_that_has_ended_proves_nothing(place: Path, start: Start) -> None:
    process = start()
    process.kill()
    process.wait()
    told = proof.doubt(claim(place, process.pid, process.pid))
    assert told == f"the main process of {SERVICE} has ended"


def test_another_process_on_the_socket_is_told(place: Path, start: Start, tmp_path: Path) -> None:
    main = start(str(tmp_path / "elsewhere.sock"))
    stranger = start()
    told = proof.doubt(claim(place, main.pid, ask(place).peer))
    assert told is not None
    assert told.startswith(f"process {stranger.pid} (")
    assert told.endswith(f"listens on its socket, not {SERVICE}")


def test_a_process_that_shares_the_socket_is_told(place: Path, start: Start) -> None:
    """One that was left of an earlier start takes part of the requests."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place / "gunicorn.sock"))
        listener.listen()
        handle = listener.fileno()
        main, stale = (start("inherit", str(handle), keep=(handle,)) for _ in range(2))
    told = proof.doubt(claim(place, main.pid, main.pid))
    assert told is not None
    assert told.startswith(f"process {stale.pid} (")
    assert told.endswith(f"takes requests from its socket beside {SERVICE}")


def test_old_code_is_told(place: Path, start: Start, tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.mkdir()
    process = start(cwd=old)
    told = proof.doubt(claim(place, process.pid, process.pid))
    assert told == f"process {process.pid} of {SERVICE} runs in {old}, not in {place}/src"


def test_code_that_was_replaced_under_the_process_is_told(place: Path, start: Start) -> None:
    process = start()
    (place / "src").rename(place / "gone")
    (place / "src").mkdir()
    told = proof.doubt(claim(place, process.pid, process.pid))
    assert told == f"process {process.pid} of {SERVICE} runs in {place}/gone, not in {place}/src"


def test_an_old_environment_is_told(place: Path, start: Start, tmp_path: Path) -> None:
    shutil.copytree(tmp_path / "e", tmp_path / "old", symlinks=True)
    process = start(python=tmp_path / "old" / "bin" / "python")
    told = proof.doubt(claim(place, process.pid, process.pid))
    assert told is not None
    assert told.endswith(f"does not run from {tmp_path}/e")


def test_another_interpreter_is_told(place: Path, start: Start, tmp_path: Path) -> None:
    process = start()
    (tmp_path / "e" / "bin" / "python").unlink()
    (tmp_path / "e" / "bin" / "python").symlink_to("/bin/sh")
    told = proof.doubt(claim(place, process.pid, process.pid))
    assert told is not None
    assert told.endswith(f"which is not the interpreter of {tmp_path}/e")


@pytest.mark.parametrize(
    ("release", "told"),
    [
        ("20261120T000000Z-0000000000", "(FLASK_RELEASE=20261120T000000Z-0000000000)"),
        (None, "(no FLASK_RELEASE)"),
    ],
)
def test_old_variables_are_told(place: Path, start: Start, release: str | None, told: str) -> None:
    process = start(release=release, HOME="/")
    found = proof.doubt(claim(place, process.pid, process.pid))
    assert found is not None
    assert found.endswith(told)


def test_a_process_with_a_title_is_known_by_what_it_has_loaded(
    place: Path, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """setproctitle writes over arguments and variables, and is itself a library of the environment."""
    process = start()
    real = proof._read
    maps = [b"7f00-7f01 r-xp 00000000 08:01 5 " + str(tmp_path).encode() + b"/e/lib/setproctitle.so\n"]

    def titled(path: str) -> bytes:
        written = {"cmdline": b"gunicorn: master [hello]\0\0\0", "environ": b"\0\0\0", "maps": maps[0]}
        return written.get(path.rpartition("/")[2]) or real(path)

    monkeypatch.setattr(proof, "_read", titled)
    assert proof.doubt(claim(place, process.pid, process.pid)) is None
    maps[0] = maps[0].replace(b"/e/lib", b"/old/lib")
    told = proof.doubt(claim(place, process.pid, process.pid))
    assert told == (
        f"process {process.pid} of {SERVICE} (gunicorn: master [hello]) does not run from {tmp_path}/e"
    )


def test_a_worker_of_the_service_may_listen(
    place: Path, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    main, worker = start(str(tmp_path / "elsewhere.sock")), start()
    real = proof._read
    group = f"0::/system.slice/system-flask\\x2dhello.slice/{SERVICE}\n".encode()
    monkeypatch.setattr(proof, "_read", lambda path: group if path.endswith("/cgroup") else real(path))
    assert proof.doubt(claim(place, main.pid, worker.pid)) is None


def test_the_service_manager_may_have_made_the_socket(place: Path, start: Start, tmp_path: Path) -> None:
    process = start()
    assert proof.doubt(claim(place, process.pid, 1)) is None
    elsewhere = start(str(tmp_path / "elsewhere.sock"))
    told = proof.doubt(claim(place, elsewhere.pid, 1))
    assert told == f"{SERVICE} does not take requests from its socket"


def test_what_may_not_be_read_speaks_neither_way(
    place: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = start()
    real, found = proof._read, os.stat

    def closed(path: str) -> bytes:
        if path.endswith(("/environ", "/maps")):
            raise PermissionError(path)
        return real(path)

    def hidden(path: Any) -> os.stat_result:
        if str(path).endswith(("/cwd", "/exe")):
            raise PermissionError(path)
        return found(path)

    monkeypatch.setattr(proof, "_read", closed)

    def locked(path: str) -> list[str]:
        raise PermissionError(path)

    monkeypatch.setattr(os, "stat", hidden)
    monkeypatch.setattr(proof, "_holds", lambda pid, _sockets: bool(locked(str(pid))))
    assert proof.doubt(claim(place, process.pid, process.pid)) is None
    assert proof.doubt(claim(place, process.pid, 1)) is None
    with_another = replace(claim(place, process.pid, process.pid), peer=os.getpid())
    assert proof.doubt(with_another) is not None


@pytest.mark.parametrize(
    ("answer", "status", "text"),
    [
        ("HTTP/1.1 200 OK\r\n\r\nfine", 200, "200 OK"),
        (
            "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 21\r\n\r\nno database:\n\t refused",
            503,
            "503 Service Unavailable, 'no database: refused'",
        ),
        (
            "HTTP/1.1 500 Oh\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nwell\r\n0\r\n\r\n",
            500,
            "500 Oh, 'well'",
        ),
        ("HTTP/1.1 404 NOT FOUND\r\n\r\n" + "x" * 5000, 404, f"404 NOT FOUND, '{'x' * 200}'"),
        ("HTTP/1.1 302 Found\r\n\r\n", 302, "302 Found"),
        ("hello", None, "not an HTTP answer: hello"),
    ],
)
def test_an_answer_is_told_with_its_first_words(
    place: Path, start: Start, answer: str, status: int | None, text: str
) -> None:
    start(ANSWER=answer + ("" if status else "\r\n"))
    got = ask(place)
    assert (got.status, got.text) == (status, text)


def test_a_body_that_never_ends_is_not_waited_for(place: Path, start: Start) -> None:
    start(ANSWER="HTTP/1.1 503 Busy\r\nContent-Length: 100\r\n\r\nonly this")
    begin = time.monotonic()
    assert ask(place).text == "503 Busy, 'only this'"
    assert time.monotonic() - begin < 25
