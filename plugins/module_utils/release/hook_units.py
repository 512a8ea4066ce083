# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The units that hooks run in: their names, their text, and the end of those that a killed deploy left."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence

from .ids import is_id
from .locking import utc
from .ports import Host, Ran, Unit
from .request import HOOKS, Release, ReleaseFailure

OUTPUT_LINES = 30  # of a failed hook that a message shows
STOP_TIMEOUT = 10  # seconds that an interrupted hook has to end by itself

# Settings of a service that say how it is started, stopped and watched; a hook has its own.
_NOT_INHERITED = re.compile(
    r"(Type|NotifyAccess|Exec(?!Paths$).*|Restart.*|Kill.*|.*KillSignal|SendSIG.*|Timeout.*|RuntimeMax.*|RuntimeRandom.*|"
    r"WatchdogSec|WatchdogSignal|PIDFile|GuessMainPID|RemainAfterExit|SuccessExitStatus|BusName|Sockets|"
    r"FileDescriptorStore.*|Standard.*|RuntimeDirectoryPreserve|ExitType|ReloadSignal|OpenFile)$"
)


def describe(
    release: Release, kind: str, name: str, command: str, settings: Sequence[str]
) -> tuple[str, str]:
    """The name of a hook's unit and its text. The same text has the same name, and no other has it."""
    folder = os.path.join(release.releases, name, "venv", "bin")
    lines = [
        "[Unit]",
        f"Description=Hook {kind} of {release.name}, release {name}",
        "[Service]",
        *settings,
        "Type=oneshot",
        "ExecPaths=/usr",  # what the operator has it run; an app needs to be let do so
        f"ExecSearchPath={folder}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "ExecStart=" + command.replace("%", "%%"),
        f"TimeoutStartSec={release.hooks.timeout:g}",
        f"TimeoutStopSec={STOP_TIMEOUT}",
        "StandardInput=null",
        "StandardOutput=journal",
        "StandardError=journal",
        "RuntimeDirectoryPreserve=yes",  # a directory of the service is not the hook's to remove
    ]
    text = "\n".join(lines) + "\n"
    mark = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{release.hook(kind)}-{name}-{mark}.service", text


def settings_of(text: str, name: str) -> list[str]:
    """What a hook takes over of a service, whose file and drop-ins are as `systemctl cat` shows them."""
    found = []
    section = ""
    for line in re.sub(r"\\\n", " ", text).splitlines():
        if line.startswith("["):
            section = line
        key, equals, value = line.partition("=")
        if (
            section == "[Service]"
            and equals
            and line[0] not in "#;"
            and not _NOT_INHERITED.match(key.strip())
        ):
            value = re.sub(r"%(.)", lambda match: name if match[1] == "i" else match[0], value)
            found.append(f"{key.strip()}={value.strip()}")
    return found


def failure(
    host: Host, release: Release, kind: str, unit: str, command: str, since: float, ran: Ran
) -> ReleaseFailure:
    if ran.refused:
        what = f"could not be started: {ran.refused}"
    elif ran.result == "timeout":
        what = f"was stopped after {release.hooks.timeout:g} s (hook_timeout)"
    elif ran.result == "exit-code":
        what = f"failed with status {ran.status}"
    elif ran.result in ("signal", "core-dump"):
        what = f"was killed by signal {ran.status}"
    else:
        what = f"failed ({ran.result})"
    lines = _said(unit, host.journal(unit, since, OUTPUT_LINES + 5))[-OUTPUT_LINES:]
    told = "\n".join(f"    {line}" for line in lines) or "    (nothing)"
    if kind == "after_activate":
        rest = "The new release serves. Correct the hook; it runs again with the next release, not before."
    else:
        rest = "What served before goes on serving. Correct the hook or what it needs, and deploy again."
    return ReleaseFailure(
        f"the hook {kind} {what}: {command}\n  Last lines of {unit} since {utc(since)}:\n{told}\n  {rest}"
    )


def _said(unit: str, lines: Sequence[str]) -> list[str]:
    """What a hook has written; what systemd says of it where it has written nothing."""
    systemd = (f"{unit}: ", "Starting ", "Failed to start ", "Stopping ", "Stopped ")
    return [line for line in lines if line and not line.startswith(systemd)] or list(lines)


def reap_hooks(host: Host, release: Release, units: Mapping[str, Unit]) -> None:
    """Stop hooks that a killed deploy left; the app's lock says that nobody waits for them.

    One that has ended by itself meanwhile is no unit any more, but its file is there.
    """
    for unit in sorted({*units, *host.runtime_units()}):
        if is_hook(release, unit):
            host.step("reap hook")
            host.drop_unit(unit)


def is_hook(release: Release, unit: str) -> bool:
    """Whether a unit is a hook of this app, and not of one whose name begins alike."""
    for kind in HOOKS:
        rest = unit.removeprefix(f"{release.hook(kind)}-")
        if rest != unit and unit.endswith(".service"):
            return is_id(rest.rpartition("-")[0])
    return False
