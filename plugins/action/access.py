# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Controller side of flaskworks.server.access: render, have it put, prove a new connection, confirm."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Iterator
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.flaskworks.server.plugins.module_utils.transaction import TransactionError
from ansible_collections.flaskworks.server.plugins.modules.access import ARGUMENTS, rules_of
from ansible_collections.flaskworks.server.plugins.modules.templates import pack
from ansible_collections.flaskworks.server.plugins.plugin_utils import lean
from ansible_collections.flaskworks.server.plugins.plugin_utils.rendering import Renderer, search_path

MODULE = "flaskworks.server.access"
ATTEMPTS = 3
"""Connections that are tried: sshd takes a moment to read its settings anew."""

_SHORTEST = 20
_ALONE = "-o ControlMaster=no -o ControlPath=none"
"""In front of all other options, and ssh takes the first it meets: no kept connection is used."""

_BY_KEY = "-o PreferredAuthentications=publickey -o PasswordAuthentication=no"


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_diff = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        own = [name for name in ("step", "token", "password", "rendered") if name in self._task.args]
        if own:
            raise AnsibleActionFail(f"'{own[0]}' is set by the action itself; remove it from the task")
        _validated, given = self.validate_argument_spec(ARGUMENTS)
        if given["revert_after"] < _SHORTEST:
            raise AnsibleActionFail(
                f"revert_after is {given['revert_after']} s, too short to prove a connection; give at least "
                f"{_SHORTEST} s"
            )
        self._vars = task_vars or {}
        try:
            given["rendered"] = pack(self._render(given["files"]))
        except TransactionError as error:
            raise AnsibleActionFail(str(error)) from error
        given["password"] = self._has_password()
        result = lean.run(self, MODULE, given, self._vars)
        if result.get("key_needed"):
            fault = self._connect(_BY_KEY, 10)
            if fault:
                return {
                    "failed": True,
                    "msg": "password login would end, this play connects with a password, and no key of its "
                    f"user gets in ({fault}). Nothing was changed: put a key on the host "
                    "(hardening_admins), or set hardening_ssh_passwords to true",
                }
            result = lean.run(self, MODULE, {**given, "password": False}, self._vars)
        token = result.pop("token", "")
        result.pop("key_needed", None)
        if result.get("failed") or not token:
            return result
        return self._prove(result, token, given["revert_after"])

    def _prove(self, result: dict[str, Any], token: str, patience: int) -> dict[str, Any]:
        """Confirm the change when a new connection gets in, else have it put back."""
        begun = time.monotonic()
        fault = ""
        for attempt in range(ATTEMPTS):
            # Two thirds of the time: the rest is for the order that puts everything back at once.
            left = patience * 2 / 3 - (time.monotonic() - begun)
            if left < 1:
                break
            if attempt:
                time.sleep(1)
            fault = self._connect("", max(1, int(left / (ATTEMPTS - attempt))))
            if not fault:
                break
        if fault:
            return {"failed": True, "msg": self._take_back(token, fault, patience)}
        done = lean.run(self, MODULE, {"step": "confirm", "token": token}, self._vars)
        if done.get("failed"):
            return done
        result["msg"] = f"a new connection was proven after {time.monotonic() - begun:.1f} s"
        return result

    def _take_back(self, token: str, fault: str, patience: int) -> str:
        """Have everything put back over the connection that there is; the sentence about it."""
        told = f"with the new settings this host cannot be reached any more ({fault}). "
        try:
            done = lean.run(self, MODULE, {"step": "revert", "token": token}, self._vars)
        except AnsibleConnectionFailure:
            done = {"failed": True}
        if done.get("failed"):
            told += f"The host puts everything back by itself within {patience} s"
        else:
            told += "Everything was put back as before"
        return f"{told}; correct hardening_* and run again"

    def _connect(self, options: str, patience: int) -> str:
        """Make a connection from scratch and run a command over it; why that failed, if so."""
        word = secrets.token_hex(8)
        try:
            with self._from_scratch(f"{_ALONE} {options} -o ConnectTimeout={patience}".replace("  ", " ")):
                code, out, said = self._connection.exec_command(f"echo {word}", sudoable=False)
        except AnsibleError as error:
            return _short(str(error))
        if code == 0 and word in out.decode("utf-8", "replace"):
            return ""
        return _short(said.decode("utf-8", "replace")) or f"a command ended with exit code {code}"

    @contextlib.contextmanager
    def _from_scratch(self, options: str) -> Iterator[None]:
        """Have the connection's next command use a connection of its own, with the user's settings."""
        connection = self._connection
        if connection.transport not in ("ssh", "ansible.builtin.ssh"):
            connection.reset()
            yield
            return
        before = {name: connection.get_option(name) for name in ("ssh_args", "reconnection_retries")}
        connection.set_option("ssh_args", f"{options} {before['ssh_args'] or ''}".strip())
        connection.set_option("reconnection_retries", 0)
        Display().vvv(f"a connection from scratch: {options}")
        try:
            yield
        finally:
            for name, value in before.items():
                connection.set_option(name, value)

    def _has_password(self) -> bool:
        try:
            return bool(self._connection.get_option("password"))
        except KeyError:
            return False

    def _render(self, files: list[dict[str, Any]]) -> list[str]:
        contents = []
        for file, rule in zip(files, rules_of(files), strict=True):
            try:
                path = self._find_needle("templates", file["template"])
                places = search_path(
                    self._vars.get("ansible_search_path", []), self._loader.get_basedir(), path
                )
                source = self._loader.get_text_file_contents(path)
                renderer = Renderer(self._templar, file["template"], path, source, places)
                contents.append(renderer.render(self._vars, rule.path))
            except AnsibleError as error:
                raise AnsibleActionFail(f"{rule.path} cannot be rendered: {error}") from error
        return contents


def _short(text: str) -> str:
    """The last line that says something."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
