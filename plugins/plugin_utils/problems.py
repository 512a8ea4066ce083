# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is wrong with the description, on all hosts at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.flaskworks.server.plugins.filter.plan import plan
from ansible_collections.flaskworks.server.plugins.plugin_utils.description import suggestion
from ansible_collections.flaskworks.server.plugins.plugin_utils.systemd import unusable

VARIABLES = ("flask_apps", "flask_defaults", "flask_secrets", "flask_proxy", "flask_ports_conflict")
"""The variables that make the description of a host."""

_CHOICES = {"flask_proxy": ("nginx", "apache"), "flask_ports_conflict": ("fail", "take_over")}


def problems(hosts: Sequence[str], hostvars: Mapping[str, Any], secrets: bool = True) -> list[str]:
    """Return the mistakes in the descriptions of `hosts`, each once, as sentences.

    `hostvars` are the variables by host, as Ansible has them. With `secrets` every secret must have a value.
    """
    found: dict[str, list[str]] = {}
    for host in hosts:
        for sentence in _problems(hostvars[host], secrets):
            found.setdefault(sentence, []).append(host)
    return [
        sentence if len(affected) == len(hosts) else f"{sentence} (on {', '.join(affected)})"
        for sentence, affected in found.items()
    ]


def _problems(variables: Mapping[str, Any], secrets: bool) -> list[str]:
    if "flask_apps" not in variables:
        return [
            "flask_apps: is not defined; describe the apps in the inventory, in group_vars/flask/apps.yml"
        ]
    values = (variables.get("flask_secrets") or {}) if secrets else None
    found = _problems_of_choices(variables)
    try:
        plan(variables["flask_apps"], variables.get("flask_defaults"), None, values)
    except AnsibleFilterError as error:
        return found + str(error).split("\n")
    return found + _problems_of_values(values or {})


def _problems_of_choices(variables: Mapping[str, Any]) -> list[str]:
    """Tell which words for a whole host are not known."""
    found = []
    for name, known in _CHOICES.items():
        value = str(variables.get(name, known[0]))
        if value not in known:
            hint = suggestion(value, known) or f"; it is one of {', '.join(known)}"
            found.append(f"{name}: '{value}' is not known{hint}")
    return found


def _problems_of_values(secrets: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Tell which secrets an app could not be given. A sentence names a secret and never shows it."""
    found = []
    for app, values in secrets.items():
        for name, value in values.items():
            if not isinstance(value, str):
                reason: str | None = "is not a text; put its value in quotes"
            else:
                reason = unusable(value) if value else "is empty; give it a value (ansible-vault edit)"
            if reason:
                found.append(f"flask_secrets.{app}.{name}: {reason}")
    return found
