# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The filter ``flaskworks.server.disagreement``: whether all hosts go back to the same release."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.flaskworks.server.plugins.plugin_utils import agreement

DOCUMENTATION = r"""
---
name: disagreement
author: the flaskworks.server contributors
version_added: 0.1.0
short_description: Tell when not all hosts would go back to the same release
description:
  - Returns which host would go back to what, and how to name one release for all of them. Empty when all
    agree.
  - Releases are the same when they have the same moment. The rest of their names may differ between hosts.
positional: hostvars, registered
options:
  _input:
    description: Names of hosts, as in C(ansible_play_hosts).
    type: list
    elements: str
    required: true
  hostvars:
    description: The variables of the hosts, C(hostvars).
    type: dict
    required: true
  registered:
    description:
      - Name of the variable in which each host has registered its task with M(flaskworks.server.release).
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Check that all hosts go back to the same release
  ansible.builtin.assert:
    that: ansible_play_hosts | flaskworks.server.disagreement(hostvars, 'staged') == ''
  run_once: true
"""

RETURN = r"""
_value:
  description: Some lines for the operator, or nothing.
  type: str
"""


def disagreement(hosts: Sequence[str], hostvars: Mapping[str, Any], registered: str) -> str:
    """Return what the hosts do not agree on."""
    return agreement.disagreement({host: hostvars[host].get(registered) or {} for host in hosts})


class FilterModule:
    """Filters of the collection."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"disagreement": disagreement}
