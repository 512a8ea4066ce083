# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Controller side of flaskworks.server.status: the host learns of its apps only what it has to ask."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.flaskworks.server.plugins.plugin_utils import lean

MODULE = "flaskworks.server.status"


class ActionModule(ActionBase):
    """Ask the host."""

    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        lists = {"type": "list", "elements": "dict", "required": True}
        _validated, given = self.validate_argument_spec(
            {"releases": lists, "sites": lists, "certificates": {**lists, "required": False, "default": []}}
        )
        # An app that is mounted below a prefix is shown with the certificate of the site that it is part of.
        owners = {app["name"]: site for site in given["sites"] for app in (site, *site.get("mounts", ()))}
        sources = {one["name"]: one for one in given["certificates"]}
        asked = {
            "releases": given["releases"],
            "sites": [
                {
                    "name": name,
                    "domains": site["domains"],
                    "https_port": site["https_port"],
                    "certificate": {"fullchain": site["certificate"]["fullchain"]},
                }
                for name, site in owners.items()
            ],
        }
        result = lean.run(self, MODULE, asked, task_vars or {})
        for name, told in (result.get("apps") or {}).items():
            source = sources.get(owners[name]["name"], {})
            told.update({key: source.get(key) for key in ("provider", "renew_before")})
        return result
