#!/usr/bin/python
# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Provide a TLS key pair at a fixed path for every certificate in the list."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: certificates
short_description: Provide a TLS key pair for every site
version_added: "0.1.0"
author: flaskworks.server contributors
description:
  - Makes sure that a valid private key and certificate chain exist for every certificate in the list, in
    at most three
    round trips to the host whatever their number, and in one when all of them are good.
  - Self-signed certificates are issued by one authority per inventory. It lives on the controller; its key
    never goes to a host.
    Private keys are made on the host and never leave it.
  - Provided pairs are read on the controller and checked there before anything on the host is touched.
  - O(certificates[].directory) is a symlink that is switched from one complete pair to the next in one
    step. The pair that
    was live before stays beside it.
options:
  certificates:
    description: The certificates of this host.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the certificate, the same as the app's.
        type: str
        required: true
      domains:
        description: Every name the certificate must cover. The first one becomes its subject.
        type: list
        elements: str
        required: true
      provider:
        description:
          - V(self_signed) is issued by the inventory's own authority.
          - V(provided) is read from O(certificates[].provided).
          - V(acme) is left to M(flaskworks.server.acme). Where there is no pair at all, it gets a stand-in
            that nobody trusts, so that a server can start.
        type: str
        choices: [self_signed, provided, acme]
        default: self_signed
      directory:
        description: Path on the host that leads to the live pair, fullchain.pem and privkey.pem. It
          becomes a symlink.
        type: path
        required: true
      fullchain:
        description: Where the chain is expected. When set it must be fullchain.pem in
          O(certificates[].directory).
        type: path
      privkey:
        description: Where the private key is expected. When set it must be privkey.pem in
          O(certificates[].directory).
        type: path
      days:
        description: Days that a self-signed certificate is valid.
        type: int
        default: 90
      renew_before:
        description: A self-signed certificate is replaced when it has fewer days left than this.
        type: int
        default: 30
      provided:
        description: The pair to install, for provider V(provided).
        type: dict
        suboptions:
          fullchain:
            description: Path on the controller, or PEM text, of the certificate followed by its
              intermediates. The file may be vaulted.
            type: str
          privkey:
            description: Path on the controller, or PEM text, of the private key. The file may be vaulted.
            type: str
      acme:
        description: What M(flaskworks.server.acme) needs. Not read here.
        type: dict
  authority:
    description:
      - Directory on the controller with ca.pem, which clients trust, and ca.key, which signs. Made when it
        is missing and needed.
      - ca.key may be a file encrypted with ansible-vault.
    type: path
    required: true
  permitted_domains:
    description:
      - Domains, with everything below them, that a new authority is limited to. Who trusts it then trusts
        it for nothing else.
      - Empty means no limit. Has no effect on an authority that exists.
    type: list
    elements: str
    default: []
  apply:
    description:
      - Commands, each a list of arguments, run on the host after a pair was replaced.
      - Repeated by the next run when they failed or the run was killed.
    type: list
    elements: list
    default: []
  step:
    description: Set by the action plugin, the part that the host is asked for.
    type: str
    choices: [inspect, prepare, install]
    default: inspect
  materials:
    description: Set by the action plugin, the chains and provided keys to install.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the certificate.
        type: str
        required: true
      fullchain:
        description: PEM text of the chain.
        type: str
        required: true
      privkey:
        description: PEM text of the provided private key.
        type: str
  retired:
    description: Set by the action plugin, names whose certificates ACME is not to renew any more.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    description: Tells what would change, without creating an authority or a key.
    support: full
  diff_mode:
    description: Shows subject, names, issuer, expiry and faults before and after, never a key.
    support: full
notes:
  - The controller needs the Python package cryptography, which ansible-core requires anyway.
  - The host needs the command openssl when a private key is made.
"""

EXAMPLES = r"""
---
- name: Provide a key pair for two sites
  flaskworks.server.certificates:
    authority: "{{ inventory_dir }}/.tls"
    certificates:
      - name: hello
        domains: [hello.example.org, www.hello.example.org]
        directory: /etc/flask/tls/hello
      - name: reports
        domains: [reports.example.org]
        directory: /etc/flask/tls/reports
        provider: provided
        provided:
          fullchain: "{{ inventory_dir }}/files/reports.pem"
          privkey: "{{ inventory_dir }}/files/reports.key"
    apply:
      - [systemctl, reload, nginx.service]
"""

RETURN = r"""
---
changes:
  description: What was done, by certificate; nothing is said of those that were good.
  returned: success
  type: dict
  sample: {hello: issued until 2027-02-18}
certificates:
  description: Every certificate as it is now.
  returned: success
  type: dict
  sample:
    hello:
      days: 90
      expires: "2027-02-18T09:30:00Z"
      issuer: demo authority 3f2a90c1
      domains: [hello.example.org, www.hello.example.org]
authority:
  description: The authority, when a certificate is self-signed.
  returned: success
  type: dict
  sample: {path: inventories/demo/.tls/ca.pem, created: true, expires: "2036-11-17T09:30:00Z"}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.flaskworks.server.plugins.module_utils import acme, key_pairs

INTERNAL = {
    "step": {"type": "str", "choices": ["inspect", "prepare", "install"], "default": "inspect"},
    "materials": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "name": {"type": "str", "required": True},
            "fullchain": {"type": "str", "required": True},
            "privkey": {"type": "str", "no_log": True},
        },
    },
    "retired": {"type": "list", "elements": "str", "default": []},
}


def main() -> None:
    module = AnsibleModule(argument_spec=key_pairs.OPTIONS | INTERNAL, supports_check_mode=True)
    step = "inspect" if module.check_mode else module.params["step"]
    pairs = [
        key_pairs.Pair(element["name"], element["directory"]) for element in module.params["certificates"]
    ]
    try:
        if step == "prepare":
            module.exit_json(changed=True, requests=key_pairs.prepare(pairs))
        if step == "install":
            install(module, pairs)
        module.exit_json(
            changed=False,
            pairs={pair.name: key_pairs.inspect(pair) for pair in pairs},
            pending=key_pairs.pending(pairs).is_set(),
            leftovers=acme.leftovers(
                element["name"] for element in module.params["certificates"] if element["provider"] == "acme"
            ),
        )
    except key_pairs.PairError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"certificates: {error.filename}: {error.strerror}; the task needs become")


def install(module: AnsibleModule, pairs: list[key_pairs.Pair]) -> None:
    named = {pair.name: pair for pair in pairs}
    materials = [
        key_pairs.Material(named[given["name"]], given["fullchain"], given["privkey"])
        for given in module.params["materials"]
    ]
    pending = key_pairs.pending(pairs)
    if materials and module.params["apply"]:
        pending.set("key pairs were changed; the system was not told yet")
    # First: a renewal that comes between must not replace the new pair.
    for name in module.params["retired"]:
        acme.retire(name)
    switched, previous = key_pairs.install(materials)
    key_pairs.protect(pairs)
    if pending.is_set():
        key_pairs.apply(pending, module.params["apply"])
    removed = key_pairs.prune([named[name] for name in switched], previous)
    module.exit_json(changed=True, switched=switched, removed=removed)


if __name__ == "__main__":
    main()
