# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How the apps of all hosts are, as lines for people. Pure: it reads what the module status has returned."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from ansible_collections.flaskworks.server.plugins.module_utils.release.ids import age
from ansible_collections.flaskworks.server.plugins.plugin_utils import host_table
from ansible_collections.flaskworks.server.plugins.plugin_utils.authority import (
    STAND_IN,
    common_name,
    covers,
    names_of,
    parse_chain,
)
from ansible_collections.flaskworks.server.plugins.plugin_utils.receipt import NONE, short

HEADING = ("app", "host", "release", "age", "service", "health", "days", "issuer", "names")

APP_FACTS = ("release", "age", "service", "health", "healthy", "restarted", "missing")

RECENT = 3600
"""Seconds for which a restart of what hung is something to look after."""

OVERDUE = 0.25
"""Part of its life that a certificate has left when it should have been renewed long ago.

Everything here renews with a third left or more, so this holds for lives of days and of years.
"""


def lines(
    hosts: Sequence[str], found: Mapping[str, Mapping[str, Any]], now: datetime, notes: bool = True
) -> list[str]:
    """Write one table for all hosts, and below it what needs a sentence.

    Args:
        hosts: all hosts of the play, in its order.
        found: what ``status`` returned on each of them; hosts that failed have no ``apps``.
        now: the moment that days are counted from.
        notes: whether to write what needs a sentence.
    """

    def rows(app: str, host: str, told: Mapping[str, Any]) -> Iterable[Sequence[str]]:
        shown, *others = told["certificates"] or [None]
        yield (app, host, *_app(told), *_certificate(shown, now))
        for other in others:
            yield ("", "", "", "", "", "", *_certificate(other, now))

    table = host_table.lines(hosts, found, HEADING, (3, 6), rows)
    return table + (host_table.notes(hosts, found, lambda told: _notes(told, now)) if notes else [])


def wrong(hosts: Sequence[str], found: Mapping[str, Mapping[str, Any]], now: datetime) -> list[str]:
    """Write what somebody has to look after, a sentence each; nothing when all is well.

    Arguments are those of `lines`. Beyond what stands below the table, an app without a release is wrong, and
    a host that has no app is not.
    """

    def notes(told: Mapping[str, Any]) -> list[str]:
        missing = ["it has no release; run playbooks/deploy.yml"] if told["release"] is None else []
        return missing + _notes(told, now)

    asked = [host for host in hosts if (found.get(host) or {}).get("apps") != {}]
    return host_table.notes(asked, found, notes)


def report(hosts: Sequence[str], found: Mapping[str, Mapping[str, Any]], now: datetime) -> dict[str, Any]:
    """The same for programs, with all that the table has. Arguments are those of `lines`."""
    problems = wrong(hosts, found, now)
    return {
        "asked": f"{now:%Y-%m-%dT%H:%M:%SZ}",
        "well": not problems,
        "wrong": problems,
        "apps": [
            {
                "app": app,
                "host": host,
                **{key: told[key] for key in APP_FACTS},
                "certificates": [_certificate_facts(shown, now) for shown in told["certificates"]],
            }
            for host in hosts
            for app, told in host_table.apps_of(found, host).items()
        ],
    }


def _certificate_facts(shown: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    chain = parse_chain(shown["pem"])
    if not chain:
        return {"domains": shown["domains"], "names": [], "issuer": None, "expires": None, "days": None}
    return {
        "domains": shown["domains"],
        "names": list(names_of(chain[0])),
        "issuer": common_name(chain[0].issuer),
        "expires": f"{chain[0].not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}",
        "days": _days(chain[0], now),
    }


def _app(told: Mapping[str, Any]) -> tuple[str, ...]:
    if told["release"] is None:
        return ("no release yet", NONE, NONE, NONE)
    health = str(told["health"]).split(" ", 1)[0]
    return (
        short(told["release"]),
        NONE if told["age"] is None else age(told["age"]),
        str(told["service"]),
        "good" if told["healthy"] else health if health.isdecimal() else "none",
    )


def _certificate(shown: Mapping[str, Any] | None, now: datetime) -> tuple[str, ...]:
    chain = parse_chain(shown["pem"]) if shown else ()
    if not chain:
        return (NONE, NONE, NONE)
    return (str(_days(chain[0], now)), common_name(chain[0].issuer), ", ".join(names_of(chain[0])))


def _days(certificate: Any, now: datetime) -> int:
    """Whole days that are left; below zero when it has expired."""
    return int((certificate.not_valid_after_utc - now).total_seconds() // 86_400)


def _notes(told: Mapping[str, Any], now: datetime) -> list[str]:
    notes = []
    if told["release"] is not None and not told["healthy"]:
        notes.append(f"its health check is answered: {told['health']}")
    elif told["release"] is not None and told["service"] != "active":
        notes.append(f"its service is {told['service']}")
    if told["restarted"] is not None and told["restarted"] < RECENT:
        notes.append(
            f"it did not answer and was restarted {age(told['restarted'])} ago; "
            "look at journalctl -u flaskworks-liveness on the host"
        )
    missing: dict[str, list[str]] = {}
    for domain, reason in told["missing"].items():
        missing.setdefault(reason, []).append(domain)
    notes += [
        f"no certificate is shown for {', '.join(names)}: {reason}" for reason, names in missing.items()
    ]
    for shown in told["certificates"]:
        notes += _doubts(shown, told, now)
    if told["certificates"] and not told["installed"]:
        notes.append("the proxy does not show the certificate that lies on the disk; reload it")
    return ["".join(one if one.isprintable() else "?" for one in note) for note in notes]


def _doubts(shown: Mapping[str, Any], told: Mapping[str, Any], now: datetime) -> list[str]:
    """What visitors would complain about in one certificate."""
    chain = parse_chain(shown["pem"])
    if not chain:
        return [f"what is shown for {', '.join(shown['domains'])} is no certificate"]
    leaf = chain[0]
    names, end = names_of(leaf), leaf.not_valid_after_utc
    wrong = [domain for domain in shown["domains"] if not covers(names, domain)]
    notes = []
    if wrong:
        notes.append(f"the certificate that is shown for {', '.join(wrong)} is not for that name")
    if common_name(leaf.issuer).startswith(f"{STAND_IN} authority "):
        notes.append(
            "a stand-in that nobody trusts is shown, until ACME issues; playbooks/provision.yml says what is "
            "in the way"
        )
    elif end <= now:
        notes.append(f"the certificate expired on {end:%Y-%m-%d}; {_renewal(told)}")
    elif told.get("provider") == "provided":
        if end - now < timedelta(days=told["renew_before"]):
            notes.append(f"the certificate ends on {end:%Y-%m-%d}; {_renewal(told)}")
    elif (end - now) < OVERDUE * (end - leaf.not_valid_before_utc):
        notes.append(
            f"the certificate ends on {end:%Y-%m-%d} and should have been renewed before; {_renewal(told)}"
        )
    return notes


def _renewal(told: Mapping[str, Any]) -> str:
    """How a certificate is replaced; who provides it is not known where the plan was not given."""
    if told.get("provider") == "provided":
        return "put a newer one where tls.fullchain and tls.privkey lead, and run playbooks/provision.yml"
    if told.get("provider") == "acme":
        return "look at journalctl -u certbot.service on the host, and run playbooks/provision.yml"
    return "run playbooks/provision.yml"
