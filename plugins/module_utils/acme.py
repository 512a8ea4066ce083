# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What certbot has fetched, put where the proxy reads it, until the proxy really serves it.

Used by the module `acme` and, installed beside `key_pairs` on the host, by the hook that certbot calls after
a renewal (`main`). Each certificate of an app is a lineage ``flask-<app>`` of certbot.
"""

from __future__ import annotations

import configparser
import glob
import os
import re
import shutil
import socket
import ssl
import stat
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import key_pairs

LETSENCRYPT = "/etc/letsencrypt"
SETTINGS = "/etc/flask/acme.conf"
HOOK = "/usr/local/lib/flaskworks/acme-certificate"
CREDENTIALS = "/etc/flask/acme-dns"
"""Directory of the keys by which name servers take proofs, a file for each app."""
PREFIX = "flask-"

# The brackets make each name a pattern: systemctl then takes the units that run.
PROXIES = ("nginx.servic[e]", "apache2.servic[e]")

PATIENCE = 60.0
"""Seconds within which a reloaded proxy must serve a new pair; usually it takes less than one."""

IN_A_ROW = 3
"""Handshakes that must show the new certificate: a worker that is about to end may still answer one."""


class AcmeError(Exception):
    """A sentence for the operator: what is wrong with a certificate, and the way out."""


@dataclass(frozen=True)
class Wanted:
    """The certificate of one app."""

    name: str
    domains: tuple[str, ...]
    directory: str
    https_port: int

    @property
    def lineage(self) -> str:
        return PREFIX + self.name


def read_settings(path: str = SETTINGS) -> list[Wanted]:
    """Return the certificates of the host, as the role tls wrote them for the hook."""
    parser = configparser.ConfigParser(interpolation=None, delimiters=("=",), default_section="-")
    parser.read(path, encoding="utf-8")
    return [
        Wanted(
            name,
            tuple(parser[name]["domains"].split()),
            parser[name]["directory"],
            int(parser[name]["https_port"]),
        )
        for name in parser.sections()
    ]


def deploy(wanted: Wanted, letsencrypt: str = LETSENCRYPT) -> str:
    """Make the pair of the lineage live and wait until the running proxy serves it.

    Returns what was done in words, or nothing when it was live and served already.

    Raises:
        AcmeError: when the pair cannot be used, or the proxy does not serve it. Without a running proxy there
            is nobody to serve, and nothing wrong.
    """
    fullchain, privkey = (
        _text(wanted, os.path.join(letsencrypt, "live", wanted.lineage, file))
        for file in (key_pairs.CHAIN, key_pairs.KEY)
    )
    pair = key_pairs.Pair(wanted.name, wanted.directory)
    found = key_pairs.inspect(pair)
    installed = ""
    if found["obstacle"] or found["fault"] or found["fullchain"] != fullchain:
        try:
            _switched, previous = key_pairs.install([key_pairs.Material(pair, fullchain, privkey)])
            key_pairs.prune([pair], previous)
        except key_pairs.PairError as error:
            raise AcmeError(str(error)) from None
        installed = "installed"
    if _serve(wanted, key_pairs.leaf(fullchain), reload=bool(installed)):
        return installed or "the proxy was told of it"
    return installed


def leftovers(keep: Iterable[str], letsencrypt: str = LETSENCRYPT) -> list[str]:
    """Return the apps whose certificates are renewed here although ACME is not their provider any more."""
    known = set(keep)
    found = []
    for path in sorted(glob.glob(os.path.join(letsencrypt, "renewal", f"{PREFIX}*.conf"))):
        name = os.path.basename(path)[len(PREFIX) : -len(".conf")]
        with open(path, encoding="utf-8", errors="replace") as file:
            if name not in known and HOOK in file.read():
                found.append(name)
    return found


def retire(name: str, letsencrypt: str = LETSENCRYPT) -> None:
    """Forget the lineage of an app, so that nobody asks for its renewal any more."""
    os.unlink(os.path.join(letsencrypt, "renewal", f"{PREFIX}{name}.conf"))
    for kind in ("live", "archive"):
        shutil.rmtree(os.path.join(letsencrypt, kind, PREFIX + name), ignore_errors=True)
    forget_credentials(name)


def keep_credentials(name: str, text: str, directory: str = CREDENTIALS) -> bool:
    """Write the key by which a name server takes proofs, for root alone; whether it was another one."""
    path = os.path.join(directory, f"{name}.ini")
    try:
        with open(path, encoding="utf-8") as file:
            if file.read() == text and stat.S_IMODE(os.stat(path).st_mode) == 0o600:
                return False
    except FileNotFoundError:
        os.makedirs(directory, mode=0o700, exist_ok=True)
    fresh = f"{path}.{os.getpid()}"
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(fresh, path)
    return True


def forget_credentials(name: str, directory: str = CREDENTIALS) -> bool:
    """Remove that key; whether there was one."""
    try:
        os.unlink(os.path.join(directory, f"{name}.ini"))
    except FileNotFoundError:
        return False
    return True


def reason(wanted: Wanted, settings: Mapping[str, str], letsencrypt: str = LETSENCRYPT) -> str:
    """Tell why a new certificate has to be asked for, or nothing when the lineage will do.

    Args:
        wanted: the certificate.
        settings: what certbot must have noted for its renewal, as ``server``.
        letsencrypt: where certbot keeps its files.
    """
    chain = os.path.join(letsencrypt, "live", wanted.lineage, key_pairs.CHAIN)
    try:
        with open(os.path.join(letsencrypt, "renewal", f"{wanted.lineage}.conf"), encoding="utf-8") as file:
            noted = dict(re.findall(r"(?m)^\s*(\w+)\s*=\s*(.*?)\s*$", file.read()))
    except FileNotFoundError:
        noted = {}
    if not noted or not os.path.exists(chain):
        return "there is none yet"
    names, expired = names_in(chain)
    if names != set(wanted.domains):
        return f"it is for {' '.join(sorted(names))}"
    if expired:
        return "it has expired"
    for key, value in settings.items():
        if noted.get(key, "") != value:
            return f"its {key} was {noted.get(key) or 'not set'}"
    return ""


def names_in(chain: str) -> tuple[set[str], bool]:
    """Return the names in the first certificate of a file, and whether it has expired."""
    answer = subprocess.run(
        ["openssl", "x509", "-in", chain, "-noout", "-ext", "subjectAltName", "-checkend", "0"],
        capture_output=True,
        text=True,
        check=False,
    )
    return set(re.findall(r"DNS:([^\s,]+)", answer.stdout)), answer.returncode != 0


def outlook(pair: str) -> str:
    """Say in a few words which certificate a site has, from the pair in a directory."""
    answer = subprocess.run(
        ["openssl", "x509", "-in", os.path.join(pair, key_pairs.CHAIN), "-noout", "-issuer", "-enddate"],
        capture_output=True,
        text=True,
        check=False,
    )
    issuer = re.search(r"CN ?= ?([^,\n]+)", answer.stdout)
    end = re.search(r"notAfter=(\w+ +\d+) [\d:]+ (\d+)", answer.stdout)
    if not issuer or not end:
        return "no certificate"
    return f"the certificate of '{issuer[1].strip()}' that ends on {' '.join(end[1].split())} {end[2]}"


def shown(port: int, name: str) -> bytes:
    """Return the certificate (DER) that this host shows for a name, or nothing when nobody listens.

    Raises:
        OSError: when there is somebody, but no handshake.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        plain = socket.create_connection(("127.0.0.1", port), timeout=10)
    except ConnectionRefusedError:
        return b""
    with plain, context.wrap_socket(plain, server_hostname=name) as channel:
        return channel.getpeercert(binary_form=True) or b""


def _serve(wanted: Wanted, certificate: bytes, reload: bool) -> bool:
    """Wait until the running proxy shows a certificate; tell it when it does not. Whether it was told."""
    if not reload and _shows(wanted, certificate):
        return False
    if not _running():
        return False
    answer = subprocess.run(
        ["systemctl", "try-reload-or-restart", *PROXIES], capture_output=True, text=True, check=False
    )
    if answer.returncode:
        raise AcmeError(
            f"{wanted.name}: the new certificate is in place, but the proxy refuses to load it: "
            f"{(answer.stderr or answer.stdout).strip()}; it serves the old one until that is put right"
        )
    end = time.monotonic() + PATIENCE
    while not _shows(wanted, certificate):
        if time.monotonic() > end:
            raise AcmeError(
                f"{wanted.name}: the new certificate is in place, but {PATIENCE:.0f} s after the reload port "
                f"{wanted.https_port} does not show it for {wanted.domains[0]}; see the proxy's error log"
            )
        time.sleep(0.1)
    return True


def _shows(wanted: Wanted, certificate: bytes) -> bool:
    try:
        return all(shown(wanted.https_port, wanted.domains[0]) == certificate for _ in range(IN_A_ROW))
    except OSError:
        return False


def _running() -> bool:
    command = ["systemctl", "list-units", "--plain", "--no-legend", "--state=active,reloading", *PROXIES]
    return bool(subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip())


def _text(wanted: Wanted, path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no PEM"
        raise AcmeError(f"{wanted.name}: {path} cannot be read: {reason}; run the play again") from None


def main(arguments: Sequence[str], environment: Mapping[str, str], settings: str = SETTINGS) -> int:
    """Deploy the lineage that certbot has renewed, or with ``--all`` every one; the exit status.

    A lineage that no app has is none of our business.
    """
    renewed = os.path.basename(environment.get("RENEWED_LINEAGE", ""))
    status = 0
    for wanted in read_settings(settings):
        if "--all" not in arguments and wanted.lineage != renewed:
            continue
        if not os.path.exists(os.path.join(LETSENCRYPT, "renewal", f"{wanted.lineage}.conf")):
            continue
        try:
            if done := deploy(wanted):
                print(f"{wanted.name}: {done}, {outlook(wanted.directory)}")
        except AcmeError as error:
            print(error, file=sys.stderr)
            status = 1
    return status


def as_wanted(element: Mapping[str, Any]) -> Wanted:
    """Return an element of the module's list."""
    return Wanted(
        element["name"], tuple(element["domains"]), element["directory"], element["acme"]["https_port"]
    )
