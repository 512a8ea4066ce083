#!/usr/bin/python
# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""List the releases of a host."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: release_info
short_description: List the releases of Flask apps on a host
version_added: 0.1.0
description:
  - Tells for every app which release serves and which served before, what is held against a release, how old
    and how big each is, and who holds the lock of the app.
  - Only reads, and keeps no deploy waiting. Needs to be root; fails with a sentence when it is not.
options:
  releases:
    description:
      - The releases of the host, as the filter P(flaskworks.server.plan#filter) makes them.
    type: list
    elements: dict
    required: true
attributes:
  check_mode:
    support: full
    description: Changes nothing in any mode.
author:
  - The flaskworks.server contributors (@flaskworks)
"""

EXAMPLES = r"""
- name: Look at the releases
  flaskworks.server.release_info:
    releases: "{{ (flask_apps | flaskworks.server.plan).releases }}"
  register: found

- name: List them for all hosts
  flaskworks.server.release_list:
    registered: found
"""

RETURN = r"""
apps:
  description: What is there of each app, by name.
  returned: always
  type: dict
  contains:
    current:
      description: The release that serves. Null for none.
      type: str
      sample: 20261120T101500Z-3fb1c0de42
    previous:
      description: The release that served before. Null for none.
      type: str
    staged:
      description: The release that waits for its activation. Null for none.
      type: str
    lock:
      description: Who holds the app at the moment. Null for nobody.
      type: dict
      contains:
        who:
          description: Account and host of who runs the deploy.
          type: str
        what:
          description: What is being done.
          type: str
        since:
          description: When it began.
          type: str
        pid:
          description: The process on the host.
          type: int
    last:
      description: The last line of the app's history. Null when there is none.
      type: dict
    releases:
      description: All releases, the newest first.
      type: list
      elements: dict
      contains:
        release:
          description: Name of the release.
          type: str
        age:
          description: Seconds since its deploy began.
          type: int
        revision:
          description: Where its code came from, such as a commit.
          type: str
        by:
          description: Who made it.
          type: str
        size:
          description: Bytes of its code, static files and settings.
          type: int
        environment:
          description: Name of its virtual environment, which other releases may share.
          type: str
        environment_size:
          description: Bytes of that.
          type: int
        mark:
          description:
            - What is held against it, as V(state) (V(bad) or V(rolled back)) and, in words, V(told).
            - Null for nothing.
          type: dict
        damage:
          description: What is not as it was made. Null when all is.
          type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.flaskworks.server.plugins.module_utils.release import listing
from ansible_collections.flaskworks.server.plugins.module_utils.release.ports import Host
from ansible_collections.flaskworks.server.plugins.module_utils.release.request import (
    NO_SOURCE,
    ReleaseFailure,
    parse,
)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={"releases": {"type": "list", "elements": "dict", "required": True}},
        supports_check_mode=True,
    )
    host = Host()
    releases = [parse({**one, "source": NO_SOURCE}) for one in module.params["releases"]]
    try:
        apps = {release.name: listing.describe(host, release) for release in releases}
    except ReleaseFailure as error:
        module.fail_json(msg=str(error), invocation={})
    module.exit_json(changed=False, apps=apps, invocation={})


if __name__ == "__main__":
    main()
