# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Controller side of flaskworks.server.listeners: every run asks, so it asks the quick way."""

from __future__ import annotations

from ansible_collections.flaskworks.server.plugins.modules import listeners
from ansible_collections.flaskworks.server.plugins.plugin_utils import lean


class ActionModule(lean.LeanAction):
    MODULE = "flaskworks.server.listeners"
    ARGUMENTS = listeners.ARGUMENTS
