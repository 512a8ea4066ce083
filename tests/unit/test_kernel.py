"""Settings of a kernel that is a directory here."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.flaskworks.server.plugins.module_utils import kernel


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, value in {"kernel/sysrq": "16\n", "net/ipv4/ip_local_port_range": "32768\t60999\n"}.items():
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(value)
    return tmp_path


def test_what_differs_is_set(root: Path) -> None:
    wanted = {"kernel.sysrq": "0", "net.ipv4.ip_local_port_range": "32768 60999", "kernel.no_such": "1"}
    outcome = kernel.bring_about(wanted, root=str(root))
    assert outcome == kernel.Outcome({"kernel.sysrq": ("16", "0")}, [], ["kernel.no_such"])
    assert (root / "kernel/sysrq").read_text() == "0\n"
    assert kernel.bring_about(wanted, root=str(root)).changes == {}


def test_check_mode_sets_nothing(root: Path) -> None:
    outcome = kernel.bring_about({"kernel.sysrq": "0"}, check_mode=True, root=str(root))
    assert (outcome.changes, (root / "kernel/sysrq").read_text()) == ({"kernel.sysrq": ("16", "0")}, "16\n")


def test_a_refusal_is_told_and_no_error(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "_write", lambda _path, _value: False)
    outcome = kernel.bring_about({"kernel.sysrq": "0"}, root=str(root))
    assert (outcome.changes, outcome.refused) == ({}, ["kernel.sysrq"])


def test_a_value_that_cannot_be_set_but_is_right_is_no_refusal(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel, "_writable", lambda _path: False)
    outcome = kernel.bring_about({"kernel.sysrq": "16"}, root=str(root))
    assert outcome == kernel.Outcome()
