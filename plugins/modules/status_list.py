#!/usr/bin/python
# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation only: the action of the same name does it all, on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: status_list
short_description: Show how the apps of all hosts are in one table
version_added: 0.1.0
description:
  - Prints what M(flaskworks.server.status) returned on the hosts of the play. No host is asked.
options:
  registered:
    description: Name of the variable in which the hosts registered the result of M(flaskworks.server.status).
    type: str
    required: true
attributes:
  check_mode:
    support: full
    description: Changes nothing in any mode.
  bypass_host_loop:
    support: full
    description: Runs once for all hosts.
author:
  - The flaskworks.server contributors (@flaskworks)
"""

EXAMPLES = r"""
- name: Show how the apps are
  flaskworks.server.status_list:
    registered: found
"""

RETURN = r"""
msg:
  description: What was printed.
  returned: always
  type: str
"""
