"""What stands at both ends of a rotation: who tells writers to open a log anew, and who writes for Apache."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jinja2
import pytest

ROOT = Path(__file__).parents[2]

WRITER = """
import signal, sys, time
def open_log(*_):
    global log
    log = open(sys.argv[1], "a")
open_log()
if sys.argv[2] == "listens":
    signal.signal(signal.SIGUSR1, open_log)
print("ready", flush=True)
while True:
    time.sleep(0.01)
"""


def program(role: str, template: str, directory: Path, **values: object) -> Path:
    """Return a helper as a role installs it."""
    filters = {"comment": lambda text: f"# {text}", "regex_escape": lambda text: text}
    environment = jinja2.Environment(trim_blocks=True, autoescape=False)
    environment.filters.update(filters)
    text = (ROOT / "roles" / role / "templates" / template).read_text()
    path = directory / template.removesuffix(".j2")
    path.write_text(environment.from_string(text).render(ansible_managed="Ansible managed", **values))
    return path


def eventually(question: Callable[[], bool]) -> bool:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if question():
            return True
        time.sleep(0.01)
    return False


# -- reopen-logs -----------------------------------------------------------------------------------


@pytest.fixture
def reopen(tmp_path: Path) -> Path:
    path = program("logrotate", "reopen.py.j2", tmp_path)
    path.write_text(path.read_text().replace("PATIENCE = 30", "PATIENCE = 0.5"))
    return path


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "output.log"


@pytest.fixture(params=["listens", "is deaf"])
def writer(request: pytest.FixtureRequest, log: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", WRITER, str(log), request.param]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()


def ask(reopen: Path, renamed: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, reopen, renamed], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("writer", ["listens"], indirect=True)
def test_who_writes_to_a_renamed_log_opens_it_anew(
    reopen: Path, log: Path, writer: subprocess.Popen[str]
) -> None:
    renamed = log.rename(log.with_suffix(".old"))
    asked = ask(reopen, renamed)
    assert (asked.returncode, asked.stderr) == (0, "")
    assert log.exists()
    assert writer.poll() is None


@pytest.mark.parametrize("writer", ["is deaf"], indirect=True)
def test_who_would_be_ended_by_the_signal_is_named_instead(
    reopen: Path, log: Path, writer: subprocess.Popen[str]
) -> None:
    renamed = log.rename(log.with_suffix(".old"))
    asked = ask(reopen, renamed)
    assert asked.returncode == 1
    assert f"{renamed} is still written to by python" in asked.stderr
    assert f"({writer.pid}); restart it before the next rotation, or lines are lost\n" in asked.stderr
    assert writer.poll() is None


def test_who_reads_a_log_is_left_alone(reopen: Path, log: Path) -> None:
    log.write_text("a line\n")
    with log.open():
        assert ask(reopen, log).returncode == 0


# -- write-logs ------------------------------------------------------------------------------------


class Apache:
    """The one end of the pipe, and what it takes to start the other."""

    def __init__(self, directory: Path) -> None:
        self.logs = directory / "logs"
        self.logs.mkdir()
        self.program = program(
            "apache", "write-logs.py.j2", directory, apache_policy={"logs": str(self.logs)}
        )
        self.fifo = directory / "fifo"
        os.mkfifo(self.fifo)
        # As systemd does: the pipe outlives those who read it and those who write.
        self.held = os.open(self.fifo, os.O_RDWR | os.O_NONBLOCK)
        self.reader = self.start()

    def start(self) -> subprocess.Popen[str]:
        command = ["sh", "-c", f"exec {sys.executable} {self.program} 3<>{self.fifo}"]
        return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)

    def write(self, text: bytes) -> None:
        os.write(self.held, text)

    def said(self) -> str:
        """End the reader as systemd does and return what it has said."""
        self.reader.send_signal(signal.SIGTERM)
        return self.reader.communicate(timeout=60)[1]


@pytest.fixture
def apache(tmp_path: Path) -> Iterator[Apache]:
    apache = Apache(tmp_path)
    yield apache
    apache.reader.kill()
    apache.reader.communicate()
    os.close(apache.held)


def test_each_line_goes_to_its_file_and_all_else_to_the_errors(apache: Apache) -> None:
    logs = apache.logs
    for line in ("hello.log {1}", "", "flask.log {2}"):
        apache.write(f"{logs}/{line}\n".encode() if line else b"[date] an error\n")
    apache.write(f"{logs}/hello.log {{3}}\n".encode())
    assert eventually(lambda: len(list(logs.iterdir())) == 3)
    assert apache.said() == ""
    assert (logs / "hello.log").read_text() == "{1}\n{3}\n"
    assert (logs / "flask.log").read_text() == "{2}\n"
    assert (logs / "error.log").read_text() == "[date] an error\n"


def test_a_line_that_names_a_file_elsewhere_is_an_error(apache: Apache, tmp_path: Path) -> None:
    apache.write(f"{apache.logs}/../escaped.log {{}}\n{tmp_path}/other.log {{}}\n".encode())
    assert eventually((apache.logs / "error.log").exists)
    assert apache.said() == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fifo", "logs", "write-logs.py"]


def test_what_comes_in_pieces_is_one_line(apache: Apache) -> None:
    log = apache.logs / "flask.log"
    apache.write(f"{log} {{1}}\n{log} {{".encode())
    assert eventually(log.exists)
    apache.write(b'"a":1}\n')
    assert eventually(lambda: log.read_text() == '{1}\n{"a":1}\n')


def test_a_log_that_was_renamed_is_made_anew(apache: Apache) -> None:
    log = apache.logs / "flask.log"
    apache.write(f"{log} {{1}}\n".encode())
    assert eventually(log.exists)
    renamed = log.rename(log.with_suffix(".old"))
    asked = ask(program("logrotate", "reopen.py.j2", apache.logs.parent), renamed)
    assert (asked.returncode, asked.stderr) == (0, "")
    apache.write(f"{log} {{2}}\n".encode())
    assert eventually(log.exists)
    assert eventually(lambda: log.read_text() == "{2}\n")
    assert renamed.read_text() == "{1}\n"


def test_what_is_in_the_pipe_outlives_a_restart(apache: Apache) -> None:
    log = apache.logs / "flask.log"
    assert apache.said() == ""
    apache.write(f"{log} {{1}}\n".encode())
    apache.reader = apache.start()
    assert eventually(log.exists)
    # What has come before the end is written before it.
    apache.write(f"{log} {{2}}\n".encode())
    assert apache.said() == ""
    assert log.read_text() == "{1}\n{2}\n"


def test_what_cannot_be_written_is_told_and_nobody_waits(apache: Apache) -> None:
    apache.logs.rmdir()
    log = apache.logs / "flask.log"
    apache.write(f"{log} {{1}}\n{log} {{2}}\n".encode())
    assert apache.reader.stderr is not None
    assert apache.reader.stderr.readline() == f"2 lines for {log} are lost: No such file or directory\n"
    apache.logs.mkdir()
    apache.write(f"{log} {{3}}\n".encode())
    assert eventually(log.exists)
    assert apache.said() == ""
    assert log.read_text() == "{3}\n"
