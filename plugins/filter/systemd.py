# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The filter flaskworks.server.environment_line."""

from __future__ import annotations

from collections.abc import Callable

from ansible.errors import AnsibleFilterError
from ansible_collections.flaskworks.server.plugins.plugin_utils import systemd


def environment_line(value: object, name: str) -> str:
    try:
        return systemd.environment_line(value, name)
    except ValueError as error:
        raise AnsibleFilterError(str(error)) from None


class FilterModule:
    def filters(self) -> dict[str, Callable[..., str]]:
        return {"environment_line": environment_line}
