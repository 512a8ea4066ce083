# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Print the releases of all hosts as one table: what release_info has returned before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.flaskworks.server.plugins.plugin_utils import printing, release_table


class ActionModule(printing.TableAction):
    def lines(
        self, hosts: Sequence[str], found: Mapping[str, Mapping[str, Any]], _given: Mapping[str, Any]
    ) -> list[str]:
        return release_table.lines(hosts, found)
