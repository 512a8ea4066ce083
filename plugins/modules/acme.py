#!/usr/bin/python
# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Have certificates issued by an authority that speaks ACME, and served by the running proxy."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: acme
short_description: Have certificates issued by ACME, and served by the running proxy
version_added: "0.1.0"
author: flaskworks.server contributors
description:
  - Asks a certificate authority for what is missing, by certbot, and makes it live at the fixed path of the
    certificate. One call for all certificates of a host.
  - An authority is asked only when there is no certificate yet, its names or its authority have changed, or
    it has expired. Renewal is left to the timer of certbot.
  - Before that, the host fetches a proof from itself under each name, as the authority will. A name that
    leads elsewhere is told in words, and the authority is not asked. Not so where a name server takes the
    proof.
  - What cannot be issued is returned and does not fail the task. The site keeps the certificate that it has.
options:
  certificates:
    description: The certificates of this host that come from ACME, as the role tls takes them.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the certificate, the same as the app's.
        type: str
        required: true
      domains:
        description: Every name the certificate must cover.
        type: list
        elements: str
        required: true
      directory:
        description: Path on the host that leads to the live pair, as in M(flaskworks.server.certificates).
        type: path
        required: true
      acme:
        description: How it is asked for.
        type: dict
        required: true
        suboptions:
          directory:
            description: Address of the authority's directory.
            type: str
            required: true
          email:
            description: Where the authority may write to.
            type: str
          profile:
            description: Profile that is preferred.
            type: str
          kid:
            description: Key identifier of the external account.
            type: str
          hmac:
            description: HMAC key of the external account, in base64url.
            type: str
          dns:
            description: The name server that takes proofs. The others are asked for over HTTP.
            type: dict
            suboptions:
              server:
                description: Its address.
                type: str
              port:
                description: Its port.
                type: int
                required: true
              key:
                description: Name of the key that signs.
                type: str
              algorithm:
                description: Algorithm of the key.
                type: str
                required: true
              secret:
                description: The key, in base64.
                type: str
              wait:
                description: Seconds until the whole zone knows a proof.
                type: int
                required: true
          reachable:
            description: Whether the host can fetch from itself under its own names.
            type: bool
            default: true
          webroot:
            description: Directory in which the proxy looks for proofs.
            type: path
            required: true
          https_port:
            description: Port on which the proxy must show the certificate.
            type: int
            required: true
  profiles:
    description: Whether the host's certbot can ask for a profile (since 4.0).
    type: bool
    default: true
attributes:
  check_mode:
    description: Tells what would be asked for, and asks nobody.
    support: full
  diff_mode:
    description: Has none; M(flaskworks.server.certificates) shows what is live.
    support: none
notes:
  - The host needs certbot and openssl, and the hook that the role tls installs.
"""

EXAMPLES = r"""
---
- name: Have a certificate issued
  flaskworks.server.acme:
    certificates:
      - name: hello
        domains: [hello.example.org, www.hello.example.org]
        directory: /etc/flask/tls/hello
        acme:
          directory: https://acme-v02.api.letsencrypt.org/directory
          email: ops@example.org
          webroot: /var/lib/flask/acme
          https_port: 443
"""

RETURN = r"""
---
changes:
  description: What was done, by certificate; nothing is said of those that were good.
  returned: success
  type: dict
  sample: {hello: issued because there is none yet}
problems:
  description: What could not be issued or is not served, each a sentence with the way out.
  returned: success
  type: list
  elements: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.flaskworks.server.plugins.module_utils import acme, acme_order

ARGUMENTS = {
    "certificates": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "name": {"type": "str", "required": True},
            "domains": {"type": "list", "elements": "str", "required": True},
            "directory": {"type": "path", "required": True},
            "acme": {
                "type": "dict",
                "required": True,
                "options": {
                    "directory": {"type": "str", "required": True},
                    "email": {"type": "str"},
                    "profile": {"type": "str"},
                    "kid": {"type": "str"},
                    "hmac": {"type": "str", "no_log": True},
                    "dns": {
                        "type": "dict",
                        "options": {
                            "server": {"type": "str"},
                            "port": {"type": "int", "required": True},
                            "key": {"type": "str", "no_log": False},
                            "algorithm": {"type": "str", "required": True},
                            "secret": {"type": "str", "no_log": True},
                            "wait": {"type": "int", "required": True},
                        },
                    },
                    "reachable": {"type": "bool", "default": True},
                    "webroot": {"type": "path", "required": True},
                    "https_port": {"type": "int", "required": True},
                },
            },
        },
    },
    "profiles": {"type": "bool", "default": True},
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    changes: dict[str, str] = {}
    problems: list[str] = []
    for element in module.params["certificates"]:
        wanted = acme.as_wanted(element)
        try:
            done = provide(module, wanted, element["acme"])
        except acme.AcmeError as error:
            problems.append(f"{error}. The site stays up with {acme.outlook(wanted.directory)}")
        except OSError as error:
            module.fail_json(msg=f"{wanted.name}: {error.filename}: {error.strerror}; the task needs become")
        else:
            changes |= {wanted.name: done} if done else {}
    module.exit_json(changed=bool(changes), changes=changes, problems=problems)


def provide(module: AnsibleModule, wanted: acme.Wanted, given: dict[str, Any]) -> str:
    """Have one certificate issued if need be, and served; what was done in words."""
    by_dns = bool(given["dns"] and given["dns"]["server"])
    settings = {"server": given["directory"], "authenticator": "dns-rfc2136" if by_dns else "webroot"}
    if by_dns:
        settings["dns_rfc2136_propagation_seconds"] = str(given["dns"]["wait"])
    profile = given["profile"] or ""
    if module.params["profiles"]:
        settings["preferred_profile"] = profile
    reason = acme.reason(wanted, settings)
    if module.check_mode:
        return f"would be issued because {reason}" if reason else ""
    if by_dns:
        noted = acme.keep_credentials(wanted.name, acme_order.credentials(given["dns"]))
    else:
        noted = acme.forget_credentials(wanted.name)
    if reason:
        if not by_dns:
            acme_order.make_webroot(given["webroot"])
            if given["reachable"] and (faults := acme_order.unreachable(wanted, given["webroot"])):
                raise acme.AcmeError("\n".join(faults))
        if profile and not module.params["profiles"]:
            module.warn(
                f"{wanted.name}: the certbot of this host cannot ask for the profile '{profile}' "
                "(Debian 13 can); the authority chooses"
            )
        acme_order.issue(
            acme_order.Order(
                wanted,
                given["directory"],
                given["webroot"],
                given["email"] or "",
                settings.get("preferred_profile", ""),
                given["kid"] or "",
                given["hmac"] or "",
                given["dns"]["wait"] if by_dns else 0,
            )
        )
    done = acme.deploy(wanted)
    if reason:
        return f"issued because {reason}"
    return done or ("what proves its names has changed" if noted else "")


if __name__ == "__main__":
    main()
