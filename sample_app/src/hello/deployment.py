"""What a process can find out about its own deployment, and the checklist made of it."""

from __future__ import annotations

import argparse
import ast
import ipaddress
import itertools
import math
import os
import platform
import shlex
import socket
import sys
from collections import Counter as Multiset
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

LEAST_KEY_LENGTH = 32  # characters
LEAST_KEY_ENTROPY = 96.0  # bits as estimated below; 32 random hex digits come to about 110
COMMON_WORDS = (
    "changeme",
    "default",
    "development",
    "example",
    "insecure",
    "password",
    "placeholder",
    "secret",
)


@dataclass(frozen=True)
class Server:
    """The gunicorn around this process; None where it cannot be known."""

    worker_class: str | None = None
    workers: int | None = None
    threads: int | None = None


@dataclass(frozen=True)
class Seen:
    """One request as the app sees it, and the forwarded headers it came with."""

    scheme: str
    host: str
    client: str
    prefix: str
    forwarded_for: tuple[str, ...] = ()
    forwarded_proto: tuple[str, ...] = ()
    forwarded_host: tuple[str, ...] = ()
    real_ip: str = ""


@dataclass(frozen=True)
class Check:
    """One line of the checklist. ``passed`` is None when the app cannot know."""

    name: str
    title: str
    passed: bool | None
    explanation: str


STATIC_PASSED = "The stylesheet came without the mark that Flask puts on static files: the proxy served it."
STATIC_FAILED = "Static files come from Python; let the proxy serve /static/ from the release."
STATIC_UNKNOWN = (
    "Only the outside can see it: a static file with the header X-Served-By-App came from Python."
)


def versions() -> dict[str, str | None]:
    """Return the versions of what runs here."""
    return {
        "python": platform.python_version(),
        "flask": _version("flask"),
        "gunicorn": _version("gunicorn"),
    }


def machine() -> str:
    return socket.gethostname()


def server() -> Server:
    """Describe the gunicorn that runs this process."""
    if "gunicorn.arbiter" not in sys.modules:
        return Server()
    try:
        words = Path("/proc/self/cmdline").read_bytes().decode("utf-8", "replace").split("\0")
    except OSError:
        words = list(sys.orig_argv)
    places = (Path.cwd(), Path(os.environ.get("PWD", "/")), Path(sys.prefix).parent)
    configured = configured_server(words, os.environ, places)
    # gunicorn imports only the worker module in use, so this is right even where a setting was overruled.
    for module, name in {
        "gthread": "gthread",
        "ggevent": "gevent",
        "gtornado": "tornado",
        "sync": "sync",
    }.items():
        if f"gunicorn.workers.{module}" in sys.modules:
            threads = configured.threads if name == "gthread" else None
            return replace(configured, worker_class=name, threads=threads)
    return configured


def configured_server(words: Sequence[str], environment: Mapping[str, str], places: Sequence[Path]) -> Server:
    """Read gunicorn's settings as gunicorn does: file, then GUNICORN_CMD_ARGS, then the command line.

    A relative file name counts from where gunicorn was started, which after its ``chdir`` is only
    a guess: the file is looked for in *places*, in order.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("-c", "--config", default=None)
    parser.add_argument("-k", "--worker-class", dest="worker_class", default=None)
    parser.add_argument("-w", "--workers", type=int, default=None)
    parser.add_argument("--threads", type=int, default=None)
    line, _ = parser.parse_known_args(list(words[1:]))
    extra, _ = parser.parse_known_args(shlex.split(environment.get("GUNICORN_CMD_ARGS", "")))
    named = line.config or extra.config
    file = (named or "gunicorn.conf.py").removeprefix("file:")
    found = next((place / file for place in places if (place / file).is_file()), None)
    settings = _literals(found) if found else {}
    concurrency = environment.get("WEB_CONCURRENCY", "")
    defaults = {
        "worker_class": "sync",
        "workers": int(concurrency) if concurrency.isdigit() else 1,
        "threads": 1,
    }
    if found is None and named:
        defaults = {}  # there are settings, but nobody can read them

    def setting(name: str) -> object:
        for value in (getattr(line, name), getattr(extra, name)):
            if value is not None:
                return value
        return settings.get(name, defaults.get(name))

    worker_class, workers, threads = (setting(name) for name in ("worker_class", "workers", "threads"))
    return Server(
        worker_class=worker_class if isinstance(worker_class, str) else None,
        workers=workers if isinstance(workers, int) else None,
        threads=threads if isinstance(threads, int) else None,
    )


def checklist(
    *,
    debug: bool,
    secret_key: str,
    cookie_secure: bool,
    cookie_httponly: bool,
    cookie_samesite: str | None,
    hops: int,
    seen: Seen,
    static_answers: int,
) -> list[Check]:
    """Judge a deployment, most dangerous first."""
    return [
        _check_debug(debug),
        _check_key(secret_key),
        _check_cookies(cookie_secure, cookie_httponly, cookie_samesite),
        _check_https(seen),
        _check_proxy(hops, seen),
        Check("static", "Static files served by the proxy", *_static(static_answers)),
        _check_account(os.geteuid(), Path(__file__).parent),
    ]


def headline(checks: Sequence[Check]) -> str:
    """Sum the checklist up in one sentence."""
    failed = sum(check.passed is False for check in checks)
    if failed:
        return "One thing needs attention." if failed == 1 else f"{failed} things need attention."
    if any(check.passed is None for check in checks):
        return "Everything looks right so far."
    return "Everything is in place."


def entropy(key: str) -> float:
    """Estimate the bits in *key*: what repeats or counts up does not add any."""
    period = (key + key).find(key, 1) if key else 0
    steps = [ord(after) - ord(before) for before, after in itertools.pairwise(key)]
    return period * min(_bits(key), _bits(steps))


def _bits(symbols: Sequence[object]) -> float:
    """Return Shannon's entropy per symbol."""
    total = len(symbols)
    return -sum(n / total * math.log2(n / total) for n in Multiset(symbols).values())


def _check_debug(debug: bool) -> Check:
    if debug:
        text = "Debug mode shows the source to visitors and lets them run code; unset FLASK_DEBUG."
    else:
        text = "Errors show a plain page, no debugger and no source."
    return Check("debug", "Not in debug mode", not debug, text)


def _check_key(key: str) -> Check:
    text = ""
    if any(word in key.lower() for word in COMMON_WORDS):
        text = "It contains a common word; make a new one: openssl rand -hex 32."
    elif len(key) < LEAST_KEY_LENGTH:
        text = (
            f"It has {len(key)} characters, {LEAST_KEY_LENGTH} are the least; make one: openssl rand -hex 32."
        )
    elif entropy(key) < LEAST_KEY_ENTROPY:
        text = "It is long but easy to guess; make a random one: openssl rand -hex 32."
    passed = not text
    if passed:
        text = f"{len(key)} characters that look random sign the sessions."
    return Check("secret_key", "Strong secret key", passed, text)


def _check_cookies(secure: bool, httponly: bool, samesite: str | None) -> Check:
    wrong = [
        name
        for name, right in (
            ("Secure", secure),
            ("HttpOnly", httponly),
            ("SameSite", samesite in ("Lax", "Strict")),
        )
        if not right
    ]
    if wrong:
        text = f"The session cookie lacks {' and '.join(wrong)}."
    else:
        text = f"The session cookie is Secure, HttpOnly and SameSite={samesite}."
    return Check("cookies", "Secure cookies", not wrong, text)


def _check_https(seen: Seen) -> Check:
    secure = seen.scheme == "https"
    text = (
        "This page came over HTTPS."
        if secure
        else "The app sees plain HTTP, anybody on the way can read along."
    )
    return Check("https", "HTTPS", secure, text)


def _check_proxy(hops: int, seen: Seen) -> Check:
    title = "Proxy headers right"
    if hops == 0:
        if seen.forwarded_for or seen.forwarded_proto:
            text = "A proxy is in front, but FORWARDED_HOPS is 0: the app takes it for the visitor."
            return Check("proxy", title, False, text)
        text = "No proxy announced itself, and none is expected (FORWARDED_HOPS is 0)."
        return Check("proxy", title, None, text)
    problem = _proxy_problem(hops, seen)
    if problem:
        return Check("proxy", title, False, problem)
    proxies = "1 proxy" if hops == 1 else f"{hops} proxies"
    return Check("proxy", title, True, f"Scheme, host and visitor arrive unchanged through {proxies}.")


def _proxy_problem(hops: int, seen: Seen) -> str | None:
    """Say what contradicts *hops* proxies that each put one value into each header."""
    for name, values in (
        ("X-Forwarded-For", seen.forwarded_for),
        ("X-Forwarded-Proto", seen.forwarded_proto),
    ):
        if len(values) < hops:
            return f"FORWARDED_HOPS is {hops}, but {name} has {len(values)}: a visitor could forge the rest."
        if len(values) > hops:
            return (
                f"FORWARDED_HOPS is {hops}, but {name} has {len(values)}: a visitor's claims are passed on."
            )
    if seen.scheme not in ("http", "https"):
        return f"X-Forwarded-Proto says {seen.scheme!r}, which is neither http nor https."
    if not _is_address(seen.client):
        return f"The visitor's address is {seen.client!r}, which is no address."
    if seen.real_ip and seen.real_ip != seen.client:
        return f"X-Real-IP says {seen.real_ip}, X-Forwarded-For says {seen.client}."
    if seen.forwarded_host and _bare(seen.forwarded_host[-1]) != _bare(seen.host):
        return f"X-Forwarded-Host says {seen.forwarded_host[-1]}, Host says {seen.host}."
    return None


def _bare(host: str) -> str:
    """Drop the port: proxies differ in whether they pass it on."""
    return host.lower().rsplit(":", 1)[0] if not host.endswith("]") else host.lower()


def _static(answers: int) -> tuple[bool | None, str]:
    return (False, STATIC_FAILED) if answers else (None, STATIC_UNKNOWN)


def _check_account(user: int, code: Path) -> Check:
    title = "Unprivileged account"
    if user == 0:
        return Check("account", title, False, "The app runs as root; give it an account of its own.")
    if os.access(code, os.W_OK):
        return Check("account", title, False, "The app may write its own code, so an intruder could stay.")
    return Check("account", title, True, "The app is not root and cannot write its own code.")


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _literals(file: Path) -> dict[str, object]:
    """Return the plain values that a gunicorn configuration assigns; nothing is executed."""
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return {}
    found: dict[str, object] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            try:
                found[node.targets[0].id] = ast.literal_eval(node.value)
            except ValueError:
                found[node.targets[0].id] = None
    return found


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
