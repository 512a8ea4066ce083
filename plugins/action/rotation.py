# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Bring a new SECRET_KEY one step further, in the vault file that says it."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.parsing.vault import VaultLib, is_encrypted, parse_vaulttext_envelope
from ansible.plugins.action import ActionBase
from ansible_collections.flaskworks.server.plugins.plugin_utils import rotation
from ansible_collections.flaskworks.server.plugins.plugin_utils.description import suggestion

BY_HAND = (
    "so nothing was changed. By hand: make a new key with "
    "python3 -c 'import secrets; print(secrets.token_hex(32))', put it into SECRET_KEY_FALLBACKS "
    "and run site.yml; then exchange it with SECRET_KEY, and run site.yml again"
)
STEPS = ("announce", "sign", "finish", "forget")


@dataclass(frozen=True)
class _File:
    """A vault file that has secrets of the app."""

    path: str
    raw: bytes
    text: str
    secret: Any
    label: str


class ActionModule(ActionBase):
    """Runs once for all hosts (run_once), on the controller."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _validated, given = self.validate_argument_spec(
            {
                "app": {"type": "str", "required": True},
                "step": {
                    "type": "str",
                    "choices": ["announce", "sign", "finish", "forget"],
                    "required": True,
                },
                "hosts": {"type": "list", "elements": "str", "required": True},
            }
        )
        self._known = task_vars or {}
        app, step = given["app"], given["step"]
        keys = self._keys(app, given["hosts"])
        file = self._file(app, keys)
        try:
            found = rotation.look(file.text, app)
            if {found.key} != set(keys.values()):
                raise rotation.RotationError(
                    f"does not say the {rotation.KEY} that hosts get, which comes from elsewhere"
                )
            text, state = self._step(step, file.text, app, found.state)
            if text != file.text and not self._task.check_mode:
                self._write(file, text)
        except rotation.RotationError as error:
            raise AnsibleActionFail(f"flask_secrets.{app}: {file.path} {error}; {BY_HAND}") from None
        return {**result, "changed": text != file.text, "state": state, "file": file.path}

    def _step(self, step: str, text: str, app: str, state: str) -> tuple[str, str]:
        """The text after a step, and how far the rotation is then. What was done before stays done."""
        if step == "forget" and state:
            raise AnsibleActionFail(
                f"{app}: a rotation is under way, and needs the old key; "
                "end it first: run playbooks/rotate_secret_key.yml without forget"
            )
        done: dict[str, Callable[[], str]] = {
            "announce": lambda: rotation.announce(text, app, secrets.token_hex(32)),
            "sign": lambda: rotation.sign(text, app),
            "finish": lambda: rotation.finish(text, app),
            "forget": lambda: rotation.forget(text, app),
        }
        if step == "announce" and state:
            return text, state
        if step == "sign" and (state == rotation.SIGNING or self._task.check_mode):
            return text, rotation.SIGNING
        return done[step](), {"announce": rotation.ANNOUNCED, "sign": rotation.SIGNING}.get(step, "")

    def _keys(self, app: str, everywhere: list[str]) -> dict[str, str | None]:
        """The key that each host of the app gets.

        Raises:
            AnsibleActionFail: when there is no such app, or a host of it is not in the play.
        """
        described = {host: self._described(host) for host in everywhere}
        owners = [host for host, (apps, _values) in described.items() if app in apps]
        if not owners:
            known = sorted({name for apps, _values in described.values() for name in apps})
            what = f"there is no app '{app}'{suggestion(app, known)}" if app else "which app is not said"
            raise AnsibleActionFail(f"{what}; say it with -e app=NAME, where NAME is {' or '.join(known)}")
        absent = [host for host in owners if host not in self._known["ansible_play_hosts_all"]]
        if absent:
            raise AnsibleActionFail(
                f"{', '.join(absent)} has {app} as well and is not in this play; a session that begins on "
                "one host ends on another, so run without --limit"
            )
        return {
            host: rotation.plain((described[host][1].get(app) or {}).get(rotation.KEY)) for host in owners
        }

    def _described(self, host: str) -> tuple[list[str], Mapping[str, Any]]:
        hostvars = self._known["hostvars"]
        variables = {**hostvars.raw_get(host), "hostvars": hostvars}
        templar = self._templar.copy_with_new_env(available_variables=variables)
        apps = templar.template(variables.get("flask_apps") or [])
        return [one["name"] for one in apps], templar.template(variables.get("flask_secrets") or {})

    def _file(self, app: str, keys: Mapping[str, str | None]) -> _File:
        """The one vault file with secrets of the app."""
        folders = {str(self._known["playbook_dir"])}
        folders |= {str(self._known["hostvars"][host].get("inventory_dir")) for host in keys}
        found = {
            file.path: file
            for folder in sorted(folders)
            for path in _files(Path(folder))
            if (file := self._open(path)) is not None and app in rotation.names(file.text)
        }
        if len(found) == 1:
            return next(iter(found.values()))
        where = " and ".join(f"{folder}/{{group,host}}_vars" for folder in sorted(folders))
        problem = (
            f"{' and '.join(sorted(found))} both have them"
            if found
            else f"no vault file below {where} that is encrypted as a whole and opens has them"
        )
        raise AnsibleActionFail(f"flask_secrets.{app}: {problem}, {BY_HAND}")

    def _open(self, path: Path) -> _File | None:
        raw = path.read_bytes()
        if not is_encrypted(raw):
            return None
        try:
            opened = self._vault().decrypt_and_get_vault_id(raw)
            text = opened[0].decode()
        except (AnsibleError, UnicodeDecodeError):
            return None
        label = str(parse_vaulttext_envelope(raw)[3] or "default")
        return _File(os.path.realpath(path), raw, text, opened[2], label)

    def _vault(self) -> VaultLib:
        """What opens vault files with the passwords of this run."""
        vault: VaultLib = self._loader._vault
        return vault

    def _write(self, file: _File, text: str) -> None:
        content = self._vault().encrypt(text, file.secret, vault_id=file.label)
        if self._vault().decrypt(content) != text.encode():
            raise rotation.RotationError("could not be encrypted")
        rotation.replace(file.path, content, file.raw)


def _files(folder: Path) -> Iterator[Path]:
    for name in ("group_vars", "host_vars"):
        for above, _folders, files in os.walk(folder / name, followlinks=True):
            yield from (Path(above) / file for file in sorted(files))
