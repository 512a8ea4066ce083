"""Lean calls: the same module and the same answers, without Ansible's module framework on the host."""

from __future__ import annotations

import ast
import io
import json
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleConnectionFailure
from ansible_collections.flaskworks.server.plugins.plugin_utils import lean
from ansible_collections.flaskworks.server.plugins.plugin_utils.cache import cache_directory

from tests.unit.release_host import Bench

ROOT = Path(__file__).resolve().parents[2]
MODULE = "flaskworks.server.release"
BARE = {"state": "staged", "releases": []}


class Shell:
    """A connection's shell."""

    SHELL_FAMILY = "sh"


@dataclass
class Connection:
    """A connection that is as ordinary as can be."""

    transport: str = "ssh"
    become: Any = None
    _shell: Any = field(default_factory=Shell)


@dataclass
class Action:
    """What a lean call asks of an action; commands run here, as they would on a host."""

    _connection: Any = field(default_factory=Connection)
    pipelining: bool = True
    environment: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    done: dict[str, Any] | None = None
    commands: list[str] = field(default_factory=list)
    sent: list[bytes] = field(default_factory=list)
    _task: Any = field(default_factory=lambda: SimpleNamespace(async_val=0, delegate_to=None))
    _templar: Any = field(default_factory=lambda: SimpleNamespace(template=lambda text: text))

    def _is_pipelining_enabled(self, style: str) -> bool:
        assert style == "new"
        return self.pipelining

    def _compute_environment_string(self) -> str:
        return self.environment

    def _update_module_args(self, _name: str, arguments: dict[str, Any], _task_vars: dict[str, Any]) -> None:
        arguments.update({"_ansible_check_mode": False, "_ansible_no_log": True, **self.settings})

    def _low_level_execute_command(self, command: str, in_data: bytes) -> dict[str, Any]:
        self.commands.append(command)
        self.sent.append(in_data)
        if self.done is not None:
            return self.done
        # Without site packages, so that nothing of Ansible can be found but what is sent.
        command = command.replace(" -c ", " -S -c ", 1)
        run = subprocess.run(["sh", "-c", command], input=in_data, capture_output=True, check=False)
        return {"rc": run.returncode, "stdout": run.stdout.decode(), "stderr": run.stderr.decode()}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A provisioned host with one app."""
    place = {"directory": str(tmp_path / "environments"), "interpreter": sys.executable, "server": "gunicorn"}
    return Bench(tmp_path, environment=place)


def call(action: Action, arguments: dict[str, Any], python: str = sys.executable) -> dict[str, Any] | None:
    return lean.call(action, MODULE, arguments, {"ansible_python_interpreter": python})


def test_a_lean_call_gives_the_answer_of_the_module() -> None:
    assert call(Action(), BARE) == {"changed": False, "apps": {}, "diff": []}


def test_nothing_of_the_arguments_is_on_the_command_line() -> None:
    action = Action()
    call(action, {**BARE, "deployer": "somebody", "bundles": {"0f": "c2VjcmV0"}})
    assert "c2VjcmV0" not in action.commands[0]
    assert "somebody" not in action.commands[0]
    assert b"c2VjcmV0" in action.sent[0]


def test_bundles_are_not_in_the_answer() -> None:
    assert "c2VjcmV0" not in json.dumps(call(Action(), {**BARE, "bundles": {"0f": "c2VjcmV0"}}))


def test_check_mode_reaches_the_module(bench: Bench) -> None:
    before = sorted(bench.root.rglob("*"))
    action = Action(settings={"_ansible_check_mode": True})
    looked = call(action, {"state": "staged", "releases": [bench.description("hello")]})
    assert looked is not None
    assert looked["changed"] is True
    assert looked["apps"]["hello"]["staged"] is True
    assert sorted(bench.root.rglob("*")) == before


def test_a_failure_is_the_sentence_of_the_module(bench: Bench) -> None:
    (bench.root / "etc" / "hello" / "environment").unlink()
    failed = call(Action(), {"state": "staged", "releases": [bench.description("hello")]})
    assert failed is not None
    assert failed["failed"] is True
    assert "provision the host first" in failed["msg"]
    assert failed["apps"]["hello"]["staged"] is False


def test_an_error_nobody_thought_of_is_told_with_its_traceback() -> None:
    failed = call(Action(), {"state": "staged", "releases": [{"name": "hello"}]})
    assert failed is not None
    assert failed["failed"] is True
    assert failed["msg"] == (
        "flaskworks.server.release ended with an error that it does not know: KeyError: 'source'"
    )
    assert "request.py" in failed["exception"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {**BARE, "colour": "red"},
            "Unsupported parameters for (flaskworks.server.release) module: colour",
        ),
        ({"state": "staged"}, "missing required arguments: releases"),
        ({"state": "staged", "releases": 5}, "argument 'releases' is of type int, not list"),
    ],
)
def test_arguments_are_looked_at(arguments: dict[str, Any], message: str) -> None:
    failed = call(Action(), arguments)
    assert failed is not None
    assert (failed["failed"], failed["msg"]) == (True, message)


def test_an_unknown_state_is_refused() -> None:
    failed = call(Action(), {"state": "shipped", "releases": []})
    assert failed is not None
    assert failed["msg"].startswith("value of state must be one of: staged, ")


def test_the_environment_of_the_task_reaches_the_host() -> None:
    action = Action(environment="PATH=/usr/bin:/bin COLOUR=red")
    assert call(action, BARE) is not None
    assert action.commands[0].startswith(f"PATH=/usr/bin:/bin COLOUR=red {sys.executable} -c ")


def test_modules_in_the_current_directory_are_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("json", "syslog", "ansible_collections"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('imported from the current directory')\n")
    monkeypatch.chdir(tmp_path)
    assert call(Action(), BARE) == {"changed": False, "apps": {}, "diff": []}


def test_what_a_shell_says_first_is_no_part_of_the_answer() -> None:
    class Chatty(Action):
        def _low_level_execute_command(self, command: str, in_data: bytes) -> dict[str, Any]:
            done = super()._low_level_execute_command(command, in_data)
            return {**done, "stdout": '{"failed": true}\nWelcome!\n' + done["stdout"] + "logout\n"}

    assert call(Chatty(), BARE) == {"changed": False, "apps": {}, "diff": []}


@pytest.mark.parametrize("status", [99, 126, 127])
def test_without_a_fitting_interpreter_the_ordinary_way_finds_the_words(status: int) -> None:
    assert call(Action(done={"rc": status, "stdout": "", "stderr": "sh: no such file"}), BARE) is None


def test_an_interpreter_that_is_not_there_is_left_to_the_ordinary_way() -> None:
    assert call(Action(), BARE, python="/nowhere/python3") is None


def test_a_call_that_was_killed_is_not_made_again() -> None:
    failed = call(Action(done={"rc": 137, "stdout": "", "stderr": "Killed"}), BARE)
    assert failed is not None
    assert failed["failed"] is True
    assert failed["msg"] == (
        "flaskworks.server.release ended with exit status 137 and without an answer; run again. "
        "It said: Killed"
    )


def test_a_connection_that_ends_in_the_middle_is_a_lost_host() -> None:
    with pytest.raises(AnsibleConnectionFailure, match="The connection ended before"):
        call(Action(done={"rc": 255, "stdout": "", "stderr": "Broken pipe"}), BARE)


@pytest.mark.parametrize(
    "action",
    [
        Action(pipelining=False),
        Action(_connection=Connection(transport="winrm")),
        Action(_connection=Connection(become=SimpleNamespace(name="ansible.builtin.su"))),
        Action(_connection=Connection(_shell=SimpleNamespace(SHELL_FAMILY="powershell"))),
        Action(_task=SimpleNamespace(async_val=60, delegate_to=None)),
        Action(_task=SimpleNamespace(async_val=0, delegate_to="other.example.org")),
    ],
    ids=["no pipelining", "connection", "become", "shell", "async", "delegated"],
)
def test_what_is_unusual_goes_the_ordinary_way(action: Action) -> None:
    assert call(action, BARE) is None
    assert action.commands == []


@pytest.mark.parametrize("python", ["auto", "auto_silent", "/usr/bin/env python3", "python3"])
def test_an_interpreter_that_has_to_be_found_first_goes_the_ordinary_way(python: str) -> None:
    assert call(Action(), BARE, python=python) is None


def test_a_discovered_interpreter_is_used() -> None:
    known = {
        "ansible_python_interpreter": "auto",
        "ansible_facts": {"discovered_interpreter_python": sys.executable},
    }
    assert lean.call(Action(), MODULE, BARE, known) is not None


@pytest.mark.parametrize(
    "become", [None, SimpleNamespace(name="sudo"), SimpleNamespace(name="ansible.builtin.sudo")]
)
@pytest.mark.parametrize("transport", ["ssh", "community.docker.docker"])
def test_the_usual_connections_are_lean(transport: str, become: Any) -> None:
    assert call(Action(_connection=Connection(transport=transport, become=become)), BARE) is not None


def send_instead(monkeypatch: pytest.MonkeyPatch, change: Callable[[str, bytes], bytes | None]) -> None:
    """Let the archive that is sent hold other files; None leaves one out."""
    with zipfile.ZipFile(io.BytesIO(lean.archive("release", cache_directory()))) as packed:
        files = {name: change(name, packed.read(name)) for name in packed.namelist()}
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as packed:
        for name, content in files.items():
            if content is not None:
                packed.writestr(name, content)
    monkeypatch.setattr(lean, "archive", lambda _name, _cache: target.getvalue())


def test_warnings_of_a_module_are_in_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    module = (
        b"from ansible.module_utils.basic import AnsibleModule\n"
        b"def main():\n"
        b"    module = AnsibleModule({}, True)\n"
        b"    print('not an answer')\n"
        b"    module.warn('old')\n"
        b"    module.deprecate('older', version='2.0.0')\n"
        b"    module.exit_json(changed=True)\n"
    )
    send_instead(
        monkeypatch,
        lambda name, content: (
            None if name.endswith(".pyc") else module if name.endswith("/modules/release.py") else content
        ),
    )
    assert call(Action(), {}) == {
        "changed": True,
        "warnings": ["old"],
        "deprecations": [{"msg": "older", "version": "2.0.0"}],
    }


def test_a_host_with_the_same_python_compiles_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    send_instead(monkeypatch, lambda name, content: content if name.endswith(".pyc") else b"no Python")
    assert call(Action(), BARE) == {"changed": False, "apps": {}, "diff": []}


def test_a_host_with_another_python_takes_the_source(monkeypatch: pytest.MonkeyPatch) -> None:
    def of_another_python(name: str, content: bytes) -> bytes:
        return b"\x01\x02\r\n" + content[4:16] + b"no code" if name.endswith(".pyc") else content

    send_instead(monkeypatch, of_another_python)
    assert call(Action(), BARE) == {"changed": False, "apps": {}, "diff": []}


def test_the_archive_is_made_once_and_anew_when_the_code_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(ROOT / "plugins", tmp_path / "plugins")
    monkeypatch.setattr(lean, "ROOT", tmp_path)
    first = lean.archive("release", tmp_path)
    (kept,) = (tmp_path / "lean").iterdir()
    assert kept.read_bytes() == first
    kept.write_bytes(b"as it was kept")
    assert lean.archive("release", tmp_path) == b"as it was kept"
    with (tmp_path / "plugins/module_utils/release/gate.py").open("a") as file:
        file.write("# changed\n")
    second = lean.archive("release", tmp_path)
    with zipfile.ZipFile(io.BytesIO(second)) as packed:
        folder = "ansible_collections/flaskworks/server/plugins/module_utils/release"
        assert packed.read(f"{folder}/gate.py").endswith(b"# changed\n")
    (kept,) = (tmp_path / "lean").iterdir()
    assert kept.read_bytes() == second


def test_the_archive_holds_what_is_imported_and_no_more() -> None:
    """Python's own parser finds the same files."""
    plugins = ROOT / "plugins"
    found, waiting = set(), ["modules/release.py", "module_utils/lean.py"]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        for node in ast.walk(ast.parse((plugins / path).read_text())):
            if not isinstance(node, ast.ImportFrom):
                continue
            if node.level:
                base = Path(path).parents[node.level - 1]
            elif (node.module or "").startswith("ansible_collections.flaskworks.server.plugins"):
                base = Path()
            else:
                continue
            words = (node.module or "").removeprefix("ansible_collections.flaskworks.server.plugins")
            module = base.joinpath(*filter(None, words.split(".")))
            for target in (module, *(module / alias.name for alias in node.names)):
                waiting += [
                    str(file)
                    for file in (Path(f"{target}.py"), target / "__init__.py")
                    if (plugins / file).is_file()
                ]
    assert lean.needed("modules/release.py") == found
    assert "module_utils/release/gate.py" in found
    assert "module_utils/transaction.py" not in found


def test_the_command_is_one_that_a_plain_shell_reads() -> None:
    action = Action()
    call(action, BARE)
    assert shlex.split(action.commands[0])[:2] == [sys.executable, "-c"]
