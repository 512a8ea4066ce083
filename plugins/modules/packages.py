#!/usr/bin/python
# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Have packages installed and removed, and ask apt only where there is something to do."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: packages
short_description: Have Debian packages installed and removed, quickly where they are
version_added: 0.1.0
description:
  - Reads dpkg's own files. Where everything is as wanted, that is all, and takes milliseconds; else
    M(ansible.builtin.apt) does the work, without recommended packages and after it has fetched package
    lists that are older than a day.
  - In check mode it fetches these lists, too, when there is something to do, because without them nobody
    knows what would be installed.
options:
  present:
    description:
      - Names of packages to install, as M(ansible.builtin.apt) takes them.
      - Of alternatives, C(systemd-timesyncd | chrony), the first is installed where none of them is.
      - One that is only there because of another package is kept from going with it.
      - What is not a plain name, one with a version for example, only apt understands. It is asked
        every time.
    type: list
    elements: str
    default: []
  absent:
    description: Names of packages to remove, with their settings.
    type: list
    elements: str
    default: []
  start:
    description: Whether a service is started when its package is installed, as Debian does.
    type: bool
    default: true
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
author:
  - The flaskworks.server contributors (@flaskworks)
"""

EXAMPLES = r"""
- name: Install nginx, which starts when it has its sites
  flaskworks.server.packages:
    present: [nginx]
    start: false

- name: Have a clock that is right, and no telnet
  flaskworks.server.packages:
    present: [systemd-timesyncd | chrony | ntpsec | openntpd]
    absent: [telnetd]
"""

RETURN = r"""
lacking:
  description: What was asked of apt, because it was not there.
  returned: success
  type: list
  elements: str
remaining:
  description: What apt was asked to remove.
  returned: success
  type: list
  elements: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.flaskworks.server.plugins.module_utils import dpkg

ARGUMENTS: dict[str, dict[str, Any]] = {
    "present": {"type": "list", "elements": "str", "default": []},
    "absent": {"type": "list", "elements": "str", "default": []},
    "start": {"type": "bool", "default": True},
}


def main() -> None:
    """Run the module: it only looks, and its action has apt do what is to be done."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    module.exit_json(
        changed=False,
        lacking=dpkg.lacking(module.params["present"]),
        remaining=dpkg.remaining(module.params["absent"]),
    )


if __name__ == "__main__":
    main()
