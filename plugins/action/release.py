# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The controller's half of the release module: read the sources, and upload what the host asks for."""

from __future__ import annotations

import base64
import getpass
import os
import socket
import time
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.flaskworks.server.plugins.module_utils.release.request import HOOKS, NO_SOURCE
from ansible_collections.flaskworks.server.plugins.plugin_utils import lean
from ansible_collections.flaskworks.server.plugins.plugin_utils.arrivals import Arrivals
from ansible_collections.flaskworks.server.plugins.plugin_utils.cache import cache_directory
from ansible_collections.flaskworks.server.plugins.plugin_utils.description import suggestion
from ansible_collections.flaskworks.server.plugins.plugin_utils.runs import run_moment
from ansible_collections.flaskworks.server.plugins.plugin_utils.sources.base import Source, SourceFailure
from ansible_collections.flaskworks.server.plugins.plugin_utils.sources.gathering import gather
from ansible_collections.flaskworks.server.plugins.plugin_utils.sources.trees import Files

INLINE_LIMIT = 8 * 1024 * 1024  # bytes of bundles that travel with the arguments of a module
_STATES = ("staged", "hooked", "active", "watched", "withdrawn")
MODULE = "flaskworks.server.release"


class ActionModule(ActionBase):
    """Stage or activate all releases of a host."""

    # A directory for files is made only where bundles are too big for the arguments: making and removing one
    # costs three round trips, and most calls need none.
    TRANSFERS_FILES = False
    _requires_connection = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _validated, given = self.validate_argument_spec(
            {
                "state": {"type": "str", "choices": [*_STATES], "required": True},
                "releases": {"type": "list", "elements": "dict", "required": True},
                "staged": {"type": "dict"},
                "activate": {"type": "bool", "default": False},
                "redeploy": {"type": "list", "elements": "str", "default": []},
                "hook": {"type": "str", "choices": list(HOOKS)},
                "fleet": {"type": "str"},
                "to": {"type": "str", "default": ""},
                "app": {"type": "str", "default": ""},
                "withdraw": {"type": "bool", "default": False},
            },
            required_if=[
                ("state", "active", ["staged"]),
                ("state", "withdrawn", ["staged"]),
                ("state", "watched", ["staged"]),
                ("withdraw", True, ["fleet"]),
                ("state", "hooked", ["staged", "hook"]),
                ("hook", "migrate", ["fleet"]),
            ],
        )
        self._vars = task_vars or {}
        at_once = given["activate"] and not any(map(_waits, given["releases"]))
        if given["state"] == "staged" and given["to"]:
            return self._go_back(given["releases"], given["to"], given["app"], at_once)
        if given["state"] == "staged":
            return self._stage(given["releases"], given["redeploy"], at_once)
        if given["state"] == "hooked":
            return self._run_hooks(given["hook"], given["releases"], given["staged"], given["fleet"])
        if given["state"] == "watched" and given["withdraw"]:
            return self._switch_back(given["releases"], given["staged"], given["fleet"])
        if given["state"] == "watched":
            return self._watch(given["releases"], given["staged"])
        if given["state"] == "withdrawn":
            return self._withdraw(given["releases"], given["staged"])
        return self._activate(given["releases"], given["staged"])

    def _stage(self, releases: list[dict[str, Any]], redeploy: list[str], at_once: bool) -> dict[str, Any]:
        if not releases:
            return {"changed": False, "apps": {}, "hooks": [], "watch": []}
        cache = cache_directory()
        sources, errors = {}, []
        memory: dict[str, Files] = {}
        for release in releases:
            try:
                sources[release["name"]] = gather(release, cache, memory)
            except SourceFailure as error:
                errors.append(str(error))
        if errors:
            raise AnsibleActionFail("\n".join(errors))
        told = [{**release, "source": sources[release["name"]].describe()} for release in releases]
        common = {"redeploy": redeploy, "moment": run_moment(cache), "activate": at_once}
        wanted = {name: source.digest for name, source in sources.items()}
        arrivals = Arrivals(cache, self._place())
        early = {digest for name, digest in wanted.items() if arrivals.lacks(name, digest)}
        bundles = {} if self._task.check_mode else _packed(sources, early, cache)
        if _size(bundles) > INLINE_LIMIT:
            bundles = {}  # so much is sent only where it is asked for
        result = self._call("staged", told, **common, **self._upload(bundles))
        missing = result.pop("missing", [])
        if missing and not result.get("failed"):
            bundles.update(_packed(sources, missing, cache))
            result = self._call("staged", told, **common, **self._upload(bundles))
            if result.pop("missing", []):
                raise AnsibleActionFail("code that was on the host vanished meanwhile; run again")
        if not (result.get("failed") or self._task.check_mode):
            arrivals.note(wanted)
        for name, app in result.get("apps", {}).items():
            app["revision"] = sources[name].revision
        staged = _staged(result)
        result["hooks"] = kinds(releases, staged)
        result["watch"] = [one["name"] for one in releases if one["name"] in staged and one["watch"]]
        return result

    def _run_hooks(
        self, kind: str, releases: list[dict[str, Any]], staged: Mapping[str, Any], fleet: str | None
    ) -> dict[str, Any]:
        apps = _staged(staged)
        chosen = [one for one in releases if one["name"] in apps and one["hooks"][kind]]
        if kind == "migrate":
            chosen = [one for one in chosen if self._is_first(one["name"], str(fleet))]
        if not chosen or self._task.check_mode:
            return {"changed": bool(chosen), "skipped": not chosen, "apps": {}}
        return self._call("hooked", chosen, staged=apps, hook=kind)

    def _is_first(self, app: str, fleet: str) -> bool:
        """Whether this host is the first of the play that staged an app; earlier batches count."""
        everywhere = self._vars["hostvars"]
        for host in self._vars["ansible_play_hosts_all"]:
            if host == self._vars["inventory_hostname"]:
                return True
            if app in _staged(everywhere[host].get(fleet) or {}):
                return False
        return True

    def _watch(self, releases: list[dict[str, Any]], switched: Mapping[str, Any]) -> dict[str, Any]:
        live = _switched(switched)
        chosen = [one for one in releases if one["name"] in live and one["watch"]]
        if not chosen or self._task.check_mode:
            return {"changed": False, "skipped": not chosen, "apps": {}}
        elapsed = max(time.monotonic() - float(switched.get("ended", time.monotonic())), 0.0)
        return self._call("watched", chosen, staged=live, elapsed=elapsed)

    def _switch_back(
        self, releases: list[dict[str, Any]], switched: Mapping[str, Any], fleet: str
    ) -> dict[str, Any]:
        """Leave what got into trouble on another host; where it did, that host has done so itself."""
        live = _switched(switched)
        own: dict[str, str] = {}
        others: dict[str, str] = {}
        for host in self._vars["ansible_play_hosts_all"]:
            for name, app in ((self._vars["hostvars"][host].get(fleet) or {}).get("apps") or {}).items():
                if app.get("trouble"):
                    (own if host == self._vars["inventory_hostname"] else others)[name] = (
                        f"on {host}: {app['trouble']}"
                    )
        chosen = [
            one for one in releases if one["name"] in live and one["name"] in others.keys() - own.keys()
        ]
        if not chosen or self._task.check_mode:
            return {"changed": bool(chosen), "skipped": not chosen, "apps": {}}
        return self._call("watched", chosen, staged=live, why=others)

    def _withdraw(self, releases: list[dict[str, Any]], staged: Mapping[str, Any]) -> dict[str, Any]:
        if not releases or self._task.check_mode:
            return {"changed": False, "apps": {}}
        return self._call("withdrawn", releases, staged=_staged(staged))

    def _go_back(self, releases: list[dict[str, Any]], to: str, app: str, at_once: bool) -> dict[str, Any]:
        """Stage what is on the host already. Nothing is read or fetched here."""
        names = [release["name"] for release in releases]
        if len(names) > 1 and not app:
            raise AnsibleActionFail(
                f"this host has several apps ({', '.join(names)}); "
                f"say which one goes back, as in -e app={names[0]}"
            )
        chosen = [release for release in releases if app in ("", release["name"])]
        if not chosen and app and not self._has_another_host(app):
            raise AnsibleActionFail(
                f"there is no app {app!r}{suggestion(app, names)}; this host has: {', '.join(names)}"
            )
        if not chosen:
            return {"changed": False, "apps": {}, "hooks": []}
        told = [{**one, "source": NO_SOURCE} for one in chosen]
        result = self._call("staged", told, to=to, activate=at_once)
        result["hooks"] = kinds(releases, _staged(result))
        return result

    def _has_another_host(self, app: str) -> bool:
        everywhere = self._vars["hostvars"]
        return any(
            one.get("name") == app
            for host in self._vars["ansible_play_hosts_all"]
            for one in everywhere[host].get("flask_apps") or ()
        )

    def _place(self) -> list[str]:
        """What tells this host from others, and from another one that gets its name."""
        connection = self._connection
        names = ("host", "remote_addr", "port")
        known = [connection.get_option(name) for name in names if connection.has_option(name)]
        return [str(one) for one in (self._vars["inventory_hostname"], connection.transport, *known)]

    def _upload(self, bundles: Mapping[str, Path]) -> dict[str, Any]:
        """Arguments that bring the bundles to the host: inline, or as files when they are big."""
        if not bundles:
            return {}
        if _size(bundles) <= INLINE_LIMIT:
            return {
                "bundles": {
                    digest: base64.b64encode(path.read_bytes()).decode() for digest, path in bundles.items()
                }
            }
        folder = self._make_tmp_path()
        files = {}
        for digest, path in bundles.items():
            files[digest] = self._connection._shell.join_path(folder, f"{digest}.tar.gz")
            self._transfer_file(str(path), files[digest])
        return {"bundle_files": files}

    def _activate(self, releases: list[dict[str, Any]], staged: Mapping[str, Any]) -> dict[str, Any]:
        apps = {name: app for name, app in (staged.get("apps") or {}).items() if app.get("staged")}
        if not apps or self._task.check_mode:
            return {"changed": bool(apps), "apps": apps}
        chosen = [release for release in releases if release["name"] in apps]
        strange = sorted(set(apps) - {release["name"] for release in chosen})
        if strange:
            raise AnsibleActionFail(f"{', '.join(strange)}: staged, but not among the releases to activate")
        result = self._call(
            "active",
            chosen,
            staged={name: app["release"] for name, app in apps.items()},
            spent={name: app.get("seconds", {}) for name, app in apps.items()},
        )
        for name, app in result.get("apps", {}).items():
            app["revision"] = apps[name].get("revision", "")
        result["ended"] = time.monotonic()  # on the controller; a watch looks back so far
        return result

    def _call(self, state: str, releases: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        told = releases if state == "staged" else [{**one, "source": NO_SOURCE} for one in releases]
        arguments = {"state": state, "releases": told, "deployer": _deployer(), **more}
        return lean.run(self, MODULE, arguments, self._vars)


def kinds(releases: Iterable[Mapping[str, Any]], staged: Mapping[str, str]) -> list[str]:
    """The kinds of hooks that staged apps have; what none has costs the play no round trip."""
    return [kind for kind in HOOKS if any(one["hooks"][kind] for one in releases if one["name"] in staged)]


def _staged(result: Mapping[str, Any]) -> dict[str, str]:
    """The releases that wait for their switch, by app."""
    apps = result.get("apps") or {}
    return {name: app["release"] for name, app in apps.items() if app.get("staged")}


def _switched(result: Mapping[str, Any]) -> dict[str, str]:
    """The releases that were switched to, by app."""
    apps = result.get("apps") or {}
    return {name: app["release"] for name, app in apps.items() if app.get("changed") and app.get("release")}


def _waits(release: Mapping[str, Any]) -> bool:
    """Whether something has to happen between the gate and the end of a deploy of this app."""
    return bool(release.get("watch")) or any(release["hooks"][kind] for kind in HOOKS)


def _packed(sources: Mapping[str, Source], digests: Collection[str], cache: Path) -> dict[str, Path]:
    """The bundles of these digests."""
    try:
        return {one.digest: one.bundle(cache) for one in sources.values() if one.digest in digests}
    except SourceFailure as error:
        raise AnsibleActionFail(str(error)) from error


def _size(bundles: Mapping[str, Path]) -> int:
    return sum(path.stat().st_size for path in bundles.values())


def _deployer() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"
