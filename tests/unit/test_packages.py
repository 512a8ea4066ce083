"""Packages: what dpkg's own files say, and when apt is asked for which."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.plugins.action import ActionBase
from ansible_collections.flaskworks.server.plugins.action import packages
from ansible_collections.flaskworks.server.plugins.module_utils import dpkg
from ansible_collections.flaskworks.server.plugins.plugin_utils import lean

STATUS = """\
Package: dpkg
Essential: yes
Status: install ok installed
Architecture: amd64
Description: Debian package management system
 Package: nginx

Package: python3
Status: install ok installed
Architecture: amd64
Provides: python-three

Package: python3-venv
Status: hold ok installed
Architecture: amd64

Package: ssl-cert
Status: install ok installed
Architecture: all

Package: telnetd
Status: deinstall ok config-files
Architecture: all

Package: talk
Status: purge ok not-installed
Architecture: all

Package: sudo
Status: install ok half-configured
Architecture: amd64

Package: libpcre3
Status: install ok installed
Architecture: i386
Multi-Arch: same

Package: chrony
Status: install ok installed
Architecture: amd64
"""
AUTOMATIC = """\
Package: ssl-cert
Architecture: amd64
Auto-Installed: 1

Package: python3
Architecture: amd64
Auto-Installed: 0
"""


@pytest.fixture
def root(tmp_path: Path) -> str:
    for name, text in {dpkg.STATUS: STATUS, dpkg.EXTENDED: AUTOMATIC}.items():
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text)
    (tmp_path / dpkg.UPDATES).mkdir()
    return str(tmp_path)


@pytest.mark.parametrize(
    ("wanted", "asked"),
    [
        ("python3", []),
        ("python3-venv", []),
        ("nginx", ["nginx"]),
        ("python-three", ["python-three"]),
        ("telnetd", ["telnetd"]),
        ("talk", ["talk"]),
        ("sudo", ["sudo"]),
        ("ssl-cert", ["ssl-cert"]),
        ("libpcre3", ["libpcre3"]),
        ("libpcre3:i386", ["libpcre3:i386"]),
        ("python3=3.11*", ["python3=3.11*"]),
        ("python3>=3.11", ["python3>=3.11"]),
        ("python3*", ["python3*"]),
        ("systemd-timesyncd | chrony | ntpsec", []),
        ("ntpsec|openntpd", ["ntpsec"]),
        ("nginx | ssl-cert", ["ssl-cert"]),
    ],
)
def test_apt_is_asked_for_what_is_not_installed_for_sure(root: str, wanted: str, asked: list[str]) -> None:
    assert dpkg.lacking([wanted], root) == asked


def test_apt_removes_what_is_there_and_settings_that_were_left(root: str) -> None:
    unwanted = ["telnetd", "talk", "nis", "sudo", "python3", "rsh-*", "libpcre3"]
    assert dpkg.remaining(unwanted, root) == ["telnetd", "sudo", "python3", "rsh-*"]


def test_where_dpkg_was_interrupted_nothing_is_certain(root: str) -> None:
    (Path(root) / dpkg.UPDATES / "tmp.i").touch()
    assert dpkg.lacking(["python3"], root) == []
    (Path(root) / dpkg.UPDATES / "0000").touch()
    assert dpkg.lacking(["python3", "nginx | chrony"], root) == ["python3", "chrony"]
    assert dpkg.remaining(["nis"], root) == ["nis"]


def test_without_files_of_dpkg_apt_is_asked_for_everything(tmp_path: Path) -> None:
    assert dpkg.lacking(["python3"], str(tmp_path)) == ["python3"]
    assert dpkg.remaining(["nis"], str(tmp_path)) == ["nis"]


class Asked(packages.ActionModule):
    """The action, on a host that says what it is told to."""

    def __init__(self, found: dict[str, Any], arguments: dict[str, Any], check_mode: bool = False) -> None:
        self.orders: list[tuple[bool, dict[str, Any]]] = []
        self.answers: list[dict[str, Any]] = []
        self._found = found
        self._task: Any = SimpleNamespace(args=arguments, check_mode=check_mode, async_val=0)

    def validate_argument_spec(self, argument_spec: Any = None, **_more: Any) -> tuple[Any, dict[str, Any]]:
        defaults = {name: option["default"] for name, option in argument_spec.items()}
        return None, {**defaults, **self._task.args}

    def _execute_module(self, module_name: str = "", module_args: Any = None, **_more: Any) -> dict[str, Any]:
        assert module_name == "ansible.builtin.apt"
        self.orders.append((self._task.check_mode, module_args))
        return self.answers.pop(0) if self.answers else {"changed": True, "diff": {"prepared": "+"}}


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ActionBase, "run", lambda *_: {})
    monkeypatch.setattr(lean, "run", lambda action, *_: dict(action._found))


LISTS = {"update_cache": True, "cache_valid_time": 86400}
INSTALLED = {**LISTS, "name": ["nginx"], "install_recommends": False}
FOUND = {"changed": False, "lacking": ["nginx"], "remaining": []}


@pytest.mark.usefixtures("host")
class TestAction:
    def test_apt_is_not_asked_where_nothing_is_to_do(self) -> None:
        action = Asked({"changed": False, "lacking": [], "remaining": []}, {"present": ["nginx"]}, True)
        assert action.run() == {"changed": False, "lacking": [], "remaining": [], "diff": []}
        assert action.orders == []

    def test_apt_installs_what_is_lacking(self) -> None:
        action = Asked(FOUND, {"present": ["nginx"], "start": False})
        done = action.run()
        assert (done["changed"], done["diff"]) == (True, [{"prepared": "+"}])
        assert action.orders == [(False, {**INSTALLED, "policy_rc_d": 101})]

    def test_in_check_mode_the_lists_are_fetched_and_nothing_else(self) -> None:
        action = Asked(FOUND, {"present": ["nginx"]}, True)
        assert action.run()["changed"] is True
        assert action.orders == [(False, LISTS), (True, INSTALLED)]
        assert action._task.check_mode is True

    def test_apt_says_whether_something_changed(self) -> None:
        action = Asked(FOUND, {"present": ["nginx"]})
        action.answers = [{"changed": False}]
        assert action.run()["changed"] is False

    def test_a_failure_of_apt_is_the_answer(self) -> None:
        found = {"changed": False, "lacking": ["nginx"], "remaining": ["nis"]}
        action = Asked(found, {"present": ["nginx"], "absent": ["nis"]})
        action.answers = [{"changed": True}, {"failed": True, "msg": "held", "changed": False}]
        assert action.run() == {"failed": True, "msg": "held", "changed": True}
        assert action.orders[1] == (False, {"name": ["nis"], "state": "absent", "purge": True})

    def test_lists_that_cannot_be_fetched_are_the_answer_in_check_mode(self) -> None:
        action = Asked(FOUND, {"present": ["nginx"]}, True)
        action.answers = [{"failed": True, "msg": "no network"}]
        assert action.run() == {"failed": True, "msg": "no network"}
        assert action._task.check_mode is True
