# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Host side of flaskworks.server.templates; the rendering is done by the action of this name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: templates
short_description: Install all files of all elements of a list, all or nothing, in one round trip
version_added: 0.1.0
description:
  - Renders one or more templates for every element of a list and installs the results on the host.
    However long the list is, the host is asked once.
  - Only what differs in content, owner or mode is touched. Every new file is complete on the disk
    and accepted by its O(files[].validate) before the first one is replaced; when O(check) refuses
    the result, everything is put back as it was.
  - O(apply) takes the place of handlers. A play that is killed loses its notifications; here a
    marker on the host remembers that something is not applied yet, and the next run applies it.
  - Templates are rendered as M(ansible.builtin.template) renders them and are searched in the same
    places.
options:
  elements:
    description:
      - The list. Every element is a dictionary with a O(elements[].name) of its own.
      - Templates of files that are written once find the whole list as C(elements).
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description:
          - Becomes part of paths, so letters, digits and C(_ . @ + -) only.
          - Elements may have any other key; templates see them all.
        type: str
        required: true
  element_name:
    description: Name of the variable under which a template sees its element.
    type: str
    default: element
  files:
    description: What is written for every element, or once.
    type: list
    elements: dict
    default: []
    suboptions:
      template:
        description: The template, searched in the role's C(templates) directory.
        type: str
        required: true
      path:
        description:
          - Where the file goes. C({name}), or any other key of the element that holds a text, is
            replaced by its value. The directory must exist, unless O(files[].parents) is set.
          - A path without a placeholder is written once, also when the list is empty.
          - A symbolic link there is replaced itself, never its target.
        type: str
        required: true
      owner:
        description: Its user; placeholders as in O(files[].path).
        type: str
        default: root
      group:
        description: Its group; placeholders as in O(files[].path).
        type: str
        default: root
      mode:
        description: Its mode, a quoted octal number with a leading zero.
        type: str
        default: "0644"
      sensitive:
        description: Keep the content out of differences, results, messages and logs.
        type: bool
        default: false
      validate:
        description:
          - A command and its arguments that must accept the file before anything is replaced. C(%s)
            is the candidate. It has its final base name and mode and lies in a private directory,
            together with the other candidates for the same directory.
          - Placeholders as in O(files[].path).
          - In check mode it is left out while the command or the directory of a file is still
            missing; RV(unvalidated) names the files.
        type: list
        elements: str
        default: []
      purge:
        description:
          - Remove the files that this module wrote for elements which are gone. A list in
            O(state_directory) holds what it wrote.
          - A file of somebody else that matches the path with another text in the place of its placeholder
            stays; a warning and RV(strangers) name it.
          - The path must have exactly one placeholder, C({name}) or another.
        type: bool
        default: false
      parents:
        description: Make the directory of the file (root, 0755) when it does not exist.
        type: bool
        default: false
      only_with:
        description:
          - A key of the element. Elements in which it is missing or empty do not get the file.
          - Not for a file that is written once.
        type: str
  absent:
    description: Files and symbolic links that are removed in the same transaction.
    type: list
    elements: str
    default: []
  check:
    description:
      - A command and its arguments that must accept the whole after the files were exchanged.
      - When it fails, all files are put back and the task fails.
    type: list
    elements: str
    default: []
  apply:
    description:
      - Commands that make the changes effective, such as a reload, each a list of arguments. They
        run in this order, after a change, after a run that was killed before them, and when O(expects)
        is not met.
    type: list
    elements: list
    default: []
  expects:
    description:
      - Directories that O(apply) makes. When one of them is missing or differs, O(apply) runs although
        no file changed; when one still differs afterwards, the task fails.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: The directory, for every element; placeholders as in O(files[].path).
        type: str
        required: true
      owner:
        description: Its user.
        type: str
        default: root
      group:
        description: Its group.
        type: str
        default: root
      mode:
        description: Its mode, a quoted octal number with a leading zero.
        type: str
        default: "0755"
  state_directory:
    description:
      - Where the marker, the lock, the list of what was written and the candidates lie.
      - Only runs of an ordinary user need another one.
    type: path
    default: /var/lib/flaskworks
  rendered:
    description: What the controller rendered. Set by the action; a task that sets it is refused.
    type: str
attributes:
  check_mode:
    support: full
    description: Tells exactly what would change and writes nothing but candidates for validation.
  diff_mode:
    support: full
    description: Shows contents, owners and modes; never the content of sensitive files.
author:
  - the flaskworks.server contributors (@flaskworks)
"""

EXAMPLES = r"""
- name: Install the settings and units of every service
  flaskworks.server.templates:
    elements: "{{ gunicorn_services }}"
    element_name: gunicorn_service
    files:
      - template: gunicorn.conf.py.j2
        path: /etc/flask/{name}/gunicorn.conf.py
        group: "{name}"
        mode: "0640"
        purge: true
      - template: environment.j2
        path: /etc/flask/{name}/environment
        mode: "0600"
        sensitive: true
        purge: true
    apply:
      - [systemctl, daemon-reload]

- name: Install the sites, or keep the old ones when nginx refuses them
  flaskworks.server.templates:
    elements: "{{ nginx_sites }}"
    element_name: nginx_site
    files:
      - template: site.conf.j2
        path: /etc/nginx/sites-enabled/flask-{name}.conf
        purge: true
    absent:
      - /etc/nginx/sites-enabled/default
    check: [nginx, -t]
    apply:
      - [systemctl, reload, nginx.service]
"""

RETURN = r"""
changes:
  description: Paths that were (or would be) written, by element; C("") has the files written once.
  returned: success
  type: dict
  sample: {hello: [/etc/flask/hello/gunicorn.conf.py]}
removed:
  description: Paths that were (or would be) removed.
  returned: success
  type: list
  elements: str
  sample: [/etc/nginx/sites-enabled/default]
applied:
  description: Whether the commands of O(apply) ran (or would run).
  returned: success
  type: bool
strangers:
  description: Paths that match a path with O(files[].purge), but that this module did not write. They stay.
  returned: success
  type: list
  elements: str
unvalidated:
  description: Paths that a run in check mode could not validate on this host yet.
  returned: success
  type: list
  elements: str
"""

import base64
import json
import zlib
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.flaskworks.server.plugins.module_utils.pending_apply import STATE_DIRECTORY
from ansible_collections.flaskworks.server.plugins.module_utils.transaction import (
    Expectation,
    Request,
    Rule,
    TransactionError,
    execute,
    parse_mode,
)

ARGUMENTS: dict[str, dict[str, Any]] = {
    # The elements' other keys are free, so their options cannot be listed here.
    "elements": {"type": "list", "elements": "dict", "default": []},
    "element_name": {"type": "str", "default": "element"},
    "files": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "template": {"type": "str", "required": True},
            "path": {"type": "str", "required": True},
            "owner": {"type": "str", "default": "root"},
            "group": {"type": "str", "default": "root"},
            "mode": {"type": "str", "default": "0644"},
            "sensitive": {"type": "bool", "default": False},
            "validate": {"type": "list", "elements": "str", "default": []},
            "purge": {"type": "bool", "default": False},
            "parents": {"type": "bool", "default": False},
            "only_with": {"type": "str"},
        },
    },
    "absent": {"type": "list", "elements": "str", "default": []},
    "check": {"type": "list", "elements": "str", "default": []},
    "apply": {"type": "list", "elements": "list", "default": []},
    "expects": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "path": {"type": "str", "required": True},
            "owner": {"type": "str", "default": "root"},
            "group": {"type": "str", "default": "root"},
            "mode": {"type": "str", "default": "0755"},
        },
    },
    "state_directory": {"type": "path", "default": STATE_DIRECTORY},
    # Compressed and encoded as a whole: fifty similar files cost little more than one, and no text
    # of a sensitive file stands in the arguments for a log to catch.
    "rendered": {"type": "str", "no_log": True},
}


def rules_of(files: list[dict[str, Any]]) -> list[Rule]:
    """Turn the option `files` into rules. Raises TransactionError for a mode that is not octal."""
    return [
        Rule(
            path=file["path"],
            owner=file["owner"],
            group=file["group"],
            mode=parse_mode(file["mode"]),
            sensitive=file["sensitive"],
            validate=tuple(file["validate"]),
            purge=file["purge"],
            parents=file["parents"],
            only_with=file.get("only_with") or "",
        )
        for file in files
    ]


def expectations_of(expects: list[dict[str, Any]]) -> list[Expectation]:
    return [
        Expectation(path=one["path"], owner=one["owner"], group=one["group"], mode=parse_mode(one["mode"]))
        for one in expects
    ]


def pack(contents: list[str]) -> str:
    """Encode the rendered texts for the journey; the inverse of unpack."""
    return base64.b64encode(zlib.compress(json.dumps(contents).encode())).decode()


def unpack(rendered: str) -> list[str]:
    contents: list[str] = json.loads(zlib.decompress(base64.b64decode(rendered)))
    return contents


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    options = module.params
    try:
        request = Request(
            elements=options["elements"],
            rules=rules_of(options["files"]),
            contents=unpack(options["rendered"]),
            absent=options["absent"],
            check=options["check"],
            apply=options["apply"],
            expects=expectations_of(options["expects"]),
            state_directory=options["state_directory"],
        )
        outcome = execute(request, check_mode=module.check_mode)
    except TransactionError as error:
        module.fail_json(msg=str(error))
    for path in outcome.strangers:
        module.warn(
            f"{path} belongs to no element and stays, because it was not written here; remove it by hand"
        )
    result = {
        "changed": outcome.changed,
        "changes": outcome.changes,
        "removed": outcome.removed,
        "applied": outcome.applied,
        "strangers": outcome.strangers,
        "unvalidated": outcome.unvalidated,
    }
    if module._diff:
        result["diff"] = outcome.diff
    module.exit_json(**result)


if __name__ == "__main__":
    main()
