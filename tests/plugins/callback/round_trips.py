# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Count what goes over the connections to the hosts, whatever kind of connection it is.

Log lines of verbose runs differ from connection to connection; so the three methods themselves are counted
through which every connection has to go: commands that are executed, files that are put, files that are
fetched. Connections to the controller itself are no round trips and are left out.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase
from ansible.plugins.loader import connection_loader

DOCUMENTATION = r"""
name: round_trips
type: notification
short_description: count round trips to the hosts
description:
  - Writes a line of JSON for every command executed on a host, and for every file that is put or fetched.
options:
  file:
    description: The file to which the lines are appended.
    type: path
    required: true
    env: [{name: FLASKWORKS_ROUND_TRIPS}]
requirements:
  - be named in C(ANSIBLE_CALLBACKS_ENABLED)
"""

KINDS = {"exec_command": "execute", "put_file": "put", "fetch_file": "fetch"}


class CallbackModule(CallbackBase):  # type: ignore[misc]
    """Wraps every connection that the play makes from now on; the workers are forked and inherit that."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "round_trips"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._task = ""
        self._file: Path | None = None
        self._get = connection_loader.get_with_context
        connection_loader.get_with_context = self._get_counted

    def set_options(self, *arguments: Any, **settings: Any) -> None:
        super().set_options(*arguments, **settings)
        self._file = Path(self.get_option("file"))

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:  # noqa: ARG002 - Ansible passes it by name
        self._task = task.get_name()

    def v2_playbook_on_handler_task_start(self, task: Any) -> None:
        self._task = task.get_name()

    def _get_counted(self, *arguments: Any, **settings: Any) -> Any:
        found = self._get(*arguments, **settings)
        connection = found.object
        if isinstance(connection, type) or getattr(connection, "transport", "local") == "local":
            return found
        for method, kind in KINDS.items():
            setattr(connection, method, self._counted(connection, kind, getattr(connection, method)))
        return found

    def _counted(self, connection: Any, kind: str, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def counted(*arguments: Any, **settings: Any) -> Any:
            self._write({"host": _address(connection), "kind": kind, "task": self._task})
            return method(*arguments, **settings)

        return counted

    def _write(self, line: dict[str, str]) -> None:
        """Append one line in one write: workers write to the same file."""
        if self._file is None:
            return
        descriptor = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(descriptor, (json.dumps(line) + "\n").encode())
        finally:
            os.close(descriptor)


def _address(connection: Any) -> str:
    """Return where the connection goes; the option has two names."""
    return next(
        (str(connection.get_option(name)) for name in ("host", "remote_addr") if connection.has_option(name)),
        "",
    )
