# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The authority: made once, issuing what strict clients accept, refusing in words what would not work."""

from __future__ import annotations

import multiprocessing
import os
import socket
import ssl
import stat
import subprocess
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from ansible_collections.flaskworks.server.plugins.plugin_utils import authority as ca
from ansible_collections.flaskworks.server.plugins.plugin_utils import certificate_review as cr
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

NOW = datetime.now(UTC)
NAMES = ["hello.example.org", "www.hello.example.org"]


def private_text(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, passphrase: bytes | None = None) -> str:
    protection: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase:
        protection = serialization.BestAvailableEncryption(passphrase)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection
    ).decode()


def request_for(key: ec.EllipticCurvePrivateKey) -> str:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "evil.example.net")])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


def issue(
    directory: Path, domains: Sequence[str] = NAMES, days: int = 90, now: datetime = NOW
) -> tuple[str, str]:
    """A chain and its key, signed by the authority of a directory."""
    key = ec.generate_private_key(ec.SECP256R1())
    authority = ca.find_or_create(directory)
    signer = ca.signing_key(directory)
    return ca.issue(authority, signer, request_for(key), "hello", domains, days=days, now=now), private_text(
        key
    )


def test_directory_and_key_are_closed_and_stay_out_of_git(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    directory = tmp_path / "inventories" / "prod" / "tls"
    assert ca.find_or_create(directory).created
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE((directory / "ca.key").stat().st_mode) == 0o600
    listing = ["git", "-C", str(tmp_path), "ls-files", "--others", "--exclude-standard"]
    seen = subprocess.run(listing, check=True, capture_output=True, text=True).stdout.split()
    assert sorted(seen) == ["inventories/prod/tls/.gitignore", "inventories/prod/tls/ca.pem"]


def _serial(directory: Path) -> int:
    return ca.find_or_create(directory).certificate.serial_number


def test_many_processes_make_one_authority(tmp_path: Path) -> None:
    with multiprocessing.get_context("fork").Pool(8) as pool:
        serials = pool.map(_serial, [tmp_path / "tls"] * 24, chunksize=1)
    assert len(set(serials)) == 1
    assert sorted(entry.name for entry in (tmp_path / "tls").iterdir()) == [
        ".gitignore",
        ".lock",
        "ca.key",
        "ca.pem",
    ]


def test_a_run_killed_between_the_two_files_is_completed(tmp_path: Path) -> None:
    ca.find_or_create(tmp_path / "tls")
    key = (tmp_path / "tls" / "ca.key").read_bytes()
    (tmp_path / "tls" / "ca.pem").unlink()
    assert ca.find_or_create(tmp_path / "tls").created
    assert (tmp_path / "tls" / "ca.key").read_bytes() == key


@pytest.mark.parametrize("permitted", [(), ("example.org",)])
def test_strict_openssl_accepts_the_chain(tmp_path: Path, permitted: Sequence[str]) -> None:
    ca.find_or_create(tmp_path / "tls", permitted)
    chain, _key = issue(tmp_path / "tls")
    (tmp_path / "chain.pem").write_text(chain)
    command = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-verify_hostname", NAMES[1]]
    subprocess.run([*command, "-CAfile", tmp_path / "tls" / "ca.pem", tmp_path / "chain.pem"], check=True)


def handshake(directory: Path, fullchain: Path, privkey: Path, name: str) -> str:
    """Serve the pair, connect as a strict client that trusts only ca.pem; the negotiated version."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(fullchain, privkey)
    client = ssl.create_default_context(cafile=directory / "ca.pem")
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    near, far = socket.socketpair()

    def serve() -> None:
        with far, server.wrap_socket(far, server_side=True):
            pass

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with near, client.wrap_socket(near, server_hostname=name) as channel:
            return channel.version() or ""
    finally:
        thread.join()


def test_strict_python_accepts_the_chain(tmp_path: Path) -> None:
    chain, key = issue(tmp_path / "tls")
    (tmp_path / "chain.pem").write_text(chain)
    (tmp_path / "key.pem").write_text(key)
    assert handshake(tmp_path / "tls", tmp_path / "chain.pem", tmp_path / "key.pem", NAMES[0]) == "TLSv1.3"


def test_only_the_plan_decides_the_names(tmp_path: Path) -> None:
    chain, _key = issue(tmp_path / "tls", [*NAMES, "192.0.2.7"])
    leaf = ca.parse_chain(chain)[0]
    assert ca.names_of(leaf) == ("hello.example.org", "www.hello.example.org", "192.0.2.7")
    assert ca.common_name(leaf.subject) == "hello.example.org"


def test_a_limited_authority_refuses_other_names(tmp_path: Path) -> None:
    ca.find_or_create(tmp_path / "tls", ["example.org"])
    with pytest.raises(
        ca.AuthorityError, match=r"may sign for example\.org and what is below, not for example\.net"
    ):
        issue(tmp_path / "tls", ["hello.example.org", "example.net"])
    with pytest.raises(ca.AuthorityError, match=r"not for 192\.0\.2\.7"):
        issue(tmp_path / "tls", ["192.0.2.7"])


def test_without_its_key_the_authority_is_known_but_issues_nothing(tmp_path: Path) -> None:
    issue(tmp_path / "tls")
    (tmp_path / "tls" / "ca.key").unlink()
    assert ca.find(tmp_path / "tls") is not None
    with pytest.raises(ca.AuthorityError, match=r"ca\.key is not.*fetch ca\.key from whoever made it"):
        issue(tmp_path / "tls")


def test_an_open_key_is_refused(tmp_path: Path) -> None:
    issue(tmp_path / "tls")
    (tmp_path / "tls" / "ca.key").chmod(0o644)
    with pytest.raises(ca.AuthorityError, match="run 'chmod 600 "):
        issue(tmp_path / "tls")


def test_no_certificate_outlives_its_authority(tmp_path: Path) -> None:
    ca.find_or_create(tmp_path / "tls", now=NOW - timedelta(days=3600))
    with pytest.raises(ca.AuthorityError, match="before 90 days are over"):
        issue(tmp_path / "tls")


def test_a_provided_pair_is_accepted(tmp_path: Path) -> None:
    chain, key = issue(tmp_path / "tls")
    root = (tmp_path / "tls" / "ca.pem").read_text()
    bundle = ca.check_provided("hello", f"a comment\r\n{chain}\n{root}", key, NAMES, NOW)
    assert bundle.fullchain == chain + root
    assert bundle.privkey == key


def test_a_wildcard_covers_one_label(tmp_path: Path) -> None:
    chain, key = issue(tmp_path / "tls", ["*.example.org"])
    ca.check_provided("hello", chain, key, ["a.example.org"], NOW)
    for other in ("example.org", "a.b.example.org"):
        with pytest.raises(ca.AuthorityError, match=f"does not cover {other}"):
            ca.check_provided("hello", chain, key, [other], NOW)


def test_every_problem_of_a_provided_pair_is_told_at_once(tmp_path: Path) -> None:
    chain, _key = issue(tmp_path / "tls", days=2, now=NOW - timedelta(days=5))
    stranger, other_key = issue(tmp_path / "other")
    with pytest.raises(ca.AuthorityError) as caught:
        ca.check_provided("hello", chain + stranger, other_key, ["shop.example.org"], NOW)
    message = str(caught.value)
    assert message.startswith("hello: the provided pair cannot be used: ")
    for words in (
        "put the site's own certificate first",
        "does not cover shop.example.org",
        "expired on",
        "was not issued by the next one",
    ):
        assert words in message


@pytest.mark.parametrize(
    ("fullchain", "privkey", "words"),
    [
        ("nothing", "KEY", "provided.fullchain holds no certificate in PEM form"),
        ("CHAIN", "nothing", "provided.privkey holds no private key in PEM form"),
        ("CHAIN", "LOCKED", "provided.privkey has a passphrase"),
        ("CHAIN", "STRANGER", "the private key does not belong to the certificate"),
        ("CHAIN", "WEAK", "an RSA key of 1024 bits"),
    ],
)
def test_unusable_texts_are_refused_in_words(
    tmp_path: Path, fullchain: str, privkey: str, words: str
) -> None:
    chain, key = issue(tmp_path / "tls")
    stranger = ec.generate_private_key(ec.SECP256R1())
    texts = {
        "CHAIN": chain,
        "KEY": key,
        "STRANGER": private_text(stranger),
        "LOCKED": private_text(stranger, b"secret"),
        "WEAK": private_text(rsa.generate_private_key(65537, 1024)),
    }
    with pytest.raises(ca.AuthorityError, match=words) as caught:
        ca.check_provided("hello", texts.get(fullchain, fullchain), texts.get(privkey, privkey), NAMES, NOW)
    assert "PRIVATE KEY" not in str(caught.value)


def wanted(**changes: object) -> dict[str, object]:
    return {
        "name": "hello",
        "domains": NAMES,
        "provider": "self_signed",
        "directory": "/etc/flask/tls/hello",
        "fullchain": "/etc/flask/tls/hello/fullchain.pem",
        "privkey": "/etc/flask/tls/hello/privkey.pem",
        "days": 90,
        "renew_before": 30,
        "provided": None,
    } | changes


def judge(directory: Path, chain: str, now: datetime = NOW, **changes: object) -> str:
    found = {"fullchain": chain, "fault": "", "obstacle": "", "exposures": []}
    return cr.review(wanted(**changes), found, ca.find(directory), None, now).reason


def test_a_good_certificate_needs_nothing(tmp_path: Path) -> None:
    chain, _key = issue(tmp_path / "tls")
    assert judge(tmp_path / "tls", chain) == ""
    assert judge(tmp_path / "tls", chain, NOW + timedelta(days=59, hours=23)) == ""


def test_reasons_for_another_certificate(tmp_path: Path) -> None:
    chain, _key = issue(tmp_path / "tls")
    ca.find_or_create(tmp_path / "other")
    assert judge(tmp_path / "tls", chain, NOW + timedelta(days=60, hours=1)).startswith("expires on ")
    assert judge(tmp_path / "tls", chain, domains=[*NAMES, "new.example.org"]).startswith(
        "is for hello.example.org"
    )
    assert "not from this inventory's authority" in judge(tmp_path / "other", chain)
    assert judge(tmp_path / "tls", "no pem") == "holds no certificate"


def test_contradictions_are_told_at_once() -> None:
    with pytest.raises(ca.AuthorityError) as caught:
        cr.check_wanted([wanted(days=30), wanted(provider="provided", fullchain="/elsewhere/fullchain.pem")])
    message = str(caught.value)
    assert "hello: is there twice" in message
    assert "renew_before (30 days) must be more than 0 and less than days (30)" in message
    assert "provider 'provided' needs provided.fullchain and provided.privkey" in message
    assert "fullchain must be /etc/flask/tls/hello/fullchain.pem" in message


def test_the_description_of_a_pair_is_readable(tmp_path: Path) -> None:
    chain, _key = issue(tmp_path / "tls", now=datetime(2026, 11, 20, tzinfo=UTC))
    lines = cr.describe(ca.parse_chain(chain), "has no key").splitlines()
    assert lines[0:2] == ["subject: hello.example.org", "names: hello.example.org www.hello.example.org"]
    assert lines[2].startswith("issuer: ")
    assert lines[3:] == ["expires: 2027-02-18", "fault: has no key"]
    assert os.linesep not in lines[2]
