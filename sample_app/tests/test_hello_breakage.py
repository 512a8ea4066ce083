"""It breaks when told to, the way it was told to."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from hello import breakage, create_app
from hello.breakage import Breakage

SOURCE = str(Path(__file__).parent.parent / "src")


def run(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": SOURCE, "PYTHONDONTWRITEBYTECODE": "1", "SECRET_KEY": "k", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("text", "broken"),
    [
        ("", Breakage()),
        ("import", Breakage()),
        ("slow:2.5", Breakage(slow=2.5)),
        ("health", Breakage(health=True)),
        ("crash:3", Breakage(crash_after=3)),
        ("hang", Breakage(hang=True)),
        ("slow:1, health", Breakage(slow=1.0, health=True)),
    ],
)
def test_the_words(text: str, broken: Breakage) -> None:
    assert Breakage.parse(text) == broken


@pytest.mark.parametrize(
    "text", ["slow", "slow:", "slow:-1", "slow:9999", "slow:.", "crash", "crash:x", "hang:1", "Hang"]
)
def test_other_words_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="it takes import, slow:SECONDS, health, crash:N and hang"):
        Breakage.parse(text)


def test_import() -> None:
    result = run("import hello", HELLO_BREAK="import")
    assert result.returncode == 1
    assert result.stderr.endswith("ImportError: HELLO_BREAK=import: this app was told to fail on import.\n")
    with pytest.raises(ImportError):
        breakage.at_import({"HELLO_BREAK": "health, import"})


def test_slow(environment: dict[str, str]) -> None:
    before = time.monotonic()
    create_app(environment | {"HELLO_BREAK": "slow:0.2"})
    assert time.monotonic() - before >= 0.2


def test_health(environment: dict[str, str]) -> None:
    client = create_app(environment | {"HELLO_BREAK": "health"}).test_client()
    response = client.get("/healthz")
    assert response.status_code == 503
    assert response.get_json() == {
        "status": "failing",
        "reason": "HELLO_BREAK=health",
        "release": "20261120T120000Z-0123456789",
    }
    assert client.get("/").status_code == 200


def test_crash() -> None:
    program = """
import hello
client = hello.create_app().test_client()
for number in range(1, 9):
    print(number, client.get("/json").status_code, flush=True)
"""
    result = run(program, HELLO_BREAK="crash:2")
    assert (result.returncode, result.stdout) == (70, "1 200\n2 200\n")


def test_hang(environment: dict[str, str]) -> None:
    client = create_app(environment | {"HELLO_BREAK": "hang"}).test_client()
    for path in ("/healthz", "/nowhere", "/static/hello.css"):
        request = threading.Thread(target=client.get, args=(path,), daemon=True)
        request.start()
        request.join(0.2)
        assert request.is_alive()
