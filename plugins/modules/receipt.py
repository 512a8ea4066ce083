#!/usr/bin/python
# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation only: the action of the same name does it all, on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: receipt
short_description: Show what a deploy or a roll back has put live
version_added: 0.1.0
description:
  - Prints one table for all hosts of the play, with the release that served before and the one that serves
    now, where its code came from, and the seconds that it took. Below it is the command that rolls back.
  - Prints one line for an app that had nothing to do.
  - Reads what M(flaskworks.server.release) returned to the tasks of the play. No host is asked.
  - In a play with C(serial), the table comes with the last batch, and with the batch that fails.
options:
  registered:
    description:
      - Names of the variables in which tasks with M(flaskworks.server.release) have registered their results,
        in the order of the tasks. Those that a host does not have are passed over.
    type: list
    elements: str
    required: true
  what:
    description:
      - What the play does.
    type: str
    choices: [deploy, roll back]
    default: deploy
  failed:
    description:
      - Whether the play has failed. Then nothing is printed unless a host has switched before that.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
    description: Shows what would be released.
  bypass_host_loop:
    support: full
    description: Runs once for all hosts.
author:
  - The flaskworks.server contributors (@flaskworks)
"""

EXAMPLES = r"""
- name: Show what was released
  flaskworks.server.receipt:
    registered: [staged, activated]
"""

RETURN = r"""
msg:
  description: What was printed. Empty when nothing was.
  returned: always
  type: str
receipt:
  description: An entry for each app and host.
  returned: always
  type: list
  elements: dict
  contains:
    app:
      description: Name of the app.
      type: str
    host:
      description: Name of the host in the inventory.
      type: str
    from:
      description: The release that served when the play began. Null for none.
      type: str
    to:
      description: The release that the host has switched to. Null for none.
      type: str
    serves:
      description: The release that serves now. Null for none, and where the host was not reached any more.
      type: str
    reached:
      description: Whether the host could be reached until the end.
      type: bool
    revision:
      description: Where the code came from, such as a commit.
      type: str
    seconds:
      description: What V(build), V(gate) and V(switch) took.
      type: dict
"""
