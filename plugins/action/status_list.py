# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Print how the apps of all hosts are as one table. No host is asked: status was, before."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.flaskworks.server.plugins.plugin_utils import printing, status_table


class ActionModule(ActionBase):
    """Print the table once, and return its text."""

    TRANSFERS_FILES = False
    BYPASS_HOST_LOOP = True
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _validated, given = self.validate_argument_spec({"registered": {"type": "str", "required": True}})
        known = task_vars or {}
        hosts = [str(host) for host in known.get("ansible_play_hosts_all") or ()]
        variables = {host: known["hostvars"].get(host) or {} for host in hosts}
        found = {
            host: one[given["registered"]] for host, one in variables.items() if given["registered"] in one
        }
        lines = status_table.lines(hosts, found, datetime.now(UTC))
        printing.show(lines)
        # Printed already: with -v the same would follow as a result.
        return {"_ansible_verbose_override": True, "changed": False, "msg": "\n".join(lines)}
