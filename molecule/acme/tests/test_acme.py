"""From a bare host to a certificate that an ACME authority has issued, and on through renewals."""

from __future__ import annotations

import json
import os
import re
import socket
import ssl
import subprocess
import threading
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from testinfra.host import Host

EPHEMERAL = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
PLAYBOOKS = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"]) / "playbooks"
WEB = ("trixie", "bookworm")  # behind nginx, behind Apache


def provision(*arguments: str, **variables: Any) -> subprocess.CompletedProcess[str]:
    """Provision both hosts, as an operator would."""
    return play("provision.yml", "-e", json.dumps(variables), *arguments)


def play(playbook: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["ansible-playbook", "-i", EPHEMERAL / "inventory", PLAYBOOKS / playbook, *arguments],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


def changed(done: subprocess.CompletedProcess[str]) -> dict[str, int]:
    """Return how many tasks changed something, by host."""
    assert done.returncode == 0, done.stdout + done.stderr
    plain = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)
    return {name: int(count) for name, count in re.findall(r"(?m)^(\w+) +: .*changed=(\d+)", plain)}


def names(*prefixes: str) -> list[str]:
    """Return names of every host; Ansible fills in which one."""
    return [f"{prefix}{{{{ inventory_hostname }}}}.example.org" for prefix in prefixes]


@pytest.fixture(scope="session")
def trusted(platforms: dict[str, Any]) -> ssl.SSLContext:
    """Return what trusts the authority's root and nothing else."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    url = f"https://{platforms['authority'].address}:15000/roots/0"
    with urllib.request.urlopen(url, timeout=30, context=context) as answer:
        return ssl.create_default_context(cadata=answer.read().decode())


def shown(address: str, name: str, context: ssl.SSLContext) -> dict[str, Any]:
    """Return the certificate that a name is served with, which must be valid for it."""
    with (
        socket.create_connection((address, 443), timeout=30) as plain,
        context.wrap_socket(plain, server_hostname=name) as channel,
    ):
        return dict(channel.getpeercert() or {})


def asked(hosts: dict[str, Host]) -> int:
    """Return how often the authority was asked for anything at all."""
    return len(
        hosts["authority"].check_output("journalctl -u pebble -o cat | grep -F 'POST /' || :").splitlines()
    )


def live(host: Host) -> str:
    return str(host.check_output("readlink /etc/flask/tls/hello /etc/flask/tls/wild"))


def redirected(address: str, name: str, context: ssl.SSLContext) -> str:
    """Return where a name is redirected to over HTTPS."""
    with (
        socket.create_connection((address, 443), timeout=30) as plain,
        context.wrap_socket(plain, server_hostname=name) as channel,
    ):
        channel.sendall(f"GET /a?b HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: channel.recv(4096), b"")).decode()
    assert answer.startswith("HTTP/1.1 308 "), answer
    return answer.lower().split("\r\nlocation: ", 1)[1].split("\r\n", 1)[0]


@pytest.mark.parametrize("name", WEB)
def test_one_run_ends_with_the_certificate_served(
    name: str, platforms: dict[str, Any], hosts: dict[str, Host], trusted: ssl.SSLContext
) -> None:
    for domain in (f"{name}.example.org", f"www.{name}.example.org"):
        certificate = shown(platforms[name].address, domain, trusted)
        assert certificate["subjectAltName"] == (
            ("DNS", f"{name}.example.org"),
            ("DNS", f"www.{name}.example.org"),
        )
    key = hosts[name].file("/etc/flask/tls/hello/privkey.pem")
    assert (key.user, key.group, key.mode) == ("root", "root", 0o600)
    assert "prime256v1" in hosts[name].check_output("openssl pkey -in %s -noout -text", key.path)
    assert hosts[name].check_output("systemctl is-active certbot.timer") == "active"


def test_a_profile_is_asked_for_where_certbot_can(hosts: dict[str, Host]) -> None:
    found = {
        name: hosts[name].check_output(
            "grep ^preferred_profile /etc/letsencrypt/renewal/flask-hello.conf || :"
        )
        for name in WEB
    }
    assert found == {"trixie": "preferred_profile = shortlived", "bookworm": ""}


@pytest.mark.parametrize("name", WEB)
def test_a_wildcard_is_proved_by_a_name_server(
    name: str, platforms: dict[str, Any], hosts: dict[str, Host], trusted: ssl.SSLContext
) -> None:
    certificate = shown(platforms[name].address, "any.wild.example.org", trusted)
    assert sorted(value for _kind, value in certificate["subjectAltName"]) == [
        "*.wild.example.org",
        "wild.example.org",
    ]
    assert redirected(platforms[name].address, "any.wild.example.org", trusted) == (
        "https://wild.example.org/a?b"
    )
    key = hosts[name].file("/etc/flask/acme-dns/wild.ini")
    assert (key.user, key.group, key.mode) == ("root", "root", 0o600)


def test_hosts_that_share_a_name_have_a_certificate_each(
    platforms: dict[str, Any], trusted: ssl.SSLContext
) -> None:
    serials = {shown(platforms[name].address, "wild.example.org", trusted)["serialNumber"] for name in WEB}
    assert len(serials) == 2


def test_a_run_with_nothing_to_do_asks_nobody(hosts: dict[str, Host]) -> None:
    before = asked(hosts)
    assert before > 0
    assert changed(provision()) == {"trixie": 0, "bookworm": 0}
    assert changed(provision("--check", acme_domains=names("", "www.", "new."))).keys() == {*WEB}
    assert asked(hosts) == before


def test_a_name_that_comes_is_served(
    platforms: dict[str, Any], hosts: dict[str, Host], trusted: ssl.SSLContext
) -> None:
    done = provision(acme_domains=names("", "www.", "new."))
    assert done.returncode == 0, done.stdout + done.stderr
    for name in WEB:
        assert shown(platforms[name].address, f"new.{name}.example.org", trusted)
        pairs = hosts[name].check_output("ls /etc/flask/tls/.pairs").split()
        assert len([pair for pair in pairs if pair.startswith("hello-")]) == 2  # live and previous


def test_what_cannot_be_issued_is_told_and_the_sites_stay_up(
    platforms: dict[str, Any], hosts: dict[str, Host], trusted: ssl.SSLContext
) -> None:
    """The names of one app lead elsewhere, the authority of the other one cannot be reached."""
    before, pairs = asked(hosts), {name: live(hosts[name]) for name in WEB}
    authority = platforms["authority"].address
    others = {"trixie": platforms["bookworm"].address, "bookworm": platforms["trixie"].address}
    for name in WEB:
        hosts[name].check_output(f"echo '{authority} away.{name}.example.org' >>/etc/hosts")
        for address in (platforms[name].address, others[name]):
            hosts[name].check_output(f"echo '{address} both.example.org' >>/etc/hosts")
    done = provision(
        acme_domains=[*names("", "nowhere.", "away."), "both.example.org"],
        acme_directory="https://authority:14999/dir",
    )
    told = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == 2
    for name in WEB:
        assert f"hello: nowhere.{name}.example.org does not resolve" in told
        assert "let its A or AAAA record lead to this host, or take it out of domains" in told
        assert f"hello: away.{name}.example.org leads to {authority}, where port 80 gives no answer" in told
        # Which of the two an authority would ask is for chance to say.
        assert f"hello: both.example.org leads to {others[name]}, which answers GET /.well-known/" in told
        assert "with status 404 and not with this host's proof" in told
        assert "The site stays up with the certificate of 'Pebble Intermediate CA" in told
        assert "or say in tls.dns which name server takes the proof" in told
        assert "wild: the authority https://authority:14999/dir cannot be reached from this host" in told
        assert shown(platforms[name].address, f"{name}.example.org", trusted)
        assert shown(platforms[name].address, "wild.example.org", trusted)
    assert {name: live(hosts[name]) for name in WEB} == pairs
    assert asked(hosts) == before


@contextmanager
def load(platforms: dict[str, Any], trusted: ssl.SSLContext) -> Iterator[dict[str, Counter[str]]]:
    """Ask both hosts all the time, a connection for each request; count the answers, by host."""
    answers: dict[str, Counter[str]] = {name: Counter() for name in WEB}
    over = threading.Event()

    def ask(name: str) -> None:
        domain = f"www.{name}.example.org"
        while not over.wait(0.02):  # a host under test needs the processors, too
            try:
                with (
                    socket.create_connection((platforms[name].address, 443), timeout=60) as plain,
                    trusted.wrap_socket(plain, server_hostname=domain) as channel,
                ):
                    channel.sendall(f"GET / HTTP/1.1\r\nHost: {domain}\r\nConnection: close\r\n\r\n".encode())
                    answers[name][channel.recv(12).decode()] += 1
            except OSError as error:
                answers[name][repr(error)] += 1

    threads = [threading.Thread(target=ask, args=(name,)) for name in WEB for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        over.set()
        for thread in threads:
            thread.join()


def test_the_timer_renews_without_a_failed_request(
    platforms: dict[str, Any], hosts: dict[str, Host], trusted: ssl.SSLContext
) -> None:
    changed(provision(acme_domains=names("", "www.")))  # a name that goes
    before = {name: shown(platforms[name].address, f"{name}.example.org", trusted) for name in WEB}
    with load(platforms, trusted) as answers:
        forced = (
            "sed -i '1i renew_before_expiry = 3650 days' /etc/letsencrypt/renewal/flask-*.conf && "
            "systemctl start certbot.service"
        )
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda name: hosts[name].check_output(forced), WEB))
    for name in WEB:
        certificate = shown(platforms[name].address, f"{name}.example.org", trusted)
        assert certificate["subjectAltName"] == (
            ("DNS", f"{name}.example.org"),
            ("DNS", f"www.{name}.example.org"),
        )
        assert certificate["serialNumber"] != before[name]["serialNumber"]
        assert dict(answers[name]).keys() == {"HTTP/1.1 308"}
        assert answers[name].total() > 20
        hosts[name].check_output("sed -i '/^renew_before_expiry/d' /etc/letsencrypt/renewal/flask-*.conf")


def test_the_status_tells_what_is_really_served(hosts: dict[str, Host]) -> None:
    done = play("status.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {tuple(line.split()[:2]): line for line in done.stdout.splitlines()}
    for name in WEB:
        row = rows["hello", name]
        assert " no release yet " in row
        assert re.search(rf" 179  Pebble Intermediate CA \w+  {name}\.example\.org, www\.{name}\.ex", row), (
            row
        )


def pair_for(names: list[str], days: int, place: Path) -> ssl.SSLContext:
    """Write a pair that is provided; return what trusts it and nothing else."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "another shop")])
    alternatives = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=days, hours=1))
        .add_extension(alternatives, critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    text = made.public_bytes(serialization.Encoding.PEM).decode()
    place.with_suffix(".key").write_bytes(private)
    place.with_suffix(".pem").write_text(text)
    return ssl.create_default_context(cadata=text)


def test_a_provided_certificate_is_told_of_and_exchanged(platforms: dict[str, Any]) -> None:
    """Its end is that of what is served, and not of the files on the controller."""
    shop = EPHEMERAL / "shop.pem"
    first = ssl.create_default_context(cafile=str(shop))
    served = {name: shown(platforms[name].address, f"shop.{name}.example.org", first) for name in WEB}
    note = (
        r"shop: the certificate ends on \d{4}-\d\d-\d\d; put a newer one where tls.fullchain and tls.privkey "
        r"lead, and run playbooks/provision.yml \[bookworm, trixie\]"
    )
    second = pair_for([f"shop.{name}.example.org" for name in WEB], 100, shop)
    done = play("status.yml")
    assert len(re.findall(r"(?m)^shop .* 19  shop ", done.stdout)) == 2, done.stdout
    assert re.search(note, done.stdout), done.stdout
    assert set(changed(provision()).values()) == {1}
    done = play("status.yml")
    assert len(re.findall(r"(?m)^shop .* 100  another shop ", done.stdout)) == 2, done.stdout
    assert not re.search(note, done.stdout), done.stdout
    for name in WEB:
        now = shown(platforms[name].address, f"shop.{name}.example.org", second)
        assert now["serialNumber"] != served[name]["serialNumber"]


def test_another_provider_ends_the_renewals(platforms: dict[str, Any], hosts: dict[str, Host]) -> None:
    before = asked(hosts)
    changed(provision(acme_tls={"provider": "self_signed"}))
    own = ssl.create_default_context(cafile=str(EPHEMERAL / "inventory" / ".tls" / "ca.pem"))
    for name in WEB:
        assert shown(platforms[name].address, f"{name}.example.org", own)
        assert not hosts[name].file("/etc/letsencrypt/renewal/flask-hello.conf").exists
        assert not hosts[name].file("/etc/letsencrypt/live/flask-hello").exists
        hosts[name].check_output("systemctl start certbot.service")
    assert asked(hosts) == before
