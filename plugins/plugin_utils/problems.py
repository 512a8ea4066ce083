# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is wrong with the description, on all hosts at once."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.flaskworks.server.plugins.filter.plan import plan
from ansible_collections.flaskworks.server.plugins.plugin_utils.description import suggestion
from ansible_collections.flaskworks.server.plugins.plugin_utils.plan import GOOD_KEY
from ansible_collections.flaskworks.server.plugins.plugin_utils.systemd import unusable

VARIABLES = ("flask_apps", "flask_defaults", "flask_secrets", "flask_proxy", "flask_ports_conflict")
"""The variables that make the description of a host."""

_CHOICES = {"flask_proxy": ("nginx", "apache"), "flask_ports_conflict": ("fail", "take_over")}

SHORTEST_KEY = 32
"""Characters that a SECRET_KEY has at least: 128 bits in hexadecimal digits."""

LEAST_VARIETY = 20
"""Different groups of three characters that a SECRET_KEY has at least; 32 digits by chance have 25."""

FALLBACKS = "SECRET_KEY_FALLBACKS"
"""The secret that is a list: keys that signed before, see Flask's configuration."""


def problems(hosts: Sequence[str], hostvars: Mapping[str, Any], secrets: bool = True) -> list[str]:
    """Return the mistakes in the descriptions of `hosts`, each once, as sentences.

    `hostvars` are the variables by host, as Ansible has them. With `secrets` every secret must have a value.
    """
    found: dict[str, list[str]] = {}
    for host in hosts:
        for sentence in _problems(hostvars[host], secrets):
            found.setdefault(sentence, []).append(host)
    together = [] if found or not secrets else _problems_of_differing_keys(hosts, hostvars)
    return together + [
        sentence if len(affected) == len(hosts) else f"{sentence} (on {', '.join(affected)})"
        for sentence, affected in found.items()
    ]


def weakness(key: str) -> str | None:
    """What makes a SECRET_KEY one that can be guessed, as the rest of a sentence; None when nothing does."""
    if len(key) < SHORTEST_KEY:
        return f"has {len(key)} characters, and a key of less than {SHORTEST_KEY} can be guessed; {GOOD_KEY}"
    if len({key[begin : begin + 3] for begin in range(len(key) - 2)}) < LEAST_VARIETY:
        return f"repeats itself, and such a key can be guessed; {GOOD_KEY}"
    return None


def _problems(variables: Mapping[str, Any], secrets: bool) -> list[str]:
    if "flask_apps" not in variables:
        return [
            "flask_apps: is not defined; describe the apps in the inventory, in group_vars/flask/apps.yml"
        ]
    values = (variables.get("flask_secrets") or {}) if secrets else None
    found = _problems_of_choices(variables)
    try:
        resolved = plan(variables["flask_apps"], variables.get("flask_defaults"), None, values)
    except AnsibleFilterError as error:
        return found + str(error).split("\n")
    files = {service["name"] for service in resolved["services"] if service["credentials"]}
    return found + _problems_of_values(values or {}, files)


def _problems_of_choices(variables: Mapping[str, Any]) -> list[str]:
    """Tell which words for a whole host are not known."""
    found = []
    for name, known in _CHOICES.items():
        value = str(variables.get(name, known[0]))
        if value not in known:
            hint = suggestion(value, known) or f"; it is one of {', '.join(known)}"
            found.append(f"{name}: '{value}' is not known{hint}")
    return found


def _problems_of_values(secrets: Mapping[str, Mapping[str, Any]], files: Collection[str]) -> list[str]:
    """Tell which secrets an app could not be given. A sentence names a secret and never shows it.

    Apps in `files` have them as files, where a line break does no harm.
    """
    found = []
    for app, values in secrets.items():
        for name, value in values.items():
            if name == FALLBACKS:
                found += _problems_of_fallbacks(app, value, values.get("SECRET_KEY"))
                continue
            if not isinstance(value, str):
                reason: str | None = "is not a text; put its value in quotes"
            elif not value:
                way = GOOD_KEY if name == "SECRET_KEY" else "give it a value (ansible-vault edit)"
                reason = f"is empty; {way}"
            else:
                reason = None if app in files and name != "SECRET_KEY" else unusable(value)
                reason = reason or (weakness(value) if name == "SECRET_KEY" else None)
            if reason:
                found.append(f"flask_secrets.{app}.{name}: {reason}")
    return found


def _problems_of_fallbacks(app: str, keys: object, signs: object) -> list[str]:
    """Tell which keys no session should be believed for. Who guesses one of them makes sessions."""
    where = f"flask_secrets.{app}.{FALLBACKS}"
    if not isinstance(keys, list):
        return [f"{where}: must be a list of keys that signed before, as in ['…']"]
    found = []
    for number, key in enumerate(keys, 1):
        if not isinstance(key, str):
            reason: str | None = "is not a text; put its value in quotes"
        elif key == signs:
            reason = "is SECRET_KEY itself; keep only what signed before it"
        elif key in keys[: number - 1]:
            reason = "is there twice; remove one of them"
        else:
            reason = unusable(key) or weakness(key)
        if reason:
            found.append(f"{where}: key {number} {reason}")
    return found


def _problems_of_differing_keys(hosts: Sequence[str], hostvars: Mapping[str, Any]) -> list[str]:
    """Tell which apps have not the same SECRET_KEY, and the same keys before it, on all of their hosts."""
    holders: dict[str, dict[str, list[str]]] = {}
    for host in hosts:
        for app in hostvars[host]["flask_apps"]:
            values = (hostvars[host].get("flask_secrets") or {}).get(app["name"], {})
            said = {FALLBACKS: "\n".join(str(key) for key in values.get(FALLBACKS) or ())}
            if values.get("SECRET_KEY") is not None:
                said["SECRET_KEY"] = str(values["SECRET_KEY"])
            for name, value in said.items():
                holders.setdefault(f"{app['name']}.{name}", {}).setdefault(value, []).append(host)
    return [
        f"flask_secrets.{secret}: differs between "
        f"{' and '.join(', '.join(each) for each in keys.values())}; a session that begins on one "
        f"ends on another, so give all hosts {'one list' if secret.endswith(FALLBACKS) else 'one key'}, "
        "in group_vars"
        for secret, keys in holders.items()
        if len(keys) > 1
    ]
