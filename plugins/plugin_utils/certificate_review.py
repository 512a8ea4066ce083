# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What each certificate of a host needs: compares what is wanted with what the host reported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from cryptography import x509

from .authority import Authority, AuthorityError, Bundle, common_name, issued_by, names_of, parse_chain

DAY = 86_400


@dataclass(frozen=True)
class Review:
    """One certificate: why it needs a new pair (empty: it does not), and what was found."""

    name: str
    reason: str
    chain: tuple[x509.Certificate, ...]
    fault: str
    exposures: tuple[str, ...]


def check_wanted(certificates: Sequence[Mapping[str, Any]]) -> None:
    """Refuse contradictions, all of them at once, before anything is asked of a host."""
    problems = []
    names = [certificate["name"] for certificate in certificates]
    problems += [
        f"{name}: is there twice; names are paths and must differ"
        for name in sorted(set(names))
        if names.count(name) > 1
    ]
    for wanted in certificates:
        name, directory = wanted["name"], wanted["directory"]
        if not wanted["domains"]:
            problems.append(f"{name}: domains is empty; name at least one")
        if not directory.startswith("/") or directory.endswith("/"):
            problems.append(
                f"{name}: directory {directory} must be an absolute path without a slash at its end"
            )
        for key in ("fullchain", "privkey"):
            if wanted[key] is not None and wanted[key] != f"{directory}/{key}.pem":
                problems.append(
                    f"{name}: {key} must be {directory}/{key}.pem, not {wanted[key]}; both files of a "
                    "pair live in one directory"
                )
        provided = wanted["provided"] or {}
        if wanted["provider"] == "provided":
            if not (provided.get("fullchain") and provided.get("privkey")):
                problems.append(
                    f"{name}: provider 'provided' needs provided.fullchain and provided.privkey, each a "
                    "path or PEM text"
                )
        elif not 0 < wanted["renew_before"] < wanted["days"]:
            problems.append(
                f"{name}: renew_before ({wanted['renew_before']} days) must be more than 0 and less than "
                f"days ({wanted['days']}), "
                "or every run would renew"
            )
    if problems:
        raise AuthorityError("\n".join(problems))


def review(
    wanted: Mapping[str, Any],
    found: Mapping[str, Any],
    authority: Authority | None,
    bundle: Bundle | None,
    now: datetime,
) -> Review:
    """Whether the pair on the host will do, and if not, why not in a few words."""
    name: str = wanted["name"]
    if found["obstacle"]:
        raise AuthorityError(f"{name}: {found['obstacle']}")
    chain = parse_chain(found["fullchain"])
    reason = found["fault"] or ("" if chain else "holds no certificate")
    # Any pair will do until ACME issues: even one of another provider is better than a stand-in.
    if not reason and wanted["provider"] != "acme":
        reason = (
            _differs_from_provided(chain, bundle) if bundle else _needs_issue(wanted, chain, authority, now)
        )
    return Review(name, reason, chain, found["fault"], tuple(found["exposures"]))


def facts(chain: Sequence[x509.Certificate], now: datetime) -> dict[str, Any]:
    """What a receipt or a status page wants to know; days are rounded."""
    leaf = chain[0]
    return {
        "domains": list(names_of(leaf)),
        "issuer": common_name(leaf.issuer),
        "expires": f"{leaf.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}",
        "days": round((leaf.not_valid_after_utc - now).total_seconds() / DAY),
    }


def describe(chain: Sequence[x509.Certificate], fault: str = "", exposures: Sequence[str] = ()) -> str:
    """A pair in words for --diff; never a key."""
    if not chain:
        return ""
    leaf = chain[0]
    return _lines(
        common_name(leaf.subject),
        names_of(leaf),
        common_name(leaf.issuer),
        leaf.not_valid_after_utc,
        fault=fault,
        exposures=exposures,
    )


def until(wanted: Mapping[str, Any], now: datetime) -> str:
    """The day a certificate issued now would end."""
    return f"{now + timedelta(days=wanted['days']):%Y-%m-%d}"


def expected(wanted: Mapping[str, Any], issuer: str, now: datetime) -> str:
    """A pair that is yet to be issued, in the same words."""
    return _lines(wanted["domains"][0], wanted["domains"], issuer, now + timedelta(days=wanted["days"]))


def _lines(
    subject: str,
    names: Sequence[str],
    issuer: str,
    expires: datetime,
    *,
    fault: str = "",
    exposures: Sequence[str] = (),
) -> str:
    lines = [
        f"subject: {subject}",
        f"names: {' '.join(names)}",
        f"issuer: {issuer}",
        f"expires: {expires:%Y-%m-%d}",
    ]
    lines += [f"fault: {fault}"] if fault else []
    lines += [f"permissions: {words}" for words in exposures]
    return "\n".join(lines) + "\n"


def _needs_issue(
    wanted: Mapping[str, Any], chain: Sequence[x509.Certificate], authority: Authority | None, now: datetime
) -> str:
    leaf = chain[0]
    if authority is None or len(chain) > 1 or not issued_by(leaf, authority.certificate):
        return f"comes from {common_name(leaf.issuer)} and not from this inventory's authority"
    if list(names_of(leaf)) != wanted["domains"]:
        return f"is for {' '.join(names_of(leaf))}"
    if leaf.not_valid_before_utc > now:
        return "is not valid yet"
    if leaf.not_valid_after_utc - now < timedelta(days=wanted["renew_before"]):
        return f"expires on {leaf.not_valid_after_utc:%Y-%m-%d}"
    return ""


def _differs_from_provided(chain: Sequence[x509.Certificate], bundle: Bundle) -> str:
    if tuple(chain) == bundle.chain:
        return ""
    if chain[0] == bundle.chain[0]:
        return "has other intermediates than the provided one"
    return "differs from the provided one"
