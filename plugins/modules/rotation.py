#!/usr/bin/python
# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation only: the action of the same name does it all, on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: rotation
short_description: Bring a new SECRET_KEY of an app one step further
version_added: 0.1.0
description:
  - Changes the lines of C(flask_secrets) that say the C(SECRET_KEY) of an app, in the vault file that has
    them. The file is opened with the vault passwords of the run and closed with the one that has opened it.
    All else of it stays as it is, comments included.
  - Fails, and says what to do by hand, where no vault file as a whole has them, or more than one does, or
    where the value that hosts get is not the one that stands there.
  - Runs on the controller. No host is asked. P(flaskworks.server.plan#filter) tells what an app gets.
options:
  app:
    description: Name of the app.
    type: str
    required: true
  step:
    description:
      - V(announce) has a new key believed, V(sign) has it sign, V(finish) notes that the rotation has ended.
        What an interrupted run has done is not done again.
      - V(forget) has no other key believed any more.
    type: str
    choices: [announce, sign, finish, forget]
    required: true
  hosts:
    description: All hosts that may have the app. Those that do have to be in the play.
    type: list
    elements: str
    required: true
attributes:
  check_mode:
    support: full
    description: Says whether the file would be changed.
  diff_mode:
    support: none
    description: Nothing of the file is ever shown.
author:
  - The flaskworks.server contributors (@flaskworks)
"""

EXAMPLES = r"""
- name: Make a new key known
  flaskworks.server.rotation:
    app: hello
    step: announce
    hosts: "{{ groups.flask }}"
  run_once: true
"""

RETURN = r"""
state:
  description: How far the rotation is, V(announced) or V(signing). Empty when none is under way.
  returned: success
  type: str
  sample: announced
file:
  description: The vault file.
  returned: success
  type: str
  sample: /home/ops/inventories/prod/group_vars/flask/secrets.vault
"""
