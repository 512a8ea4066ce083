# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The filter flaskworks.server.acme_orders: what the module acme gets to know of each certificate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

DOCUMENTATION = r"""
---
name: acme_orders
author: the flaskworks.server contributors
version_added: 0.1.0
short_description: Certificates of the role tls, as the module acme takes them
description:
  - Leaves away what only the controller needs, and puts the keys of an external account and of a name server
    in the place of their names.
positional: secrets
options:
  _input:
    description: The certificates whose provider is V(acme).
    type: list
    elements: dict
    required: true
  secrets:
    description: Values of secrets, by certificate and name.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Have certificates issued
  flaskworks.server.acme:
    certificates: "{{ certificates | flaskworks.server.acme_orders(flask_secrets) }}"
"""

RETURN = r"""
_value:
  description: The certificates as M(flaskworks.server.acme) takes them.
  type: list
  elements: dict
"""


def acme_orders(
    certificates: Sequence[Mapping[str, Any]], secrets: Mapping[str, Mapping[str, str]]
) -> list[dict[str, Any]]:
    """Return the `certificates` of the module.

    Raises:
        AnsibleFilterError: when a secret has no value.
    """
    return [
        {
            "name": certificate["name"],
            "domains": certificate["domains"],
            "directory": certificate["directory"],
            "acme": _order(certificate["name"], certificate["acme"], secrets),
        }
        for certificate in certificates
    ]


def _order(name: str, acme: Mapping[str, Any], secrets: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    account, dns = acme.get("eab") or {}, acme.get("dns") or {}
    return {
        "directory": acme["directory"],
        "email": acme.get("email"),
        "profile": acme.get("profile"),
        "kid": account.get("kid"),
        "hmac": _value(name, account, secrets) if account.get("kid") else None,
        "dns": {**dns, "secret": _value(name, dns, secrets)} if dns.get("server") else None,
        "reachable": acme.get("reachable", True),
        "webroot": acme["webroot"],
        "https_port": acme["https_port"],
    }


def _value(name: str, given: Mapping[str, Any], secrets: Mapping[str, Mapping[str, str]]) -> str:
    value = secrets.get(name, {}).get(str(given.get("secret")))
    if not value:
        raise AnsibleFilterError(
            f"{name}: secret {given.get('secret')} has no value; add it to tls_secrets.{name}"
        )
    return value


class FilterModule:
    """Filters of the collection."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"acme_orders": acme_orders}
