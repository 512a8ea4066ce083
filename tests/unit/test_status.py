"""How the apps of all hosts are: what is asked, and what an operator gets to see."""

from __future__ import annotations

import json
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.flaskworks.server.plugins.module_utils import acme, liveness, status
from ansible_collections.flaskworks.server.plugins.plugin_utils import status_table
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.unit.release_host import Bench

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
ID = "20261121T101500Z-aaaaaaaaaa"
SITE = {"domains": ["hello.example.org", "*.hello.example.org"], "https_port": 443, "fullchain": "/nowhere"}


def certificate(*names: str, issuer: str = "R11", begin: int = -30, end: int = 60) -> str:
    """Return a certificate in PEM; days are counted from NOW."""
    key = ec.generate_private_key(ec.SECP256R1())
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW + timedelta(days=begin))
        .not_valid_after(NOW + timedelta(days=end))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM).decode()


def told(*shown: tuple[str, list[str]], **more: Any) -> dict[str, Any]:
    """Return what a host tells of an app that is well."""
    return {
        "release": ID,
        "age": 7200,
        "service": "active",
        "health": "200 OK",
        "healthy": True,
        "restarted": None,
        "certificates": [{"pem": pem, "domains": domains} for pem, domains in shown],
        "missing": {},
        "installed": True,
        **more,
    }


def lines(**apps: dict[str, Any]) -> list[str]:
    return status_table.lines(["web1"], {"web1": {"apps": apps}}, NOW)


def test_one_table_for_all_hosts() -> None:
    good = certificate("hello.example.org", "www.hello.example.org")
    domains = ["hello.example.org", "www.hello.example.org"]
    nothing = {"release": None, "age": None, "service": None, "health": None, "healthy": False}
    found: dict[str, dict[str, Any]] = {
        "web1": {"apps": {"hello": told((good, domains))}},
        "web2": {
            "apps": {
                "hello": told(
                    **nothing, missing=dict.fromkeys(domains, "nobody listens on port 443"), installed=False
                )
            }
        },
        "web3": {"unreachable": True},
    }
    assert status_table.lines(["web1", "web2", "web3"], found, NOW) == [
        "app    host  release           age  service  health  days  issuer  names",
        (
            "hello  web1  20261121T101500Z  2 h  active   good      60  R11     hello.example.org, "
            "www.hello.example.org"
        ),
        "hello  web2  no release yet      -  -        -          -  -       -",
        (
            "hello: no certificate is shown for hello.example.org, www.hello.example.org: nobody listens "
            "on port "
            "443 [web2]"
        ),
        "web3: not listed, it cannot be reached",
    ]


def test_an_app_that_is_not_well() -> None:
    shown = (certificate("hello.example.org"), ["hello.example.org"])
    for health, cell in (("503 Service Unavailable, 'closed'", "503"), ("no answer within 5.0 s", "none")):
        table = lines(hello=told(shown, service="activating", health=health, healthy=False))
        assert table[1].split()[5:8] == ["activating", cell, "60"]
        assert table[2] == f"hello: its health check is answered: {health} [web1]"


def test_an_app_that_was_restarted_within_the_hour() -> None:
    shown = (certificate("hello.example.org"), ["hello.example.org"])
    assert lines(hello=told(shown, restarted=3599))[2] == (
        "hello: it did not answer and was restarted 59 min ago; look at journalctl -u flaskworks-liveness on "
        "the host [web1]"
    )
    assert lines(hello=told(shown, restarted=3600))[2:] == []


@pytest.mark.parametrize(
    ("begin", "end", "days", "note"),
    [
        (-67, 23, "23", ""),
        (
            -68,
            22,
            "22",
            (
                "hello: the certificate ends on 2026-12-13 and should have been renewed before; run "
                "playbooks/provision.yml [web1]"
            ),
        ),
        (-4, 2, "2", ""),
        (
            -5,
            1,
            "1",
            (
                "hello: the certificate ends on 2026-11-22 and should have been renewed before; run "
                "playbooks/provision.yml [web1]"
            ),
        ),
        (
            -90,
            -1,
            "-1",
            "hello: the certificate expired on 2026-11-20; run playbooks/provision.yml [web1]",
        ),
    ],
)
def test_a_renewal_that_is_overdue_is_told_for_every_length_of_life(
    begin: int, end: int, days: str, note: str
) -> None:
    table = lines(hello=told((certificate("h.example.org", begin=begin, end=end), ["h.example.org"])))
    assert table[1].split()[7] == days
    assert table[2:] == ([note] if note else [])


@pytest.mark.parametrize(
    ("provider", "begin", "end", "note"),
    [
        ("provided", -300, 31, ""),
        (
            "provided",
            -300,
            29,
            (
                "hello: the certificate ends on 2026-12-20; put a newer one where tls.fullchain and "
                "tls.privkey lead, and run playbooks/provision.yml [web1]"
            ),
        ),
        (
            "provided",
            -300,
            -1,
            (
                "hello: the certificate expired on 2026-11-20; put a newer one where tls.fullchain and "
                "tls.privkey lead, and run playbooks/provision.yml [web1]"
            ),
        ),
        (
            "acme",
            -80,
            10,
            (
                "hello: the certificate ends on 2026-12-01 and should have been renewed before; look at "
                "journalctl -u certbot.service on the host, and run playbooks/provision.yml [web1]"
            ),
        ),
    ],
)
def test_the_way_to_a_new_certificate_is_told(provider: str, begin: int, end: int, note: str) -> None:
    shown = (certificate("h.example.org", begin=begin, end=end), ["h.example.org"])
    table = lines(hello=told(shown, provider=provider, renew_before=30))
    assert table[2:] == ([note] if note else [])


def test_a_monitor_is_told_what_is_wrong_and_nothing_else() -> None:
    good = certificate("hello.example.org", "www.hello.example.org")
    expired = certificate("hello.example.org", begin=-90, end=-1)
    nothing = {"release": None, "age": None, "service": None, "health": None, "healthy": False}
    well = {"apps": {"hello": told((good, ["hello.example.org"]))}}
    assert status_table.wrong(["web1", "web2"], {"web1": well, "web2": {"apps": {}}}, NOW) == []
    found: dict[str, dict[str, Any]] = {
        "web1": well,
        "web2": {"apps": {"hello": told((expired, ["hello.example.org"]))}},
        "web3": {"apps": {"hello": told((good, ["hello.example.org"]), **nothing)}},
        "web4": {"apps": {"hello": told((good, ["hello.example.org"]), service="activating")}},
        "web5": {"unreachable": True},
    }
    wrong = [
        "hello: the certificate expired on 2026-11-20; run playbooks/provision.yml [web2]",
        "hello: it has no release; run playbooks/deploy.yml [web3]",
        "hello: its service is activating [web4]",
        "web5: not listed, it cannot be reached",
    ]
    assert status_table.wrong(["web1", "web2", "web3", "web4", "web5"], found, NOW) == wrong
    report = status_table.report(["web1", "web5"], found, NOW)
    assert report == {
        "asked": "2026-11-21T12:00:00Z",
        "well": False,
        "wrong": ["web5: not listed, it cannot be reached"],
        "apps": [
            {
                "app": "hello",
                "host": "web1",
                "release": ID,
                "age": 7200,
                "service": "active",
                "health": "200 OK",
                "healthy": True,
                "restarted": None,
                "missing": {},
                "certificates": [
                    {
                        "domains": ["hello.example.org"],
                        "names": ["hello.example.org", "www.hello.example.org"],
                        "issuer": "R11",
                        "expires": "2027-01-20T12:00:00Z",
                        "days": 60,
                    }
                ],
            }
        ],
    }
    assert status_table.report(["web1"], found, NOW)["well"] is True


def test_what_visitors_would_complain_about() -> None:
    one = (certificate("hello.example.org", issuer="stand-in authority 01234567"), ["hello.example.org"])
    other = (certificate("other.example.org"), ["www.hello.example.org"])
    assert lines(hello=told(one, other, installed=False)) == [
        "app    host  release           age  service  health  days  issuer                       names",
        (
            "hello  web1  20261121T101500Z  2 h  active   good      60  stand-in authority 01234567  "
            "hello.example.org"
        ),
        (
            "                                                       60  R11                          "
            "other.example.org"
        ),
        (
            "hello: a stand-in that nobody trusts is shown, until ACME issues; playbooks/provision.yml "
            "says what is "
            "in the way [web1]"
        ),
        "hello: the certificate that is shown for www.hello.example.org is not for that name [web1]",
        "hello: the proxy does not show the certificate that lies on the disk; reload it [web1]",
    ]


def test_what_a_host_tells_cannot_paint_the_screen() -> None:
    table = lines(hello=told(health="500 \x1b[2J", healthy=False))
    assert "hello: its health check is answered: 500 ?[2J [web1]" in table


def test_a_wildcard_is_asked_for_by_a_name_that_only_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pem = certificate("hello.example.org", "*.hello.example.org")
    asked: list[tuple[int, str]] = []

    def shown(port: int, name: str) -> bytes:
        asked.append((port, name))
        return ssl.PEM_cert_to_DER_cert(pem)

    monkeypatch.setattr(acme, "shown", shown)
    bench = Bench(tmp_path)
    (tmp_path / "fullchain.pem").write_text(pem)
    found = status.look(
        bench.host, bench.release("hello"), {**SITE, "fullchain": str(tmp_path / "fullchain.pem")}
    )
    assert asked == [(443, "hello.example.org"), (443, "flaskworks-status.hello.example.org")]
    assert found["release"] is None
    assert found["certificates"] == [{"pem": pem, "domains": ["hello.example.org", "*.hello.example.org"]}]
    assert found["installed"] is True


def test_an_app_that_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def shown(_port: int, name: str) -> bytes:
        if name == "hello.example.org":
            return b""
        raise ssl.SSLError(1, "[SSL: TLSV1_UNRECOGNIZED_NAME] unrecognized name")

    monkeypatch.setattr(acme, "shown", shown)
    bench = Bench(tmp_path)
    name = str(bench.deploy()["hello"].release)
    bench.host.pass_time(60)
    found = status.look(bench.host, bench.release("hello"), SITE)
    assert (found["release"], found["service"], found["healthy"]) == (name, "active", True)
    assert found["age"] >= 60
    assert found["certificates"] == []
    assert found["missing"] == {
        "hello.example.org": "nobody listens on port 443",
        "*.hello.example.org": "the handshake fails ([SSL: TLSV1_UNRECOGNIZED_NAME] unrecognized name)",
    }


def test_an_app_that_the_host_has_restarted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path)
    name = str(bench.deploy()["hello"].release)
    monkeypatch.setattr(acme, "shown", lambda _port, _name: b"")
    monkeypatch.setattr(liveness, "STATE", str(tmp_path / "state.json"))

    def restarted() -> Any:
        return status.look(bench.host, bench.release("hello"), SITE)["restarted"]

    assert restarted() is None
    known = {"asked": 0, "failed": 0, "restarts": 1, "again": 0, "last": bench.host.now() - 90}
    (tmp_path / "state.json").write_text(json.dumps({"hello": {name: known}}))
    assert 90 <= restarted() < 100
    (tmp_path / "state.json").write_text(json.dumps({"hello": {ID: known}}))
    assert restarted() is None
