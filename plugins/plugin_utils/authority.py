# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The certificate authority of one inventory, on the controller, and what it judges and issues.

``ca.pem`` is what clients trust, ``ca.key`` signs and never leaves the controller. Several processes
may ask for the authority at once (Ansible works on hosts in parallel, and two people may start it in
one checkout): whoever gets the lock first makes it, the others read it.

The extensions follow RFC 5280 as far as strict clients check it (``openssl verify -x509_strict``,
Python's ``VERIFY_X509_STRICT``, Chromium).
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFETIME = timedelta(days=3650)
BACKDATED = timedelta(hours=1)  # clocks of clients that run behind the controller's
NAME_LENGTH = 64  # ub-common-name of RFC 5280

STAND_IN = "stand-in"
"""How the name begins of what issues certificates that nobody trusts."""

IGNORED = """\
# ca.key signs for every name that clients of ca.pem believe: it stays out of the repository.
/ca.key
/.ca.*
/.lock
"""

Reader = Callable[[Path], str]


class AuthorityError(Exception):
    """A sentence for the operator: what is wrong with a certificate or the authority, and the way out."""


@dataclass(frozen=True)
class Authority:
    """What clients trust, and where its key lies."""

    directory: Path
    certificate: x509.Certificate
    created: bool = False

    @property
    def path(self) -> Path:
        return self.directory / "ca.pem"


@dataclass(frozen=True)
class Bundle:
    """A provided key pair that passed every check."""

    chain: tuple[x509.Certificate, ...]
    fullchain: str
    privkey: str


def plain_text(path: Path) -> str:
    return path.read_text(encoding="ascii")


def find(directory: Path) -> Authority | None:
    """The authority in this directory, or None where there is none yet. Changes nothing."""
    try:
        text = plain_text(directory / "ca.pem")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise AuthorityError(f"authority {directory}: ca.pem cannot be read: {error}") from None
    try:
        return Authority(directory, x509.load_pem_x509_certificate(text.encode()))
    except ValueError as error:
        raise AuthorityError(
            f"authority {directory}: ca.pem is no certificate ({error}); restore it, or move it and "
            "ca.key away to start a new authority"
        ) from None


def find_or_create(
    directory: Path, permitted_domains: Sequence[str] = (), now: datetime | None = None
) -> Authority:
    """The authority in this directory, made once however many processes ask for it."""
    if authority := find(directory):
        return authority
    directory.parent.mkdir(parents=True, exist_ok=True)
    directory.mkdir(mode=0o700, exist_ok=True)
    with _locked(directory):
        if authority := find(directory):
            return authority
        if not (directory / ".gitignore").exists():
            _publish(directory, ".gitignore", IGNORED.encode(), 0o644)
        if (directory / "ca.key").exists():  # killed between the two files: nobody has seen a certificate yet
            key = signing_key(directory)
        else:
            key = ec.generate_private_key(ec.SECP256R1())
            _publish(directory, "ca.key", _private_pem(key), 0o600)
        certificate = _self_signed(
            key, directory.resolve().parent.name, permitted_domains, now or datetime.now(UTC)
        )
        _publish(directory, "ca.pem", certificate.public_bytes(serialization.Encoding.PEM), 0o644)
        return Authority(directory, certificate, created=True)


def throwaway(now: datetime | None = None) -> tuple[Authority, ec.EllipticCurvePrivateKey]:
    """Make an authority that nobody trusts, for certificates that only let a server start."""
    key = ec.generate_private_key(ec.SECP256R1())
    return Authority(Path(os.devnull), _self_signed(key, STAND_IN, (), now or datetime.now(UTC))), key


def signing_key(directory: Path, read: Reader = plain_text) -> ec.EllipticCurvePrivateKey:
    path = directory / "ca.key"
    try:
        mode, text = path.stat().st_mode, read(path)
    except FileNotFoundError:
        raise AuthorityError(
            f"authority {directory}: ca.pem is there but ca.key is not, so nothing can be issued; "
            "fetch ca.key from whoever made it, or move ca.pem away to start a new authority that "
            "clients must trust anew"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise AuthorityError(f"authority {directory}: ca.key cannot be read: {error}") from None
    if mode & 0o077 and _is_plain(path):
        raise AuthorityError(
            f"authority {directory}: ca.key can be read by others (mode {mode & 0o7777:04o}); run 'chmod "
            f"600 {path}'"
        )
    try:
        key = serialization.load_pem_private_key(text.encode(), password=None)
    except (ValueError, TypeError) as error:
        raise AuthorityError(f"authority {directory}: ca.key is no usable private key: {error}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise AuthorityError(
            f"authority {directory}: ca.key is not an elliptic curve key; this collection makes and uses "
            "only those"
        )
    return key


def issue(
    authority: Authority,
    key: ec.EllipticCurvePrivateKey,
    request: str,
    name: str,
    domains: Sequence[str],
    *,
    days: int,
    now: datetime | None = None,
) -> str:
    """Sign the key in the request for these domains, and nothing else the request may say."""
    now = (now or datetime.now(UTC)).replace(microsecond=0)
    issuer = authority.certificate
    if key.public_key() != issuer.public_key():
        raise AuthorityError(
            f"authority {authority.directory}: ca.key does not belong to ca.pem; restore the pair that "
            "belongs together"
        )
    until = now + timedelta(days=days)
    if until > issuer.not_valid_after_utc:
        raise AuthorityError(
            f"{name}: the authority {authority.directory} ends on {issuer.not_valid_after_utc:%Y-%m-%d}, "
            f"before {days} days are over; "
            "move ca.pem and ca.key away to start a new one that clients must trust anew"
        )
    check_permitted(authority, name, domains)
    asked = x509.load_pem_x509_csr(request.encode())
    if not asked.is_signature_valid:
        raise AuthorityError(
            f"{name}: the host's certificate request is not signed by its own key; run the play again"
        )
    subject = domains[0] if len(domains[0]) <= NAME_LENGTH else name
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(issuer.subject)
        .public_key(asked.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(until)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.SubjectAlternativeName([_general_name(name, domain) for domain in domains]), critical=False
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(asked.public_key()), critical=False)
        .add_extension(_authority_identifier(issuer), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def check_permitted(authority: Authority, name: str, domains: Sequence[str]) -> None:
    """Refuse names that clients would refuse, because the authority was limited when it was made."""
    try:
        constraints = authority.certificate.extensions.get_extension_for_class(x509.NameConstraints).value
    except x509.ExtensionNotFound:
        return
    permitted = [str(subtree.value) for subtree in constraints.permitted_subtrees or []]
    if refused := [domain for domain in domains if not permits(permitted, domain)]:
        raise AuthorityError(
            f"{name}: the authority {authority.directory} may sign for {', '.join(permitted)} and what is "
            "below, "
            f"not for {', '.join(refused)}; move ca.pem and ca.key away to start a new one that clients "
            "must trust anew"
        )


def permits(permitted: Sequence[str], domain: str) -> bool:
    """Whether an authority limited to these domains may sign for this one. An empty list is no limit."""
    if address := next(iter(_addresses([domain])), None):
        return not permitted or any(address in network for network in _networks(permitted))
    return not permitted or any(domain == tree or domain.endswith(f".{tree}") for tree in permitted)


def issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def parse_chain(text: str) -> tuple[x509.Certificate, ...]:
    """The certificates in a PEM text, none if it cannot be read."""
    try:
        return tuple(x509.load_pem_x509_certificates(text.encode()))
    except ValueError:
        return ()


def names_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """Every name a certificate is for, in its own order."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return ()
    return tuple(str(entry.value) for entry in names if isinstance(entry, x509.DNSName | x509.IPAddress))


def common_name(name: x509.Name) -> str:
    found = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else name.rfc4514_string()


def check_provided(
    name: str, fullchain: str, privkey: str, domains: Sequence[str], now: datetime | None = None
) -> Bundle:
    """Check a provided pair before any host is touched; all that is wrong is told at once."""
    now = now or datetime.now(UTC)
    chain = parse_chain(fullchain)
    if not chain:
        raise AuthorityError(f"{name}: provided.fullchain holds no certificate in PEM form")
    try:
        key = serialization.load_pem_private_key(privkey.encode(), password=None)
    except TypeError:
        raise AuthorityError(
            f"{name}: provided.privkey has a passphrase that the server could not know; store it without "
            "one, in a vaulted file"
        ) from None
    except ValueError:  # its text may quote the key
        raise AuthorityError(f"{name}: provided.privkey holds no private key in PEM form") from None
    leaf = chain[0]
    problems = []
    if key.public_key() != leaf.public_key():
        problems.append(
            "the private key belongs to a later certificate of the chain; put the site's own certificate "
            "first"
            if any(key.public_key() == other.public_key() for other in chain[1:])
            else "the private key does not belong to the certificate"
        )
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size < 2048:
        problems.append(
            f"an RSA key of {key.key_size} bits is refused by servers and clients; use 2048 or more, or P-256"
        )
    covered = names_of(leaf)
    if missing := [domain for domain in domains if not covers(covered, domain)]:
        problems.append(
            f"the certificate is for {', '.join(covered) or 'no name'} and does not cover "
            f"{', '.join(missing)}"
        )
    if leaf.not_valid_after_utc <= now:
        problems.append(f"the certificate expired on {leaf.not_valid_after_utc:%Y-%m-%d}")
    if leaf.not_valid_before_utc > now:
        problems.append(f"the certificate is not valid before {leaf.not_valid_before_utc:%Y-%m-%d}")
    for position, (lower, upper) in enumerate(pairwise(chain), start=1):
        if not issued_by(lower, upper):
            problems.append(
                f"certificate {position} of the chain ({common_name(lower.subject)}) was not issued by "
                "the next one "
                f"({common_name(upper.subject)}); order them from the site's own upwards"
            )
        if upper.not_valid_after_utc <= now:
            problems.append(
                f"the intermediate {common_name(upper.subject)} expired on "
                f"{upper.not_valid_after_utc:%Y-%m-%d}"
            )
    if problems:
        raise AuthorityError(f"{name}: the provided pair cannot be used: {'; '.join(problems)}")
    # Rewritten in one form, so that comments and line ends of the source make no difference later.
    return Bundle(chain, pem(chain), _private_pem(key).decode())


def pem(chain: Sequence[x509.Certificate]) -> str:
    return "".join(certificate.public_bytes(serialization.Encoding.PEM).decode() for certificate in chain)


def _self_signed(
    key: ec.EllipticCurvePrivateKey, inventory: str, permitted_domains: Sequence[str], now: datetime
) -> x509.Certificate:
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    # Two authorities never share a subject: clients that trust both would try the wrong key.
    label = re.sub(r"[^A-Za-z0-9 ._-]", "", inventory)[:40] or "inventory"
    subject = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, f"{label} authority {identifier.digest.hex()[:8]}")]
    )
    now = now.replace(microsecond=0)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(identifier, critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False
        )
    )
    if permitted_domains:
        networks = [x509.IPAddress(network) for network in _networks(permitted_domains)]
        names = [x509.DNSName(domain) for domain in permitted_domains if not _networks([domain])]
        everywhere = [x509.IPAddress(ipaddress.ip_network(network)) for network in ("0.0.0.0/0", "::/0")]
        constraints = x509.NameConstraints(
            # A kind of name that is permitted nowhere has to be excluded, or it would be free.
            permitted_subtrees=[*names, *networks],
            excluded_subtrees=None if networks else everywhere,
        )
        builder = builder.add_extension(constraints, critical=True)
    return builder.sign(key, hashes.SHA256())


def _key_usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _authority_identifier(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    try:
        identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        identifier = x509.SubjectKeyIdentifier.from_public_key(issuer.public_key())
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)


def _addresses(domains: Sequence[str]) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    found = []
    for domain in domains:
        with contextlib.suppress(ValueError):
            found.append(ipaddress.ip_address(domain))
    return found


def _networks(names: Sequence[str]) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    found = []
    for name in names:
        with contextlib.suppress(ValueError):
            found.append(ipaddress.ip_network(name))
    return found


def _general_name(name: str, domain: str) -> x509.GeneralName:
    if addresses := _addresses([domain]):
        return x509.IPAddress(addresses[0])
    try:
        return x509.DNSName(domain)
    except ValueError:
        raise AuthorityError(
            f"{name}: domain {domain} has letters beyond ASCII; write it in its xn-- form"
        ) from None


def covers(names: Sequence[str], domain: str) -> bool:
    """Whether one of the names is this domain; a star stands for exactly one label (RFC 9525)."""
    domain = domain.lower()
    return any(
        name == domain or (name.startswith("*.") and "." in domain and domain.split(".", 1)[1] == name[2:])
        for name in (name.lower() for name in names)
    )


def _private_pem(key: PrivateKeyTypes) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _is_plain(path: Path) -> bool:
    return not path.read_bytes().startswith(b"$ANSIBLE_VAULT")


def _publish(directory: Path, name: str, content: bytes, mode: int) -> None:
    """Write a file that appears complete and with its final mode, or not at all."""
    draft = directory / f".ca.{os.getpid()}.{name.strip('.')}"
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(directory / name)


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    with (directory / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
