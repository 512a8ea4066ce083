#!/usr/bin/python
# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Tell how the apps of a host are."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: status
short_description: Tell how the apps of a host are
version_added: 0.1.0
description:
  - Asks for every app which release serves, whether its service runs and its health check is answered as it
    should be, and which certificate the running proxy shows for each of its names.
  - The certificate comes from a handshake with port O(sites[].https_port), not from a file. So it is the one
    that visitors get, whatever lies on the disk.
  - Only asks. Needs to be root.
options:
  releases:
    description: The releases of the host, as the filter P(flaskworks.server.plan#filter) makes them.
    type: list
    elements: dict
    required: true
  sites:
    description: The sites of the same apps, from the same plan. Other keys do not travel to the host.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the app.
        type: str
        required: true
      domains:
        description: The names that are asked for.
        type: list
        elements: str
        required: true
      https_port:
        description: The port of the proxy.
        type: int
        required: true
      certificate:
        description: The key pair of the site, of which C(fullchain) is compared with what is shown.
        type: dict
        required: true
  certificates:
    description:
      - The certificates of the same apps, from the same plan. They say who renews a certificate, and do not
        travel to the host.
    type: list
    elements: dict
    default: []
attributes:
  check_mode:
    support: full
    description: Changes nothing in any mode.
author:
  - The flaskworks.server contributors (@flaskworks)
"""

EXAMPLES = r"""
- name: Look at the apps
  flaskworks.server.status:
    releases: "{{ plan.releases }}"
    sites: "{{ plan.sites }}"
    certificates: "{{ plan.certificates }}"
  register: found
  vars:
    plan: "{{ flask_apps | flaskworks.server.plan }}"

- name: Show them for all hosts
  flaskworks.server.status_list:
    registered: found
"""

RETURN = r"""
apps:
  description: How each app is, by name.
  returned: always
  type: dict
  contains:
    release:
      description: The release that serves. Null for none.
      type: str
    age:
      description: Seconds since its deploy began.
      type: int
    service:
      description: What systemd says of its service.
      type: str
      sample: active
    health:
      description: What the health check was answered, in words.
      type: str
      sample: 200 OK
    healthy:
      description: Whether that is the right answer.
      type: bool
    restarted:
      description: Seconds since the host has restarted it because it did not answer (C(liveness)). Null when
        it has not, since its deploy and the last boot.
      type: int
    certificates:
      description: Every certificate that is shown, as C(pem), and the C(domains) for which it is.
      type: list
      elements: dict
    missing:
      description: Why no certificate is shown, by domain.
      type: dict
    installed:
      description: Whether the certificate that lies on the disk is shown.
      type: bool
    provider:
      description: Where the certificate of its site comes from. Null when O(certificates) does not tell.
      type: str
      sample: acme
    renew_before:
      description: Days before its end at which it is to be replaced, by who provides it.
      type: int
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.flaskworks.server.plugins.module_utils import status
from ansible_collections.flaskworks.server.plugins.module_utils.release.ports import Host
from ansible_collections.flaskworks.server.plugins.module_utils.release.request import NO_SOURCE, parse

ARGUMENTS: dict[str, dict[str, Any]] = {
    "releases": {"type": "list", "elements": "dict", "required": True},
    "sites": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "name": {"type": "str", "required": True},
            "domains": {"type": "list", "elements": "str", "required": True},
            "https_port": {"type": "int", "required": True},
            "certificate": {"type": "dict", "required": True},
        },
    },
    "certificates": {"type": "list", "elements": "dict", "default": []},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    host = Host()
    sites = {
        site["name"]: {
            "domains": site["domains"],
            "https_port": site["https_port"],
            "fullchain": site["certificate"]["fullchain"],
        }
        for site in module.params["sites"]
    }
    releases = [parse({**one, "source": NO_SOURCE}) for one in module.params["releases"]]
    try:
        apps = {release.name: status.look(host, release, sites[release.name]) for release in releases}
    except PermissionError as error:
        module.fail_json(
            msg=f"{error.filename} may be read by root only; run this with become: true "
            "(ansible-playbook --become)",
            invocation={},
        )
    module.exit_json(changed=False, apps=apps, invocation={})


if __name__ == "__main__":
    main()
