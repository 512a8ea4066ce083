# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Tell all mistakes in the description of the apps, before any host is touched."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.flaskworks.server.plugins.filter.plan import schema
from ansible_collections.flaskworks.server.plugins.plugin_utils.problems import (
    VARIABLES,
    problems,
)

# Ansible imports an action before it forks for the hosts. Every play of the collection begins with this one,
# so each task after it finds the plan's code and schema in memory; reading them takes longer than most tasks.
schema()


class ActionModule(ActionBase):
    """Look at the description once for all hosts of the play, and fail with what is wrong."""

    TRANSFERS_FILES = False
    BYPASS_HOST_LOOP = True
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _validated, given = self.validate_argument_spec({"secrets": {"type": "bool", "default": False}})
        known = task_vars or {}
        hosts = [str(host) for host in known["ansible_play_hosts_all"]]
        described = {host: self._described(known["hostvars"], host) for host in hosts}
        found = problems(hosts, described, given["secrets"])
        if found:
            raise AnsibleActionFail("\n".join(found))
        return {**result, "changed": False}

    def _described(self, hostvars: Any, host: str) -> dict[str, Any]:
        """Return what a host's description says as its tasks will read it: hostvars holds no hostvars."""
        variables = {**hostvars.raw_get(host), "hostvars": hostvars}
        templar = self._templar.copy_with_new_env(available_variables=variables)
        return {name: templar.template(variables[name]) for name in VARIABLES if name in variables}
