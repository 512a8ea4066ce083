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
  - With O(strict), fails when there is anything that somebody has to look after.
options:
  registered:
    description: Name of the variable in which the hosts registered the result of M(flaskworks.server.status).
    type: str
    required: true
  strict:
    description:
      - Fail when an app has no release, is not healthy or shows a certificate that visitors would complain
        about or that should have been renewed, and when a host could not be asked. All of it is told.
    type: bool
    default: false
  report:
    description:
      - A file on the controller, into which all is written as JSON, whether something is wrong or not.
      - C(well) in it tells that, C(wrong) has the sentences, and C(apps) what every host told of every app.
    type: path
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
wrong:
  description: What somebody has to look after, a sentence each.
  returned: with O(strict)
  type: list
  elements: str
msg:
  description: What was printed.
  returned: always
  type: str
"""
