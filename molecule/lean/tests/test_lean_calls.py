"""The lean way to call the release module and Ansible's own: same answers, same words, same log."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

SCENARIO = Path(__file__).parent.parent
LEAN = "lean call of flaskworks.server.release"
WORD = "a word that only the operator knows"


def play(name: str, answers: Path, *options: str, pipelining: bool = True) -> tuple[int, str]:
    """Run the playbook against one host, in as many words as there are."""
    inventory = Path(os.environ["MOLECULE_INVENTORY_FILE"]).parent
    command = ["ansible-playbook", "-vvv", "-i", str(inventory), "--limit", name, str(SCENARIO / "call.yml")]
    done = subprocess.run(
        [*command, "-e", f"call_answers={answers}", *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
        env={
            **os.environ,
            "ANSIBLE_FORCE_COLOR": "0",
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_PIPELINING": str(pipelining),
        },
    )
    return done.returncode, done.stdout


def told(name: str, answers: Path, *options: str, pipelining: bool = True) -> tuple[dict[str, Any], str]:
    """Run the playbook; what the module answered, and what was said."""
    status, output = play(name, answers, *options, pipelining=pipelining)
    assert status == 0, output
    found: dict[str, Any] = json.loads((answers / f"{name}.json").read_text())
    return found, output


@pytest.fixture
def name(host: Host, platform: Any) -> str:
    assert host.run("journalctl --rotate && journalctl --vacuum-time=1s").rc == 0
    found: str = platform.name
    return found


def test_both_ways_give_the_same_answers(name: str, tmp_path: Path) -> None:
    lean, output = told(name, tmp_path)
    assert output.count(LEAN) == 2
    ordinary, output = told(name, tmp_path, pipelining=False)
    assert LEAN not in output
    assert lean == ordinary
    assert lean["foreseen"]["changed"] is True
    assert lean["foreseen"]["apps"]["hello"]["staged"] is True
    assert lean["refused"]["msg"].startswith("hello: ")
    assert "provision the host first" in lean["refused"]["msg"]


@pytest.mark.parametrize("pipelining", [True, False])
def test_the_log_of_the_host_tells_who_called(
    name: str, host: Host, tmp_path: Path, pipelining: bool
) -> None:
    told(name, tmp_path, pipelining=pipelining)
    lines = host.check_output(
        "journalctl --sync; journalctl -t ansible-flaskworks.server.release -o cat"
    ).splitlines()
    assert [line.partition(" for ")[0] for line in lines] == ["staged", "staged"]
    assert [line.rpartition(": ")[2] for line in lines] == ["hello", "hello"]


def test_no_line_is_logged_where_none_is_wanted(name: str, host: Host, tmp_path: Path) -> None:
    told(name, tmp_path, "-e", "ansible_no_target_syslog=true")
    log = host.check_output("journalctl --sync; journalctl -t ansible-flaskworks.server.release -o cat")
    assert log.strip() == ""


@pytest.mark.parametrize("platform", ["over-ssh"], indirect=True)
def test_sudo_asks_for_a_word(name: str, host: Host, tmp_path: Path) -> None:
    (tmp_path / "right").write_text(f"{WORD}\n")
    (tmp_path / "wrong").write_text("another word\n")
    assert host.run("echo %s | chpasswd", f"operator:{WORD}").rc == 0
    assert host.run("echo 'operator ALL=(ALL) ALL' > /etc/sudoers.d/operator").rc == 0
    try:
        found, output = told(name, tmp_path, "--become-password-file", str(tmp_path / "right"))
        assert output.count(LEAN) == 2
        assert WORD not in output
        assert "provision the host first" in found["refused"]["msg"]
        status, output = play(name, tmp_path, "--become-password-file", str(tmp_path / "wrong"))
        assert status != 0
        assert "ncorrect" in output
        status, output = play(name, tmp_path)
        assert status != 0
        assert "assword" in output
    finally:
        assert host.run("echo 'operator ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/operator").rc == 0


def test_an_interpreter_that_is_not_there_is_named(name: str, tmp_path: Path) -> None:
    status, output = play(name, tmp_path, "-e", "ansible_python_interpreter=/nowhere/python3")
    assert status != 0
    assert "The module interpreter '/nowhere/python3' was not found" in output


@pytest.mark.parametrize("platform", ["over-ssh"], indirect=True)
def test_a_host_that_cannot_be_reached_is_unreachable(name: str, tmp_path: Path) -> None:
    status, output = play(name, tmp_path, "-e", "ansible_port=9", "-e", "ansible_control_path=none")
    assert status == 4
    assert "unreachable=1" in output


def test_an_interpreter_is_discovered_first(name: str, tmp_path: Path) -> None:
    _found, output = told(name, tmp_path, "-e", "ansible_python_interpreter=auto_silent")
    assert output.count(LEAN) == 1
