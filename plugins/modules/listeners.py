#!/usr/bin/python
# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Tell who listens on ports of a host."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: listeners
short_description: Tell who holds ports of a host, and whether a proxy may have them
version_added: 0.1.0
description:
  - Names the process, the systemd unit and the Debian package of everybody who listens on one of the TCP
    ports, over IPv4 and IPv6. Only reads; needs to be root to see the processes of others.
  - With O(unit), fails with one sentence that holds the ways out when somebody holds a port who is neither
    that unit nor another proxy that this collection has set up.
options:
  ports:
    description: The TCP ports.
    type: list
    elements: int
    required: true
  unit:
    description:
      - The unit that is to listen there, V(nginx.service) or V(apache2.service).
      - Without it nobody is in the way.
    type: str
  conflict:
    description:
      - What to do about somebody else. With V(take_over), M(flaskworks.server.handover) stops and disables
        his unit later, so this module only fails when it never would, as with C(ssh.service), what a
        container publishes, and what is no service of systemd.
    type: str
    choices: [fail, take_over]
    default: fail
attributes:
  check_mode:
    support: full
    description: Changes nothing in any mode.
author:
  - The flaskworks.server contributors (@flaskworks)
"""

EXAMPLES = r"""
- name: Check that nobody else holds the ports of the sites
  flaskworks.server.listeners:
    ports: [80, 443]
    unit: nginx.service
"""

RETURN = r"""
listeners:
  description: Who listens, by port. Processes of one unit count as one.
  returned: always
  type: list
  elements: dict
  contains:
    port:
      description: The port.
      type: int
      sample: 80
    addresses:
      description: Where.
      type: list
      elements: str
      sample: ["0.0.0.0", "::"]
    pid:
      description: The process, a master before its workers. V(0) when it cannot be seen.
      type: int
      sample: 812
    process:
      description: Its name.
      type: str
      sample: apache2
    unit:
      description: The systemd unit. Empty for none.
      type: str
      sample: apache2.service
    package:
      description:
        - The Debian package that brought the unit, or else the program. Empty for none.
        - With O(unit) it is looked for only where somebody is in the way, because that takes long.
      type: str
      sample: apache2
in_the_way:
  description: Those of them who are in the way of O(unit).
  returned: always
  type: list
  elements: dict
"""

from dataclasses import asdict
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.flaskworks.server.plugins.module_utils import listeners

ARGUMENTS: dict[str, dict[str, Any]] = {
    "ports": {"type": "list", "elements": "int", "required": True},
    "unit": {"type": "str"},
    "conflict": {"type": "str", "choices": ["fail", "take_over"], "default": "fail"},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    unit, take_over = module.params["unit"], module.params["conflict"] == "take_over"
    found = listeners.holders([int(port) for port in module.params["ports"]])
    others = listeners.packaged(listeners.strangers(found, unit)) if unit else []
    told = {
        "listeners": [asdict(one) for one in (found if unit else listeners.packaged(found))],
        "in_the_way": [asdict(one) for one in others],
    }
    refusal = listeners.refusal(others, unit, take_over, "nothing was changed") if unit else ""
    if refusal:
        module.fail_json(msg=refusal, **told)
    module.exit_json(changed=False, **told)


if __name__ == "__main__":
    main()
