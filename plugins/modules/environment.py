#!/usr/bin/python
# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Build one virtual environment."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: environment
short_description: Build a virtual environment from what shall be in it
version_added: 0.1.0
description:
  - Builds a virtual environment under a hash of everything that decides its content, which is the
    requirements, the wheels, the server, and the version, ABI and platform of the interpreter.
  - A complete environment is never changed. Other inputs give another environment.
  - An interrupted build is recognised by its missing marker and done again.
  - Requirements are installed with C(--require-hashes) when all of them have hashes.
  - Uses C(uv) when it is there and C(pip) otherwise.
options:
  path:
    description:
      - Where the environment is found. A link to the environment, which lies beside it under its hash
        and is exchanged atomically.
      - Exactly one of O(path) and O(directory) is given.
    type: path
  directory:
    description:
      - Directory in which the environment is built, named by its hash alone.
    type: path
  requirements:
    description:
      - Text of a requirements file.
    type: str
    default: ""
  origin:
    description:
      - What error messages call the requirements.
    type: str
    default: the requirements
  wheels:
    description:
      - Wheels on the host that are installed after the requirements.
    type: list
    elements: path
    default: []
  server:
    description:
      - A requirement that is installed last, unless the environment has it by then. Extras count.
    type: str
  interpreter:
    description:
      - Interpreter that the environment uses.
    type: path
    default: /usr/bin/python3
  group:
    description:
      - Group that may read the environment. Nobody but root may write to it.
    type: str
    default: root
attributes:
  check_mode:
    support: full
    description: Says whether an environment would be built, and changes nothing.
  diff_mode:
    support: none
    description: The content of an environment is named by its hash.
author:
  - The flaskworks.server contributors (@flaskworks)
"""

EXAMPLES = r"""
- name: Build the environment of the reporting tools
  flaskworks.server.environment:
    path: /opt/reports
    requirements: "{{ lookup('ansible.builtin.file', 'reports.lock', rstrip=false) }}"
    group: reports
"""

RETURN = r"""
path:
  description: Where the environment is.
  returned: success
  type: str
  sample: /opt/reports
hash:
  description: Hash of everything that decides its content.
  returned: success
  type: str
  sample: 5b8f0f6c1b0f3d3c8b1e
builder:
  description: What installed the packages, V(uv) or V(pip). Empty in check mode when there was nothing yet.
  returned: success
  type: str
  sample: uv
seconds:
  description: What the build took.
  returned: success
  type: float
  sample: 1.9
"""

import grp
import os
import shutil

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.flaskworks.server.plugins.module_utils import environment as environments
from ansible_collections.flaskworks.server.plugins.module_utils.tree import file_digest


def _place(path: str, name: str) -> str:
    """The real directory of an environment that is known by a link."""
    return os.path.join(os.path.dirname(path), f".{os.path.basename(path)}-{name}")


def _switch(path: str, target: str) -> None:
    """Let the link name the environment, and remove the one it named before."""
    old = os.path.realpath(path) if os.path.islink(path) else None
    partial = f"{path}.partial"
    if os.path.lexists(partial):
        os.unlink(partial)
    os.symlink(os.path.basename(target), partial)
    os.rename(partial, path)
    if old and old != target and os.path.dirname(old) == os.path.dirname(target):
        shutil.rmtree(old, ignore_errors=True)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path"},
            "directory": {"type": "path"},
            "requirements": {"type": "str", "default": ""},
            "origin": {"type": "str", "default": "the requirements"},
            "wheels": {"type": "list", "elements": "path", "default": []},
            "server": {"type": "str"},
            "interpreter": {"type": "path", "default": "/usr/bin/python3"},
            "group": {"type": "str", "default": "root"},
        },
        mutually_exclusive=[("path", "directory")],
        required_one_of=[("path", "directory")],
        supports_check_mode=True,
    )
    os.umask(0o022)  # whatever the operator's is
    given = module.params
    try:
        wanted = environments.Wanted(
            interpreter=given["interpreter"],
            requirements=given["requirements"],
            origin=given["origin"],
            wheels=tuple(
                environments.Wheel(os.path.basename(file), file_digest(file), file)
                for file in given["wheels"]
            ),
            server=given["server"],
        )
        environments.uses_hashes(wanted.requirements, wanted.origin)
        if module.check_mode and not os.path.exists(wanted.interpreter):
            module.exit_json(
                changed=True, path=given["path"] or given["directory"], hash="", builder="", seconds=0.0
            )
        name = environments.content_hash(wanted, environments.identity(wanted.interpreter))
        path = given["path"]
        place = _place(path, name) if path else os.path.join(given["directory"], name)
        switched = bool(path) and os.path.realpath(path) != os.path.realpath(place)
        if path and os.path.lexists(path) and not os.path.islink(path):
            raise environments.EnvironmentFailure(
                f"{path} exists and was not made by this module; remove it, or name another path"
            )
        if module.check_mode:
            missing = not environments.is_complete(place)
            module.exit_json(
                changed=missing or switched, path=path or place, hash=name, builder="", seconds=0.0
            )
        gid = grp.getgrnam(given["group"]).gr_gid
        built = environments.build(place, wanted, name, gid=gid)
        if switched:
            _switch(path, place)
    except environments.EnvironmentFailure as error:
        module.fail_json(msg=f"{given['path'] or given['directory']}: {error}")
    except KeyError:
        module.fail_json(msg=f"the group {given['group']} does not exist; create it first")
    except OSError as error:
        module.fail_json(msg=f"{error.filename}: {error.strerror}")
    module.exit_json(
        changed=built.changed or switched,
        path=path or place,
        hash=name,
        builder=built.builder,
        seconds=built.seconds,
    )


if __name__ == "__main__":
    main()
