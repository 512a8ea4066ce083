"""`make demo` as a newcomer meets it: run it, do what its receipt says, run it again, clean up."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MADE = (ROOT / "inventories/demo/.tls", ROOT / ".demo")


def run(*command: str) -> str:
    """Run a command in the clone; return what it printed."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def containers() -> list[str]:
    return run("docker", "ps", "--all", "--format", "{{.Names}}").split()


@pytest.fixture(scope="module")
def first() -> Iterator[str]:
    """Return what a first `make demo` prints. A demonstration that somebody is using stays as it is."""
    used = "flaskworks-demo" in containers()
    yield run("make", "demo")
    if not used:
        run("make", "demo-clean")
        assert "flaskworks-demo" not in containers()
        assert [path for path in MADE if path.exists()] == []


def line(output: str, label: str) -> str:
    """Return what the receipt says beside `label`."""
    found = re.search(rf"^  {label} +(.+)$", output, re.MULTILINE)
    assert found, output
    return found[1]


def test_receipt_says_what_was_made(first: str) -> None:
    assert re.search(r"^  https://hello\.localhost(:\d+)?/ answers 200\.$", first, re.MULTILINE)
    assert re.fullmatch(r"\d{8}T\d{6}Z-[0-9a-f]{10}", line(first, "Release"))
    assert line(first, "Certificate") in ("89 days left", "90 days left")


def test_command_of_the_receipt_shows_the_page(first: str) -> None:
    command = line(first, "Ask")
    assert command.startswith("curl --cacert inventories/demo/.tls/ca.pem https://hello.localhost")
    page = run(*shlex.split(command), "--silent", "--show-error", "--fail")
    assert line(first, "Release") in page


def test_journal_of_the_receipt_has_the_start_of_the_release(first: str) -> None:
    assert "Booting worker" in run(*shlex.split(line(first, "Look inside")))


def test_second_run_changes_nothing(first: str) -> None:
    again = run("make", "demo")
    assert re.search(r"^ *demo +: ok=\d+ +changed=0 +unreachable=0 +failed=0 ", again, re.MULTILINE)
    assert line(again, "Release") == line(first, "Release")
