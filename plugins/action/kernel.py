# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Controller side of flaskworks.server.kernel: a lean call."""

from __future__ import annotations

from ansible_collections.flaskworks.server.plugins.modules import kernel
from ansible_collections.flaskworks.server.plugins.plugin_utils import lean


class ActionModule(lean.LeanAction):
    MODULE = "flaskworks.server.kernel"
    ARGUMENTS = kernel.ARGUMENTS
