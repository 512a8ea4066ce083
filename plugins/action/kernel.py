# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Controller side of flaskworks.server.kernel: a lean call."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.flaskworks.server.plugins.modules.kernel import ARGUMENTS
from ansible_collections.flaskworks.server.plugins.plugin_utils import lean


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _validated, given = self.validate_argument_spec(ARGUMENTS)
        return lean.run(self, "flaskworks.server.kernel", given, task_vars or {})
