"""Write certificates of clients into a directory: two authorities, and one client of each.

members.pem and guests.pem are the authorities. alice.pem is a member and bob.pem a guest, each a key and its
certificate; late.pem was a member until yesterday.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

NOW = datetime.now(UTC)


def main() -> None:
    directory = Path(sys.argv[1])
    for authority, clients in (("members", {"alice": 2, "late": -1}), ("guests", {"bob": 2})):
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Authority of {authority}")])
        key = ec.generate_private_key(ec.SECP256R1())
        _write(directory / f"{authority}.pem", _signed(issuer, key, issuer, key, 2))
        for name, days in clients.items():
            own = ec.generate_private_key(ec.SECP256R1())
            subject = x509.Name(
                [
                    x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example"),
                    x509.NameAttribute(NameOID.COMMON_NAME, name),
                ]
            )
            _write(directory / f"{name}.pem", _signed(subject, own, issuer, key, days), own)


def _signed(
    subject: x509.Name,
    own: ec.EllipticCurvePrivateKey,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    days: int,
) -> x509.Certificate:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(own.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - timedelta(days=3))
        .not_valid_after(NOW + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=own is key, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )


def _write(path: Path, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey | None = None) -> None:
    text = certificate.public_bytes(serialization.Encoding.PEM)
    if key:
        text += key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    path.write_bytes(text)


if __name__ == "__main__":
    main()
