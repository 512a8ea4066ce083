# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The controller's half of a lean call: send a module, and only what it imports, to a host's interpreter.

Such a call costs about half of what Ansible's own way costs, which sends and loads its module framework each
time; both give the same answer. Whatever is unusual about a task is left to Ansible's own way: see `usable`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import marshal
import os
import re
import secrets
import shlex
import sys
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from ansible import constants
from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.flaskworks.server.plugins.plugin_utils.cache import cache_directory

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "ansible_collections.flaskworks.server"
CONNECTIONS = frozenset({"ssh", "ansible.builtin.ssh", "docker", "community.docker.docker"})
BECOMES = frozenset({"sudo", "ansible.builtin.sudo"})
NOT_BEGUN = frozenset({99, 126, 127})
"""Exit statuses before anything was done: the set-up below failed, or there is no such interpreter."""

_UNCHECKED = (1).to_bytes(4, "little")  # flags of a compiled file that is not compared with its source

# Loads the archive from memory: no file is written on the host, and none is imported from where it begins.
_BEGIN = """\
import os, sys
try:
    sys.path[:] = [path for path in sys.path if path]
    mark, name, size = sys.stdin.buffer.readline().decode().split()
    archive = os.memfd_create("flaskworks-lean")
    with os.fdopen(archive, "wb", closefd=False) as file:
        file.write(sys.stdin.buffer.read(int(size)))
    sys.path.insert(0, f"/proc/self/fd/{archive}")
    from ansible_collections.flaskworks.server.plugins.module_utils import lean
except Exception as error:
    print(repr(error), file=sys.stderr)
    sys.exit(99)
lean.run(name, mark)
"""

_IMPORT = re.compile(
    r"^[ ]*from[ ]+(\.+|ansible_collections\.flaskworks\.server\.plugins\.)([\w.]*)[ ]+"
    r"import[ ]+(\([^)]*\)|[^\n#(]+)",
    re.MULTILINE,
)


class LeanAction(ActionBase):
    """An action that has nothing to do but a lean call of its module, with the task's own arguments."""

    MODULE: ClassVar[str]
    ARGUMENTS: ClassVar[Mapping[str, Mapping[str, Any]]]

    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _validated, given = self.validate_argument_spec(self.ARGUMENTS)
        return run(self, self.MODULE, given, task_vars or {})


def run(action: Any, name: str, arguments: Mapping[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
    """Call a module of this collection on the action's host: lean where that works, else Ansible's own way.

    Raises:
        AnsibleConnectionFailure: when the host cannot be reached.
    """
    result = call(action, name, arguments, task_vars)
    if result is None:
        result = action._execute_module(module_name=name, module_args=dict(arguments), task_vars=task_vars)
    return result


def call(
    action: Any, name: str, arguments: Mapping[str, Any], task_vars: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Call a module of this collection on the action's host.

    Returns:
        What the module answers, or none when the call has to go Ansible's own way; nothing was done then.

    Raises:
        AnsibleConnectionFailure: when the host cannot be reached.
    """
    python = usable(action, task_vars)
    if python is None:
        return None
    told = dict(arguments)
    action._update_module_args(name, told, task_vars)
    packed = archive(name.rpartition(".")[2], cache_directory())
    mark = f"flaskworks-{secrets.token_hex(8)}:"
    sent = b"".join(
        (f"{mark} {name} {len(packed)}\n".encode(), packed, json.dumps(_plain(told), default=str).encode())
    )
    command = f"{action._compute_environment_string()} {python} -c {shlex.quote(_BEGIN)}".strip()
    Display().vvv(f"lean call of {name}: {len(packed)} bytes of code, {len(sent)} in all")
    done = action._low_level_execute_command(command, in_data=sent)
    return _answer(name, mark, done)


def usable(action: Any, task_vars: Mapping[str, Any]) -> str | None:
    """The interpreter for a lean call, or none when something about the task is out of the ordinary."""
    connection, task = action._connection, action._task
    become = connection.become
    if task.async_val or task.delegate_to or not action._is_pipelining_enabled("new"):
        return None
    if connection.transport not in CONNECTIONS or (become is not None and become.name not in BECOMES):
        return None
    if getattr(connection._shell, "SHELL_FAMILY", "") != "sh":
        return None
    return _interpreter(action, task_vars)


def _interpreter(action: Any, task_vars: Mapping[str, Any]) -> str | None:
    """The path that Ansible would use; none where it would have to look for one, or it is no plain path."""
    chosen = constants.config.get_config_value("INTERPRETER_PYTHON", variables=task_vars)
    chosen = action._templar.template(chosen)
    if not chosen or chosen in ("auto", "auto_silent"):
        chosen = (task_vars.get("ansible_facts") or {}).get("discovered_interpreter_python")
    return str(chosen) if chosen and re.fullmatch(r"/[\w./+-]+", str(chosen)) else None


def _answer(name: str, mark: str, done: Mapping[str, Any]) -> dict[str, Any] | None:
    _before, found, rest = done["stdout"].partition(mark)
    if found:
        try:
            result: dict[str, Any] = json.loads(rest.partition("\n")[0])
        except ValueError:
            pass  # the connection ended in the middle of the answer
        else:
            return result
    elif done["rc"] in NOT_BEGUN:
        Display().vvv(f"no lean call of {name}: {done['stderr'].strip()[-300:]}")
        return None
    said = "\n".join(filter(None, (done["stdout"].strip(), done["stderr"].strip())))[-3000:]
    if done["rc"] == 255:
        raise AnsibleConnectionFailure(
            f"The connection ended before {name} had answered: {said or '(nothing said)'}"
        )
    return {
        "failed": True,
        "changed": False,
        "msg": f"{name} ended with exit status {done['rc']} and without an answer; run again. It said: "
        f"{said or '(nothing)'}",
        "rc": done["rc"],
        "module_stdout": done["stdout"],
        "module_stderr": done["stderr"],
    }


def archive(name: str, cache: Path) -> bytes:
    """A module and everything of this collection that it imports, as a zip archive for Python's importer.

    It is kept in ``cache`` for as long as no file of the collection's host code changes.
    """
    folder = cache / "lean"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / f"{name}-{_state()}.zip"
    try:
        return path.read_bytes()
    except FileNotFoundError:
        packed = _pack(name)
    for old in folder.glob(f"{name}-*.zip"):
        old.unlink(missing_ok=True)
    partial = folder / f".{path.name}.{os.getpid()}"
    partial.write_bytes(packed)
    partial.rename(path)
    return packed


def _state() -> str:
    """What changes with the code that hosts are sent, and with the Python that compiles it."""
    files = sorted(
        [*(ROOT / "plugins" / "modules").glob("*.py"), *(ROOT / "plugins" / "module_utils").rglob("*.py")]
    )
    seen = [(str(file), status.st_size, status.st_mtime_ns) for file in files if (status := file.stat())]
    return hashlib.sha256(
        repr((sys.version, __file__, Path(__file__).stat().st_mtime_ns, seen)).encode()
    ).hexdigest()[:20]


def _pack(name: str) -> bytes:
    packed = io.BytesIO()
    folder = f"{PACKAGE.replace('.', '/')}/plugins"
    found = {
        f"{folder}/{path}": (ROOT / "plugins" / path).read_text() for path in needed(f"modules/{name}.py")
    }
    for path in list(found):
        parents = Path(path).parents
        found.update(
            {
                f"{parent}/__init__.py": ""
                for parent in parents
                if str(parent) != "." and f"{parent}/__init__.py" not in found
            }
        )
    found["ansible/__init__.py"] = found["ansible/module_utils/__init__.py"] = ""
    found["ansible/module_utils/basic.py"] = (
        f"from {PACKAGE}.plugins.module_utils.lean import AnsibleModule\n"
    )
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for path, content in sorted(found.items()):
            # A host with the same Python as the controller takes the compiled file, any other the source.
            target.writestr(zipfile.ZipInfo(f"{path}c"), _compiled(path, content), zipfile.ZIP_DEFLATED)
            target.writestr(zipfile.ZipInfo(path), content, zipfile.ZIP_DEFLATED)
    return packed.getvalue()


def _compiled(path: str, content: str) -> bytes:
    """The text of a file as Python keeps it compiled, to be taken without a look at the text (PEP 552)."""
    code = compile(content, path, "exec", dont_inherit=True)
    return b"".join((importlib.util.MAGIC_NUMBER, _UNCHECKED, bytes(8), marshal.dumps(code)))


def needed(module: str) -> frozenset[str]:
    """The files below ``plugins`` that a module needs, itself and the host's half of the call among them."""
    found: set[str] = set()
    waiting = [module, "module_utils/lean.py"]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += imported(path, (ROOT / "plugins" / path).read_text())
    return frozenset(found)


def imported(path: str, text: str) -> Iterator[str]:
    """The files of this collection that one file imports, with the packages that they lie in."""
    for origin, rest, names in _IMPORT.findall(text):
        base = Path(path).parents[len(origin) - 1] if origin.startswith(".") else Path()
        module = base.joinpath(*filter(None, rest.split(".")))
        for name in ("", *(part.split()[0] for part in names.strip("() \n").split(",") if part.strip())):
            target = module / name
            for file in (target.with_suffix(".py"), target / "__init__.py"):
                if file.name != ".py" and (ROOT / "plugins" / file).is_file():
                    yield str(file)


def _plain(value: Any) -> Any:
    """A copy in plain types: Ansible's own resolve templates only when they are asked for an element."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
