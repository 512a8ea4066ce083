# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Controller side of flaskworks.server.packages: ask dpkg's files, and apt only where something is to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.flaskworks.server.plugins.modules.packages import ARGUMENTS
from ansible_collections.flaskworks.server.plugins.plugin_utils import lean

APT = "ansible.builtin.apt"
LISTS = {"update_cache": True, "cache_valid_time": 86400}
NO_START = 101
"""What policy-rc.d answers for: the action is forbidden."""


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_diff = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        self._vars = task_vars or {}
        _validated, given = self.validate_argument_spec(ARGUMENTS)
        found = lean.run(self, "flaskworks.server.packages", given, self._vars)
        if found.get("failed") or found.get("unreachable"):
            return found
        lacking, remaining = found["lacking"], found["remaining"]
        result: dict[str, Any] = {**found, "changed": False, "diff": []}
        if lacking and self._task.check_mode:
            # A fresh host has no package lists, and without them apt can say nothing.
            self._task.check_mode = False
            try:
                fetched = self._ask(LISTS)
            finally:
                self._task.check_mode = True
            if fetched.get("failed"):
                return fetched
        policy = {} if given["start"] else {"policy_rc_d": NO_START}
        orders = [
            (lacking, {**LISTS, **policy, "name": lacking, "install_recommends": False}),
            (remaining, {"name": remaining, "state": "absent", "purge": True}),
        ]
        for names, order in orders:
            if not names:
                continue
            done = self._ask(order)
            if done.get("failed") or done.get("unreachable"):
                return {**done, "changed": result["changed"] or bool(done.get("changed"))}
            result["changed"] = result["changed"] or bool(done.get("changed"))
            result["diff"] += [done["diff"]] if done.get("diff") else []
            result["warnings"] = [*result.get("warnings", []), *done.get("warnings", [])]
        return result

    def _ask(self, order: Mapping[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = self._execute_module(
            module_name=APT, module_args=dict(order), task_vars=self._vars
        )
        return answer
