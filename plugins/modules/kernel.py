#!/usr/bin/python
# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Set sysctls of the running kernel."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: kernel
short_description: Set sysctls of the running kernel, and say which cannot be set
version_added: 0.1.0
description:
  - Sets those that differ, in one call.
  - A setting that the host refuses is no failure. In a container the kernel is somebody else's, and
    C(/proc/sys) is read-only; a warning names what could not be applied.
options:
  settings:
    description: Values by name, as in sysctl.conf.
    type: dict
    required: true
attributes:
  check_mode:
    support: full
author:
  - The flaskworks.server contributors (@flaskworks)
"""

EXAMPLES = r"""
- name: Keep addresses of the kernel to itself
  flaskworks.server.kernel:
    settings:
      kernel.kptr_restrict: "2"
"""

RETURN = r"""
changes:
  description: What was (or would be) set, with the value before and after.
  returned: success
  type: dict
  sample: {kernel.kptr_restrict: ["0", "2"]}
refused:
  description: What this host does not let anybody set.
  returned: success
  type: list
  elements: str
unknown:
  description: What this kernel does not have.
  returned: success
  type: list
  elements: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.flaskworks.server.plugins.module_utils.kernel import bring_about

ARGUMENTS: dict[str, dict[str, Any]] = {"settings": {"type": "dict", "required": True}}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    settings = {name: str(value) for name, value in module.params["settings"].items()}
    outcome = bring_about(settings, module.check_mode)
    if outcome.refused:
        module.warn(
            "these could not be applied, because this host does not let them be set (in a container the "
            f"kernel is that of the host around it): {', '.join(outcome.refused)}"
        )
    module.exit_json(
        changed=bool(outcome.changes),
        changes=outcome.changes,
        refused=outcome.refused,
        unknown=outcome.unknown,
    )


if __name__ == "__main__":
    main()
