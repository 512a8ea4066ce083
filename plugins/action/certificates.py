# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Controller side of flaskworks.server.certificates: ask the host, decide here, sign here, install there."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.parsing.vault import AnsibleVaultError
from ansible.plugins.action import ActionBase
from ansible_collections.flaskworks.server.plugins.module_utils.key_pairs import OPTIONS
from ansible_collections.flaskworks.server.plugins.plugin_utils import authority as ca
from ansible_collections.flaskworks.server.plugins.plugin_utils import certificate_review as cr


class ActionModule(ActionBase):
    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _result, self._given = self.validate_argument_spec(argument_spec=OPTIONS)
        self._task_vars = task_vars
        try:
            return self._provide()
        except ca.AuthorityError as error:
            raise AnsibleActionFail(str(error)) from None

    def _provide(self) -> dict[str, Any]:
        wanted = {str(element["name"]): element for element in self._given["certificates"]}
        cr.check_wanted(self._given["certificates"])
        if not wanted:
            return {"changed": False, "changes": {}, "certificates": {}}
        now = datetime.now(UTC)
        directory = Path(self._given["authority"])
        bundles = {
            name: self._bundle(element, now)
            for name, element in wanted.items()
            if element["provider"] == "provided"
        }
        self_signed = [name for name, element in wanted.items() if element["provider"] == "self_signed"]
        authority = ca.find(directory) if self_signed else None
        found = self._ask("inspect", wanted)
        reviews = {
            name: cr.review(element, found["pairs"][name], authority, bundles.get(name), now)
            for name, element in wanted.items()
        }
        replaced = [name for name in wanted if reviews[name].reason]
        issued = [name for name in replaced if name in self_signed]
        stand_ins = [name for name in replaced if wanted[name]["provider"] == "acme"]
        exposed = [name for name in wanted if reviews[name].exposures]

        chains: dict[str, Any] = {name: bundles[name].chain for name in replaced if name in bundles}
        self._check_permitted({name: wanted[name] for name in issued}, authority)
        if not self._task.check_mode:
            if issued:
                authority = ca.find_or_create(directory, self._given["permitted_domains"], now)
                chains |= self._issue({name: wanted[name] for name in issued}, authority, now)
            if stand_ins:
                passing, key = ca.throwaway(now)
                chains |= self._issue({name: wanted[name] for name in stand_ins}, passing, now, key)
            if replaced or exposed or found["pending"] or found["leftovers"]:
                self._install(wanted, chains, bundles, found["leftovers"])

        changes = {
            name: self._change(reviews[name], wanted[name], chains, now)
            for name in wanted
            if name in replaced or name in exposed
        }
        for name in found["leftovers"]:
            changes.setdefault(name, "is not renewed by ACME any more")
        live = {
            name: chains.get(name) or (() if name in replaced else reviews[name].chain) for name in wanted
        }
        result: dict[str, Any] = {
            "changed": bool(changes or found["pending"]),
            "changes": changes,
            "certificates": {name: cr.facts(chain, now) for name, chain in live.items() if chain},
        }
        if found["pending"] and not replaced:
            result["msg"] = "what an interrupted run still owed to the system was done"
        if self_signed:
            result["authority"] = {
                "path": str(directory / "ca.pem"),
                "created": authority is None or authority.created,
            }
            if authority:
                result["authority"]["expires"] = (
                    f"{authority.certificate.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}"
                )
        if warnings := self._soon(wanted, bundles, now):
            result["warnings"] = warnings
        if self._task.diff:
            issuer = ca.common_name(authority.certificate.subject) if authority else "a new authority"
            result["diff"] = [
                self._diff(reviews[name], wanted[name], live[name], issuer, now)
                for name in changes
                if name in wanted
            ]
        return result

    def _ask(
        self,
        step: str,
        wanted: Mapping[str, Any],
        materials: list[dict[str, Any]] | None = None,
        retired: Sequence[str] = (),
    ) -> dict[str, Any]:
        """One round trip. The host learns where the pairs live, and only what it is to install."""
        keys = ("name", "domains", "provider", "directory")
        answer: dict[str, Any] = self._execute_module(
            module_name="flaskworks.server.certificates",
            module_args={
                "certificates": [{key: element[key] for key in keys} for element in wanted.values()],
                "authority": str(self._given["authority"]),
                "apply": self._given["apply"],
                "step": step,
                "materials": materials or [],
                "retired": list(retired),
            },
            task_vars=self._task_vars,
        )
        if answer.get("failed") or answer.get("unreachable"):
            words = answer.get("msg", "the host gave no reason")
            raise AnsibleActionFail(
                str(words), result={key: answer[key] for key in ("unreachable", "exception") if key in answer}
            )
        return answer

    def _check_permitted(self, wanted: Mapping[str, Any], authority: ca.Authority | None) -> None:
        permitted = self._given["permitted_domains"]
        for name, element in wanted.items():
            if authority:
                ca.check_permitted(authority, name, element["domains"])
            elif refused := [domain for domain in element["domains"] if not ca.permits(permitted, domain)]:
                raise ca.AuthorityError(
                    f"{name}: {', '.join(refused)} is not below any of permitted_domains "
                    f"({', '.join(permitted)}); add it there"
                )

    def _issue(
        self, wanted: Mapping[str, Any], authority: ca.Authority, now: datetime, key: Any = None
    ) -> dict[str, Any]:
        # The key first: without it nothing can be issued, and the host need not be asked.
        key = key or ca.signing_key(authority.directory, self._read)
        requests = self._ask("prepare", wanted)["requests"]
        return {
            name: ca.parse_chain(
                ca.issue(
                    authority, key, requests[name], name, element["domains"], days=element["days"], now=now
                )
            )
            for name, element in wanted.items()
        }

    def _install(
        self,
        wanted: Mapping[str, Any],
        chains: Mapping[str, Any],
        bundles: Mapping[str, ca.Bundle],
        retired: Sequence[str],
    ) -> None:
        materials = [
            {
                "name": name,
                "fullchain": ca.pem(chain),
                "privkey": bundles[name].privkey if name in bundles else None,
            }
            for name, chain in chains.items()
        ]
        self._ask("install", wanted, materials, retired)

    def _bundle(self, wanted: Mapping[str, Any], now: datetime) -> ca.Bundle:
        name, provided = wanted["name"], wanted["provided"]
        fullchain, privkey = (self._text(name, key, str(provided[key])) for key in ("fullchain", "privkey"))
        return ca.check_provided(name, fullchain, privkey, wanted["domains"], now)

    def _text(self, name: str, key: str, value: str) -> str:
        if "-----BEGIN" in value:
            return value
        try:
            return self._read(Path(self._find_needle("files", os.path.expanduser(value))))
        except (AnsibleError, OSError) as error:
            raise ca.AuthorityError(
                f"{name}: provided.{key} {value} cannot be read on the controller: {error}"
            ) from None

    def _read(self, path: Path) -> str:
        """A file of the controller, decrypted if it is vaulted."""
        try:
            return str(self._loader.get_text_file_contents(str(path)))
        except AnsibleVaultError as error:
            raise ca.AuthorityError(
                f"{path} is vaulted and cannot be opened ({error}); "
                "run with --ask-vault-pass, or name the right password file"
            ) from None

    @staticmethod
    def _change(
        review: cr.Review, wanted: Mapping[str, Any], chains: Mapping[str, Any], now: datetime
    ) -> str:
        if not review.reason:
            return "permissions corrected"
        chain = chains.get(review.name)
        until = cr.facts(chain, now)["expires"][:10] if chain else cr.until(wanted, now)
        if wanted["provider"] == "acme":
            done = "a stand-in that nobody trusts, until ACME issues"
        elif wanted["provider"] == "provided":
            done = f"installed until {until}"
        else:
            done = f"{'issued' if not review.chain else 'issued again'} until {until}"
        return f"{done} (the old one {review.reason})" if review.chain else done

    @staticmethod
    def _soon(wanted: Mapping[str, Any], bundles: Mapping[str, ca.Bundle], now: datetime) -> list[str]:
        """Provided certificates that nobody but the operator can renew."""
        days = {name: cr.facts(bundle.chain, now)["days"] for name, bundle in bundles.items()}
        return [
            f"{name}: the provided certificate expires in {left} days; put a newer one in its place"
            for name, left in days.items()
            if left < wanted[name]["renew_before"]
        ]

    @staticmethod
    def _diff(
        review: cr.Review, wanted: Mapping[str, Any], live: Any, issuer: str, now: datetime
    ) -> dict[str, str]:
        after = cr.describe(live) if live else cr.expected(wanted, issuer, now)
        return {
            "before_header": wanted["directory"],
            "after_header": wanted["directory"],
            "before": cr.describe(review.chain, review.fault, review.exposures),
            "after": after,
        }
