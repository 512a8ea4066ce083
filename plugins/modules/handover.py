#!/usr/bin/python
# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Let a proxy serve, alone."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: handover
short_description: Let a proxy serve, and take over from another one that does
version_added: 0.1.0
description:
  - Starts the proxy's unit and enables it for boot. Another proxy that this collection has set up on the host
    is stopped and disabled; the gap between the two is a fraction of a second.
  - The new one must accept its configuration before the old one stops, and answer for every site as well as
    the old one did before that is disabled. When it does not, the old one serves again and the task fails.
  - All of it happens in one call. A connection that is cut or a process that is killed in between cannot
    leave a host on which nothing serves.
options:
  unit:
    description:
      - The unit that is to serve, V(nginx.service) or V(apache2.service). Its configuration is in place.
    type: str
    required: true
  ports:
    description: The ports on which it listens then.
    type: list
    elements: int
    required: true
  sites:
    description: What is asked before and after. The other keys of a site do not travel to the host.
    type: list
    elements: dict
    default: []
    suboptions:
      canonical:
        description: The domain that serves.
        type: str
        required: true
      http_port:
        description: Port for plain HTTP.
        type: int
        required: true
      https_port:
        description: Port for HTTPS.
        type: int
        required: true
      certificate:
        description: The key pair of the site, of which C(fullchain) is read.
        type: dict
        required: true
  check:
    description: A command and its arguments that must accept the configuration before anybody is stopped.
    type: list
    elements: str
    default: []
  conflict:
    description:
      - What to do about somebody else who holds one of the ports. V(fail) names him and changes nothing;
        V(take_over) stops and disables his unit, and says so.
    type: str
    choices: [fail, take_over]
    default: fail
attributes:
  check_mode:
    support: full
    description: Tells what would be started and stopped.
author:
  - The flaskworks.server contributors (@flaskworks)
"""

EXAMPLES = r"""
- name: Let nginx serve the sites, now and at every boot
  flaskworks.server.handover:
    unit: nginx.service
    ports: [80, 443]
    sites: "{{ nginx_sites }}"
    check: [nginx, -t, -q]
"""

RETURN = r"""
started:
  description: Whether the unit was (or would be) started.
  returned: success
  type: bool
enabled:
  description: Whether it was (or would be) enabled for boot.
  returned: success
  type: bool
stopped:
  description: The units that were (or would be) stopped and disabled.
  returned: success
  type: list
  elements: str
  sample: [apache2.service]
gap:
  description: Seconds in which nobody listened. Null when nobody had to stop.
  returned: success
  type: float
  sample: 0.21
msg:
  description: The same in words. Empty when there was nothing to do.
  returned: success
  type: str
  sample: nginx.service took over from apache2.service within 0.21 s
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.flaskworks.server.plugins.module_utils.handover import (
    HandoverError,
    Host,
    Request,
    Site,
    hand_over,
)

ARGUMENTS: dict[str, dict[str, Any]] = {
    "unit": {"type": "str", "required": True},
    "ports": {"type": "list", "elements": "int", "required": True},
    "sites": {"type": "list", "elements": "dict", "default": []},
    "check": {"type": "list", "elements": "str", "default": []},
    "conflict": {"type": "str", "choices": ["fail", "take_over"], "default": "fail"},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    given = module.params
    request = Request(
        unit=given["unit"],
        ports=tuple(int(port) for port in given["ports"]),
        sites=tuple(
            Site(
                site["canonical"],
                int(site["http_port"]),
                int(site["https_port"]),
                site["certificate"]["fullchain"],
            )
            for site in given["sites"]
        ),
        check=tuple(given["check"]),
        take_over=given["conflict"] == "take_over",
    )
    try:
        outcome = hand_over(Host(), request, module.check_mode)
    except HandoverError as error:
        module.fail_json(msg=str(error))
    for sentence in outcome.warnings:
        module.warn(sentence)
    module.exit_json(
        changed=outcome.changed,
        started=outcome.started,
        enabled=outcome.enabled,
        stopped=outcome.stopped,
        gap=outcome.gap,
        msg=outcome.told,
    )


if __name__ == "__main__":
    main()
