# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Show people lines of text in the output of a play.

A result is shown as YAML or as JSON, in which newlines and bars are escaped: a table in there cannot be read.
So lines are displayed as they are, beside the result; not where the output is read by a program.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from ansible import constants
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

FOR_PROGRAMS = {"json", "jsonl", "junit"}


def show(lines: Sequence[str]) -> None:
    """Print the lines to the operator. Ansible hands them from a worker to the process at the terminal."""
    callback = str(constants.config.get_config_value("DEFAULT_STDOUT_CALLBACK") or "")
    if lines and callback.rpartition(".")[2] not in FOR_PROGRAMS:
        Display().display("\n".join(["", *lines]))  # the heading of the task may come before or after


class TableAction(ActionBase, ABC):
    """An action that prints one table for all hosts of the play, and returns its text. No host is asked.

    It reads what the hosts have registered under the name that the option ``registered`` says. `OPTIONS` are
    those that an action has beside it.
    """

    OPTIONS: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    TRANSFERS_FILES = False
    BYPASS_HOST_LOOP = True
    _requires_connection = False
    _supports_check_mode = True

    @abstractmethod
    def lines(
        self, hosts: Sequence[str], found: Mapping[str, Mapping[str, Any]], given: Mapping[str, Any]
    ) -> list[str]:
        """Write the table from what each host has registered, and from the options."""

    def judge(
        self, _hosts: Sequence[str], _found: Mapping[str, Mapping[str, Any]], _given: Mapping[str, Any]
    ) -> dict[str, Any]:
        """What else the result says, from the same."""
        return {}

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _validated, given = self.validate_argument_spec(
            {"registered": {"type": "str", "required": True}, **self.OPTIONS}
        )
        known = task_vars or {}
        hosts = [str(host) for host in known.get("ansible_play_hosts_all") or ()]
        variables = {host: known["hostvars"].get(host) or {} for host in hosts}
        found = {
            host: one[given["registered"]] for host, one in variables.items() if given["registered"] in one
        }
        lines = self.lines(hosts, found, given)
        show(lines)
        # Printed already: with -v the same would follow as a result.
        return {
            "_ansible_verbose_override": True,
            "changed": False,
            "msg": "\n".join(lines),
            **self.judge(hosts, found, given),
        }
