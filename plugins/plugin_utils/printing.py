# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Show people lines of text in the output of a play.

A result is shown as YAML or as JSON, in which newlines and bars are escaped: a table in there cannot be read.
So lines are displayed as they are, beside the result; not where the output is read by a program.
"""

from __future__ import annotations

from collections.abc import Sequence

from ansible import constants
from ansible.utils.display import Display

FOR_PROGRAMS = {"json", "jsonl", "junit"}


def show(lines: Sequence[str]) -> None:
    """Print the lines to the operator. Ansible hands them from a worker to the process at the terminal."""
    callback = str(constants.config.get_config_value("DEFAULT_STDOUT_CALLBACK") or "")
    if lines and callback.rpartition(".")[2] not in FOR_PROGRAMS:
        Display().display("\n".join(["", *lines]))  # the heading of the task may come before or after
