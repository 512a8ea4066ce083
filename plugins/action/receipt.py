# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Print one table for all hosts of the play. No host is asked: it reads what its tasks have registered."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ansible import constants, context
from ansible.plugins.action import ActionBase
from ansible_collections.flaskworks.server.plugins.plugin_utils import printing, receipt


class ActionModule(ActionBase):
    """Print the receipt once, and return it for programs."""

    TRANSFERS_FILES = False
    BYPASS_HOST_LOOP = True
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _validated, given = self.validate_argument_spec(
            {
                "registered": {"type": "list", "elements": "str", "required": True},
                "what": {"type": "str", "choices": [receipt.DEPLOY, receipt.ROLL_BACK], "default": "deploy"},
                "failed": {"type": "bool", "default": False},
            }
        )
        known = task_vars or {}
        hosts = [str(host) for host in known.get("ansible_play_hosts_all") or ()]
        batch = known.get("ansible_play_batch") or hosts
        if not given["failed"] and hosts and str(batch[-1]) != hosts[-1]:
            return {"changed": False, "msg": "", "receipt": []}
        results = {host: _registered(known, host, given["registered"]) for host in hosts}
        entries = receipt.read(hosts, results, self._task.check_mode)
        lines = receipt.lines(entries, given["what"], _inventory(), _limit(), given["failed"])
        printing.show(lines)
        # Printed already: with -v the same would follow as a result.
        return {
            "_ansible_verbose_override": True,
            "changed": False,
            "msg": "\n".join(lines),
            "receipt": [one.facts() for one in entries],
        }


def _registered(known: Mapping[str, Any], host: str, names: list[str]) -> list[Any]:
    """What a host has registered, in the order of the names; a host that was lost early has nothing."""
    variables = known["hostvars"].get(host) or {}
    return [variables[name] for name in names if name in variables]


def _inventory() -> list[str]:
    """What the operator gave with -i, written as from the directory where ansible-playbook runs."""
    given = context.CLIARGS.get("inventory") or ()
    if list(given) == list(constants.DEFAULT_HOST_LIST or ()):
        return []
    return [one if "," in one else _near(one) for one in given]


def _near(path: str) -> str:
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative


def _limit() -> str | None:
    return context.CLIARGS.get("subset") or None
