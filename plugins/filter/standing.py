# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The filter ``flaskworks.server.standing``: what each host serves after a deploy that failed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.flaskworks.server.plugins.plugin_utils.standing import tell

DOCUMENTATION = r"""
---
name: standing
author: the flaskworks.server contributors
version_added: 0.1.0
short_description: Tell what each host serves after a deploy that failed
description:
  - Reads what the role P(flaskworks.server.deploy#role) has registered on every host of the play, also in
    batches before this one.
positional: hostvars, what
options:
  _input:
    description: Names of hosts, as in C(ansible_play_hosts_all).
    type: list
    elements: str
    required: true
  hostvars:
    description: The variables of the hosts, C(hostvars).
    type: dict
    required: true
  what:
    description: What has failed.
    type: str
    choices: [deploy, roll back]
    default: deploy
"""

EXAMPLES = r"""
- name: Tell what each host serves
  ansible.builtin.fail:
    msg: "{{ ansible_play_hosts_all | flaskworks.server.standing(hostvars) }}"
  run_once: true
"""

RETURN = r"""
_value:
  description: One sentence when no host has switched, else a line for each host and app.
  type: str
"""

REGISTERED = (
    "__deploy_staged",
    "__deploy_activated",
    "__deploy_watched",
    "__deploy_withdrawn",
    "__deploy_hooked",
)


def standing(hosts: Sequence[str], hostvars: Mapping[str, Any], what: str = "deploy") -> str:
    """Return what each of `hosts` serves."""
    results = {host: [hostvars[host].get(name) or {} for name in REGISTERED] for host in hosts}
    return tell(hosts, results, what)


class FilterModule:
    """Filters of the collection."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"standing": standing}
