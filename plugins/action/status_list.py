# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Print how the apps of all hosts are as one table, and judge it: what status has returned before."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

from ansible.errors import AnsibleActionFail
from ansible_collections.flaskworks.server.plugins.plugin_utils import printing, status_table


class ActionModule(printing.TableAction):
    OPTIONS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "strict": {"type": "bool", "default": False},
        "report": {"type": "path"},
    }

    def lines(
        self, hosts: Sequence[str], found: Mapping[str, Mapping[str, Any]], given: Mapping[str, Any]
    ) -> list[str]:
        # A failure tells what is wrong, so that it does not stand there twice.
        return status_table.lines(hosts, found, datetime.now(UTC), notes=not given["strict"])

    def judge(
        self, hosts: Sequence[str], found: Mapping[str, Mapping[str, Any]], given: Mapping[str, Any]
    ) -> dict[str, Any]:
        told = status_table.report(hosts, found, datetime.now(UTC))
        if given["report"]:
            _write(Path(given["report"]), json.dumps(told, indent=2) + "\n")
        if not given["strict"]:
            return {}
        wrong = told["wrong"]
        return {"wrong": wrong, **({"failed": True, "msg": "\n".join(wrong)} if wrong else {})}


def _write(path: Path, text: str) -> None:
    """Write a file whole or not at all: a monitor may read it at any time."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}~")
    try:
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(path)
    except OSError as error:
        raise AnsibleActionFail(f"the report {path} cannot be written: {error.strerror}") from None
