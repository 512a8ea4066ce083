#!/usr/bin/python
# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Stage and activate the releases of a host. The action of the same name runs first, on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: release
short_description: Ship releases of Flask apps without dropping a request
version_added: 0.1.0
description:
  - With O(state=staged), writes the new release of every app of the host, starts it beside the one that
    serves, and returns when all of them answer their health checks. An app whose live release has the same
    digest is left alone.
  - With O(state=hooked), runs the commands of one kind of hook for every app that was staged, each as a unit
    with the account, the sandbox and the variables of the new release.
  - With O(state=active), switches every app that was staged. The old release drains after the task.
  - With O(state=watched), watches every app that was switched for as long as it says. One that gets into
    trouble is switched back by itself and marked bad, and the task fails. A task that is killed has watched.
  - With O(state=withdrawn), stops what was staged and not switched to, and tells what serves. It is for a
    play that fails.
  - Sources are read, fetched and packed on the controller, and uploaded only when a host does not have them.
  - All apps of a host take one round trip for each state, and one more when code has to be uploaded of which
    the controller has not known that the host lacks it.
  - Every switch is noted in the file C(history.jsonl) in the app's directory.
  - When an app fails, what served before goes on serving, and the message carries the last lines of the
    app's journal.
options:
  state:
    description:
      - What to reach.
    type: str
    choices: [staged, hooked, active, watched, withdrawn]
    required: true
  releases:
    description:
      - The releases of the host, as the filter P(flaskworks.server.plan#filter) makes them.
    type: list
    elements: dict
    required: true
  staged:
    description:
      - What a task with O(state=staged) returned, and for O(state=watched) what one with O(state=active) did.
        Required with all other states.
    type: dict
  activate:
    description:
      - With O(state=staged), switch in the same call as soon as every app is healthy, unless an app has a
        hook or is watched. For plays of one host, where no other one has to be healthy first. A task with
        O(state=active) then finds nothing left to do.
    type: bool
    default: false
  spent:
    description:
      - Seconds that staging took, by app and step, for the history. Set by the action.
    type: dict
    default: {}
  to:
    description:
      - With O(state=staged), go back to a release that is there instead of making one of the source.
        V(previous) is the one that served before; otherwise its id, or the moment that its id begins with.
      - Empty to stage what the source and the configuration make.
    type: str
    default: ""
  app:
    description:
      - With O(to), the app that goes back. May be left out where a host has one app.
      - A host without this app is left alone, as long as another one of the play has it.
    type: str
    default: ""
  redeploy:
    description:
      - Apps to deploy although what they would get turned out bad or was rolled back from.
    type: list
    elements: str
    default: []
  moment:
    description:
      - When the deploy began, in UTC, as names of releases hold it. Set by the action, equal on all hosts.
      - Empty for the host's own clock.
    type: str
    default: ""
  hook:
    description:
      - Which kind of hook runs. Required when O(state=hooked).
      - V(migrate) runs once for each app of a play, on the first host that staged it (see O(fleet)).
        The others run on every host.
    type: str
    choices: [migrate, before_activate, after_activate]
  fleet:
    description:
      - Name of the variable that every host of the play has registered its task with O(state=staged) in.
        Required when O(hook=migrate).
      - With O(withdraw=true), that of the task with O(state=watched).
    type: str
  withdraw:
    description:
      - With O(state=watched), does not watch, but switches back what got into trouble on another host of the
        play.
    type: bool
    default: false
  elapsed:
    description:
      - Seconds since the switch. Set by the action.
    type: float
    default: 0
  why:
    description:
      - Apps to switch back, and the reasons. Set by the action.
    type: dict
    default: {}
  deployer:
    description:
      - Who deploys. Set by the action.
    type: str
    default: ""
  bundles:
    description:
      - Packed sources by digest. Set by the action.
    type: dict
    default: {}
  bundle_files:
    description:
      - Paths of packed sources on the host by digest. Set by the action.
    type: dict
    default: {}
attributes:
  check_mode:
    support: full
    description: Says which apps would get a new release and why. Writes and uploads nothing.
  diff_mode:
    support: full
    description: Shows the revision and the digests that a release is made of, and nothing of any content.
author:
  - The flaskworks.server contributors (@flaskworks)
"""

EXAMPLES = r"""
- name: Stage the releases and prove them healthy
  flaskworks.server.release:
    state: staged
    releases: "{{ deploy_releases }}"
  register: staged

- name: Switch to the staged releases
  flaskworks.server.release:
    state: active
    releases: "{{ deploy_releases }}"
    staged: "{{ staged }}"
"""

RETURN = r"""
hooks:
  description: The kinds of hooks that staged apps have, in the order in which they run. With O(state=staged).
  returned: success
  type: list
  elements: str
  sample: [migrate]
apps:
  description: What became of each app, by name.
  returned: always
  type: dict
  contains:
    release:
      description: The release that was staged or activated, or the live one when there was nothing to do.
        With O(state=withdrawn), the one that serves.
      type: str
      sample: 20261120T101500Z-3fb1c0de42
    previous:
      description: The release that served before.
      type: str
    serves:
      description: The release that serves when the task has ended, also when it has failed. Null for none.
      type: str
    revision:
      description: The commit of the source, with C(-dirty) when files differ from it. Empty without git.
      type: str
    changed:
      description: Whether there was anything to do.
      type: bool
    staged:
      description: Whether the release waits for its activation.
      type: bool
    damage:
      description: What is wrong with the files of the live release, which is why it is built anew.
      returned: when the live release is not what it was when it was made
      type: str
      sample: "20261120T101500Z-3fb1c0de42: src/hello.py was changed"
    trouble:
      description: What got the release into trouble while it was watched.
      returned: when it did
      type: str
      sample: its service ended and was started again
    seconds:
      description: What V(build), V(gate), V(switch) and each kind of hook took.
      type: dict
"""

import base64
import os
import shutil
import tempfile
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.flaskworks.server.plugins.module_utils.release import (
    activation,
    alone,
    hooks,
    rollback,
    staging,
    watch,
    withdrawal,
)
from ansible_collections.flaskworks.server.plugins.module_utils.release.places import Places
from ansible_collections.flaskworks.server.plugins.module_utils.release.ports import Host
from ansible_collections.flaskworks.server.plugins.module_utils.release.request import HOOKS, parse


class _Module(AnsibleModule):
    """Logs what it is asked for in a few words: the arguments hold whole lock files."""

    def _log_invocation(self) -> None:
        names = ", ".join(str(release.get("name")) for release in self.params["releases"])
        self.log(f"{self.params['state']} for {self.params['deployer'] or 'somebody'}: {names}")


def _bundles(given: dict[str, Any], folder: str) -> dict[str, str]:
    """Paths of the bundles by digest."""
    paths: dict[str, str] = dict(given["bundle_files"])
    for digest, content in given["bundles"].items():
        paths[digest] = os.path.join(folder, f"{digest}.tar.gz")
        with open(paths[digest], "wb") as file:
            file.write(base64.b64decode(content))
    return paths


def _diff(outcomes: dict[str, staging.Outcome]) -> list[dict[str, str]]:
    shown = []
    for name, outcome in sorted(outcomes.items()):
        if outcome.before != outcome.after:
            before, after = (
                "".join(f"{key}: {value}\n" for key, value in side.items())
                for side in (outcome.before, outcome.after)
            )
            header = f"release of {name}"
            shown.append({"before": before, "after": after, "before_header": header, "after_header": header})
    return shown


def main() -> None:
    """Run the module."""
    module = _Module(
        argument_spec={
            "state": {
                "type": "str",
                "choices": ["staged", "hooked", "active", "watched", "withdrawn"],
                "required": True,
            },
            "releases": {"type": "list", "elements": "dict", "required": True},
            "staged": {"type": "dict"},
            "activate": {"type": "bool", "default": False},
            "spent": {"type": "dict", "default": {}},
            "to": {"type": "str", "default": ""},
            "app": {"type": "str", "default": ""},
            "redeploy": {"type": "list", "elements": "str", "default": []},
            "moment": {"type": "str", "default": ""},
            "hook": {"type": "str", "choices": list(HOOKS)},
            "fleet": {"type": "str"},
            "withdraw": {"type": "bool", "default": False},
            "elapsed": {"type": "float", "default": 0.0},
            "why": {"type": "dict", "default": {}},
            "deployer": {"type": "str", "default": ""},
            "bundles": {"type": "dict", "default": {}, "no_log": True},
            "bundle_files": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    os.umask(0o022)  # whatever the operator's is: modes say who may read, and are set where it matters
    given = module.params
    releases = [parse(one) for one in given["releases"]]
    folder = tempfile.mkdtemp(prefix="flaskworks-") if given["bundles"] or given["bundle_files"] else ""
    try:
        job = staging.Job(
            Host(),
            Places(),
            given["deployer"],
            _bundles(given, folder),
            module.check_mode,
            moment=given["moment"],
            redeploy=given["redeploy"],
        )
        if given["state"] == "staged":
            back = given["to"]
            outcomes = rollback.stage(job, releases, back) if back else staging.stage(job, releases)
            if given["activate"]:
                outcomes = alone.switch(job, releases, outcomes)
        elif given["state"] == "hooked":
            outcomes = hooks.run(job, given["hook"], releases, given["staged"] or {})
        elif given["state"] == "watched" and given["why"]:
            outcomes = watch.withdraw(job, releases, given["staged"] or {}, given["why"])
        elif given["state"] == "watched":
            outcomes = watch.watch(job, releases, given["staged"] or {}, given["elapsed"])
        elif given["state"] == "withdrawn":
            outcomes = withdrawal.give_up(job, releases, given["staged"] or {})
        else:
            outcomes = activation.activate(job, releases, given["staged"] or {}, given["spent"])
    finally:
        if folder:
            shutil.rmtree(folder, ignore_errors=True)
    failures = [outcome.failure for outcome in outcomes.values() if outcome.failure]
    answer: dict[str, Any] = {
        "changed": any(outcome.changed for outcome in outcomes.values()),
        "apps": {name: outcome.result() for name, outcome in outcomes.items()},
        "diff": _diff(outcomes),
        "invocation": {},
    }
    for outcome in outcomes.values():
        if outcome.warning:
            module.warn(outcome.warning)
    if failures:
        module.fail_json(msg="\n".join(failures), **answer)
    missing = sorted({outcome.missing for outcome in outcomes.values() if outcome.missing})
    if missing:
        answer["missing"] = missing
    module.exit_json(**answer)


if __name__ == "__main__":
    main()
