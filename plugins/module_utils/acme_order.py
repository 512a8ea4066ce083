# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Asking a certificate authority: first whether it can see this host at all, then certbot."""

from __future__ import annotations

import contextlib
import errno
import http.client
import os
import re
import secrets
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .acme import CREDENTIALS, HOOK, AcmeError, Wanted

CHALLENGES = "/.well-known/acme-challenge"
PORT = 80
"""Where an authority asks, whatever port the proxy listens on (RFC 8555, 8.3)."""

SYSTEM_ROOTS = "/etc/ssl/certs/ca-certificates.crt"
OWN_ROOTS = "/etc/flask/acme-roots.pem"

BUSY = "Another instance of Certbot is already running"
BUSY_LIMIT = 180.0
"""Seconds to wait for another certbot, which may be renewing other certificates."""


@dataclass(frozen=True)
class Order:
    """What certbot is to ask for.

    Attributes:
        webroot: directory in which the proxy looks for proofs.
        profile: preferred profile, or nothing.
        kid, hmac: the external account, or nothing.
        dns_wait: seconds until a zone knows the proof; nothing when it is asked for over HTTP.
    """

    wanted: Wanted
    directory: str
    webroot: str
    email: str = ""
    profile: str = ""
    kid: str = ""
    hmac: str = ""
    dns_wait: int = 0


def credentials(dns: Mapping[str, Any]) -> str:
    """Return what certbot reads of a name server that takes proofs."""
    return (
        "# Ansible managed\n"
        f"dns_rfc2136_server = {dns['server']}\n"
        f"dns_rfc2136_port = {dns['port']}\n"
        f"dns_rfc2136_name = {dns['key']}\n"
        f"dns_rfc2136_secret = {dns['secret']}\n"
        f"dns_rfc2136_algorithm = {dns['algorithm']}\n"
    )


def unreachable(wanted: Wanted, webroot: str, port: int = PORT) -> list[str]:
    """Return a sentence for each name under which an authority would not find this host."""
    token = f"flaskworks-{secrets.token_urlsafe(24)}"
    path = os.path.join(make_webroot(webroot), token)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            os.fchmod(file.fileno(), 0o644)
            file.write(token)
        return [
            f"{wanted.name}: {domain} {fault}"
            for domain in wanted.domains
            if (fault := _fault(domain, f"{CHALLENGES}/{token}", token.encode(), port))
        ]
    finally:
        os.unlink(path)


def make_webroot(webroot: str) -> str:
    """Make the directory of the proofs, open to the proxy whatever the umask; its path."""
    challenges = webroot + CHALLENGES
    before = os.umask(0o022)
    try:
        os.makedirs(challenges, mode=0o755, exist_ok=True)
    finally:
        os.umask(before)
    return challenges


def issue(order: Order) -> None:
    """Have certbot fetch a certificate.

    Raises:
        AcmeError: with what the authority said.
    """
    with _settings(order) as command:
        end = time.monotonic() + BUSY_LIMIT
        while True:
            answer = _run(command)
            if BUSY not in answer.stdout + answer.stderr or time.monotonic() > end:
                break
            time.sleep(2)
    if answer.returncode:
        raise AcmeError(f"{order.wanted.name}: {refusal(answer.stdout, answer.stderr, order.directory)}")


def refusal(stdout: str, stderr: str, directory: str) -> str:
    """Return what certbot printed about a failure as one sentence.

    Args:
        stdout: what it wrote for people.
        stderr: what else it wrote.
        directory: address of the authority that was asked.
    """
    if "CERTIFICATE_VERIFY_FAILED" in stderr:
        return (
            f"the authority {directory} shows a certificate that this host does not trust; say in tls.root "
            "what it is checked with"
        )
    # The library behind certbot has two ways to say so.
    away = re.search(
        r"ValueError: Requesting \S+: (.+)|Max retries exceeded|Connection ?Error|Timeout", stderr
    )
    if away:
        why = away[1] or "".join(re.findall(r"\[Errno -?\d+\] ([\w ]+)", stderr)[:1]) or "no answer"
        return (
            f"the authority {directory} cannot be reached from this host ({why.strip()}); correct that "
            f"and run "
            "again"
        )
    told = re.findall(r"^ *Domain: (\S+)\n *Type: +(\S+)\n *Detail: (.+)$", stdout + stderr, re.MULTILINE)
    if told:
        details = "; ".join(f"{domain}: {detail.strip()} ({kind})" for domain, kind, detail in told)
        return f"the authority refuses: {details}"
    lines = [
        line.strip()
        for line in (stderr or stdout).splitlines()
        if line.strip() and not line.startswith(("Saving debug", "Ask for help", "- - -", "An unexpected"))
    ]
    return f"certbot could not fetch a certificate: {' '.join(lines) or 'it gave no reason'}"


@contextlib.contextmanager
def _settings(order: Order) -> Iterator[list[str]]:
    """Give the command; the key of the external account is in a file, for all can read a command line."""
    wanted = order.wanted
    with tempfile.TemporaryDirectory() as directory:  # 0700
        file = os.path.join(directory, "certbot.ini")
        with open(file, "w", encoding="utf-8") as settings:
            if order.kid:
                settings.write(f"eab-kid = {order.kid}\neab-hmac-key = {order.hmac}\n")
        command = ["certbot", "certonly", "--config", file, "--non-interactive", "--agree-tos"]
        command += ["--email", order.email] if order.email else ["--register-unsafely-without-email"]
        command += ["--no-eff-email"] if order.email else []
        command += ["--server", order.directory, "--cert-name", wanted.lineage]
        command += ["--key-type", "ecdsa", "--elliptic-curve", "secp256r1"]
        command += ["--preferred-profile", order.profile] if order.profile else []
        if order.dns_wait:
            command += ["--dns-rfc2136", "--dns-rfc2136-propagation-seconds", str(order.dns_wait)]
            command += ["--dns-rfc2136-credentials", os.path.join(CREDENTIALS, f"{wanted.name}.ini")]
        else:
            command += ["--webroot", "--webroot-path", order.webroot]
        # That something has to be asked for was decided before.
        command += ["--force-renewal", "--renew-with-new-domains", "--deploy-hook", HOOK]
        for domain in wanted.domains:
            command += ["--domain", domain]
        yield command


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".pem") as roots:
        for path in (SYSTEM_ROOTS, OWN_ROOTS):
            with contextlib.suppress(FileNotFoundError), open(path, encoding="utf-8") as file:
                roots.write(file.read() + "\n")
        roots.flush()
        environment: Mapping[str, str] = {**os.environ, "REQUESTS_CA_BUNDLE": roots.name, "LC_ALL": "C.UTF-8"}
        try:
            return subprocess.run(
                list(command),
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
                stdin=subprocess.DEVNULL,
                env=dict(environment),
            )
        except FileNotFoundError:
            raise AcmeError("certbot is not installed on this host; the role tls installs it") from None


def _fault(domain: str, path: str, proof: bytes, port: int) -> str:
    """Say why an authority that asks for a proof under a name would not get it, or nothing."""
    try:
        found = socket.getaddrinfo(domain, port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        why = error.strerror if isinstance(error, socket.gaierror) else error
        return (
            f"does not resolve ({why}); let its A or AAAA record lead to this host, or take it out of domains"
        )
    faults, asked = [], 0
    for address in dict.fromkeys(str(entry[4][0]) for entry in found):
        try:
            answer = _ask(domain, address, path, port)
        except OSError as error:
            if error.errno in (errno.ENETUNREACH, errno.EADDRNOTAVAIL):
                continue  # this host has no such addresses itself; an authority asks the others, too
            asked += 1
            faults.append(
                f"leads to {address}, where port {port} gives no answer ({error.strerror or error}); correct "
                f"its record if that is not this host, else open port {port}"
            )
            continue
        except http.client.HTTPException as error:
            answer = f"something that is no HTTP ({type(error).__name__})".encode()
        asked += 1
        if answer != proof:
            told = answer.decode("utf-8", "replace") if isinstance(answer, bytes) else answer
            faults.append(
                f"leads to {address}, which answers GET {CHALLENGES}/… with {_short(told)} and not with this "
                "host's proof; correct its A and AAAA records, let what is in front of this host hand the "
                "path on, or say in tls.dns which name server takes the proof"
            )
    if not asked:
        return "leads to no address that this host can reach; let its A or AAAA record lead to this host"
    return faults[0] if faults else ""


def _ask(domain: str, address: str, path: str, port: int) -> bytes | str:
    """Return the proof as an authority would find it, or in words what is there instead."""
    connection = http.client.HTTPConnection(address, port, timeout=10)
    try:
        connection.request("GET", path, headers={"Host": domain, "User-Agent": "flaskworks"})
        answer = connection.getresponse()
        location = answer.getheader("Location", "")
        if answer.status == 200:
            return answer.read(1000)
        if answer.status in (301, 302, 303, 307, 308) and location.startswith(("http://", "https://")):
            return _follow(location)
        return f"status {answer.status}"
    finally:
        connection.close()


def _follow(location: str) -> bytes | str:
    """Follow a redirect as authorities do, which check no certificate on the way."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with urllib.request.urlopen(location, timeout=10, context=context) as answer:
            return bytes(answer.read(1000))
    except urllib.error.HTTPError as error:
        return f"a redirect to {location} and there status {error.code}"
    except OSError as error:
        return f"a redirect to {location} and there no answer ({error})"


def _short(text: str) -> str:
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return line if len(line) <= 60 else line[:57] + "..."
