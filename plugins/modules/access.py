#!/usr/bin/python
# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Host side of flaskworks.server.access; its action renders, and proves that a new connection gets in."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: access
short_description: Change sshd and the packet filter so that nobody is locked out
version_added: 0.1.0
description:
  - Installs a drop-in of sshd and a ruleset of nftables. Both are checked first, and settings of sshd that
    would refuse the connecting user are not installed.
  - Before anything takes effect, a timer on the host is armed that puts the old files and the old rules back
    by itself. Then the change is applied, and the controller makes a connection from scratch, which shares
    nothing with the one that the play uses. Only when that gets in, the timer is taken away.
  - A controller that dies in between, or a host that restarts, thus finds everything as it was before.
  - Only the table C(inet flaskworks) is loaded, replaced or removed. Rules of others are not touched.
options:
  files:
    description: What is written. The drop-ins of sshd are in C(/etc/ssh/sshd_config.d).
    type: list
    elements: dict
    default: []
    suboptions:
      template:
        description: The template, searched in the role's C(templates) directory.
        type: str
        required: true
      path:
        description: Where the file goes.
        type: str
        required: true
      mode:
        description: Its mode, a quoted octal number with a leading zero.
        type: str
        default: "0644"
      validate:
        description: A command and its arguments that must accept the file. C(%s) is the candidate.
        type: list
        elements: str
        default: []
  absent:
    description: Files that are removed.
    type: list
    elements: str
    default: []
  firewall:
    description:
      - Path of the ruleset that is loaded. It replaces the table C(inet flaskworks) and nothing else.
      - When it is empty, that table is removed.
    type: str
    default: ""
  sshd:
    description: Whether a drop-in of sshd is among the files, so that sshd has to accept it.
    type: bool
    default: true
  revert_after:
    description: Seconds after which the host puts everything back, unless a new connection was proven.
    type: int
    default: 60
  step:
    description: Set by the action itself.
    type: str
    choices: [put, confirm, revert]
    default: put
  token:
    description: Set by the action itself.
    type: str
    default: ""
  password:
    description: Set by the action itself.
    type: bool
    default: false
  rendered:
    description: What the controller rendered. Set by the action itself.
    type: str
attributes:
  check_mode:
    support: full
    description: Tells what would change, and refuses what would be refused.
  diff_mode:
    support: full
author:
  - The flaskworks.server contributors (@flaskworks)
"""

EXAMPLES = r"""
- name: Change how the host is reached
  flaskworks.server.access:
    files:
      - template: sshd.conf.j2
        path: /etc/ssh/sshd_config.d/00-flaskworks.conf
      - template: firewall.nft.j2
        path: /etc/flaskworks/firewall.nft
        validate: [nft, --check, --file, "%s"]
    firewall: /etc/flaskworks/firewall.nft
"""

RETURN = r"""
msg:
  description: What was proven, in words.
  returned: when something changed
  type: str
  sample: a new connection was proven after 0.4 s
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.flaskworks.server.plugins.module_utils import access
from ansible_collections.flaskworks.server.plugins.module_utils.transaction import (
    Request,
    Rule,
    TransactionError,
    parse_mode,
)
from ansible_collections.flaskworks.server.plugins.modules.templates import unpack

FILES: dict[str, Any] = {
    "type": "list",
    "elements": "dict",
    "default": [],
    "options": {
        "template": {"type": "str", "required": True},
        "path": {"type": "str", "required": True},
        "mode": {"type": "str", "default": "0644"},
        "validate": {"type": "list", "elements": "str", "default": []},
    },
}
ARGUMENTS: dict[str, dict[str, Any]] = {
    "files": FILES,
    "absent": {"type": "list", "elements": "str", "default": []},
    "firewall": {"type": "str", "default": ""},
    "sshd": {"type": "bool", "default": True},
    "revert_after": {"type": "int", "default": 60},
    "step": {"type": "str", "choices": ["put", "confirm", "revert"], "default": "put"},
    "token": {"type": "str", "default": "", "no_log": False},
    "password": {"type": "bool", "default": False, "no_log": False},
    "rendered": {"type": "str"},
}


def rules_of(files: list[dict[str, Any]]) -> list[Rule]:
    """Turn the option `files` into rules. Raises TransactionError for a mode that is not octal."""
    return [
        Rule(file["path"], mode=parse_mode(file["mode"]), validate=tuple(file["validate"]), parents=True)
        for file in files
    ]


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    given = module.params
    host = access.Host()
    try:
        if given["step"] == "confirm":
            access.confirm(host, given["token"])
            module.exit_json(changed=True)
        if given["step"] == "revert":
            module.exit_json(changed=True, reverted=access.revert(host, given["token"]))
        request = access.Request(
            files=Request(
                elements=[],
                rules=rules_of(given["files"]),
                contents=unpack(given["rendered"]),
                absent=given["absent"],
            ),
            firewall=given["firewall"],
            sshd=given["sshd"],
            patience=given["revert_after"],
            password=given["password"],
        )
        outcome = access.put(host, request, module.check_mode)
    except (access.AccessError, TransactionError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=outcome.changed, token=outcome.token, key_needed=outcome.key_needed, diff=outcome.diff
    )


if __name__ == "__main__":
    main()
