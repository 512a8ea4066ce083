# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Controller side of flaskworks.server.handover: the host learns of its sites only what it asks them."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.flaskworks.server.plugins.modules.handover import ARGUMENTS
from ansible_collections.flaskworks.server.plugins.plugin_utils import lean, printing

MODULE = "flaskworks.server.handover"


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _validated, given = self.validate_argument_spec(ARGUMENTS)
        given["sites"] = [
            {
                **{key: site[key] for key in ("canonical", "http_port", "https_port")},
                "certificate": {"fullchain": site["certificate"]["fullchain"]},
            }
            for site in given["sites"]
        ]
        variables = task_vars or {}
        result = lean.run(self, MODULE, given, variables)
        if result.get("gap") is not None:
            printing.show([f"{variables['inventory_hostname']}: {result['msg']}"])
        return result
