#!/usr/bin/python
# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation only: the action of the same name does it all, on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: description
short_description: Check the description of the apps
version_added: 0.1.0
description:
  - Fails with all mistakes in C(flask_apps), C(flask_defaults) and, if asked, C(flask_secrets) of the hosts
    of the play, each once, as one sentence. So are the values of C(flask_proxy) and C(flask_ports_conflict).
  - A mistake that not all of the hosts have ends with the names of those that do.
  - Runs on the controller. No host is asked.
options:
  secrets:
    description: Whether every secret must have a value.
    type: bool
    default: false
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
- name: Check the description of the apps
  flaskworks.server.description:
"""

RETURN = r"""
msg:
  description: The mistakes, one a line.
  returned: failure
  type: str
  sample: "flask_apps.hello: unknown key 'wokers', did you mean 'workers'?"
"""
