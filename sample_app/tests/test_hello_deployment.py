"""The checklist and what a process finds out about its server."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hello import deployment
from hello.deployment import Check, Seen, Server

GOOD_KEY = "3f9a62c1d07be58414af90cd2b6e7731e80d5c49fa1362b7084c9de5a17f60b3"
GOOD = Seen(
    scheme="https",
    host="hello.example.org",
    client="203.0.113.7",
    prefix="",
    forwarded_for=("203.0.113.7",),
    forwarded_proto=("https",),
    forwarded_host=("hello.example.org",),
    real_ip="203.0.113.7",
)


def judge(
    *,
    debug: bool = False,
    secret_key: str = GOOD_KEY,
    cookie_secure: bool = True,
    cookie_samesite: str | None = "Lax",
    hops: int = 1,
    seen: Seen = GOOD,
    static_answers: int = 0,
) -> dict[str, Check]:
    checks = deployment.checklist(
        debug=debug,
        secret_key=secret_key,
        cookie_secure=cookie_secure,
        cookie_httponly=True,
        cookie_samesite=cookie_samesite,
        hops=hops,
        seen=seen,
        static_answers=static_answers,
    )
    return {check.name: check for check in checks}


def test_a_good_deployment() -> None:
    assert {name: check.passed for name, check in judge().items() if name != "account"} == {
        "debug": True,
        "secret_key": True,
        "cookies": True,
        "https": True,
        "proxy": True,
        "static": None,
    }


def test_debug_mode_fails() -> None:
    assert judge(debug=True)["debug"].passed is False


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        ("", "It has 0 characters, 32 are the least; make one: openssl rand -hex 32."),
        ("k3y", "It has 3 characters, 32 are the least; make one: openssl rand -hex 32."),
        ("please-changeme-" + GOOD_KEY, "It contains a common word; make a new one: openssl rand -hex 32."),
        ("a" * 64, "It is long but easy to guess; make a random one: openssl rand -hex 32."),
        ("8d1f0c3a" * 8, "It is long but easy to guess; make a random one: openssl rand -hex 32."),
        (
            "abcdefghijklmnopqrstuvwxyz0123456789",
            "It is long but easy to guess; make a random one: openssl rand -hex 32.",
        ),
    ],
)
def test_weak_keys(key: str, sentence: str) -> None:
    check = judge(secret_key=key)["secret_key"]
    assert (check.passed, check.explanation) == (False, sentence)


@pytest.mark.parametrize(
    "key", [GOOD_KEY, "9b1c5e7704fa3d28c6e0b15f8a92d473", "Zq-7xLw_0PvN3kRt8YbCfE5hJmUo2aGs"]
)
def test_strong_keys(key: str) -> None:
    assert judge(secret_key=key)["secret_key"].passed is True


def test_cookies_name_what_they_lack() -> None:
    check = judge(cookie_secure=False, cookie_samesite=None)["cookies"]
    assert (check.passed, check.explanation) == (False, "The session cookie lacks Secure and SameSite.")


def test_plain_http_fails() -> None:
    assert judge(seen=replace(GOOD, scheme="http"))["https"].passed is False


@pytest.mark.parametrize(
    ("hops", "seen", "sentence"),
    [
        (
            0,
            replace(GOOD, client="127.0.0.1"),
            "A proxy is in front, but FORWARDED_HOPS is 0: the app takes it for the visitor.",
        ),
        (
            2,
            GOOD,
            "FORWARDED_HOPS is 2, but X-Forwarded-For has 1: a visitor could forge the rest.",
        ),
        (
            1,
            replace(GOOD, forwarded_for=("198.51.100.9", "203.0.113.7")),
            "FORWARDED_HOPS is 1, but X-Forwarded-For has 2: a visitor's claims are passed on.",
        ),
        (
            1,
            replace(GOOD, forwarded_proto=()),
            "FORWARDED_HOPS is 1, but X-Forwarded-Proto has 0: a visitor could forge the rest.",
        ),
        (1, replace(GOOD, scheme="wss"), "X-Forwarded-Proto says 'wss', which is neither http nor https."),
        (1, replace(GOOD, client="unix:"), "The visitor's address is 'unix:', which is no address."),
        (
            1,
            replace(GOOD, real_ip="198.51.100.9"),
            "X-Real-IP says 198.51.100.9, X-Forwarded-For says 203.0.113.7.",
        ),
        (
            1,
            replace(GOOD, forwarded_host=("evil.example.com",)),
            "X-Forwarded-Host says evil.example.com, Host says hello.example.org.",
        ),
    ],
)
def test_proxy_headers_that_contradict(hops: int, seen: Seen, sentence: str) -> None:
    check = judge(hops=hops, seen=seen)["proxy"]
    assert (check.passed, check.explanation) == (False, sentence)


@pytest.mark.parametrize("host", ["hello.example.org", "hello.example.org:443", "HELLO.example.org"])
def test_a_port_or_case_does_not_contradict(host: str) -> None:
    assert judge(seen=replace(GOOD, forwarded_host=(host,)))["proxy"].passed is True


def test_ipv6_hosts_are_compared_without_their_port() -> None:
    seen = replace(
        GOOD, client="2001:db8::7", real_ip="", host="[2001:db8::1]", forwarded_host=("[2001:db8::1]:443",)
    )
    assert judge(seen=seen)["proxy"].passed is True


def test_without_a_proxy_nothing_is_claimed() -> None:
    seen = Seen(scheme="https", host="hello.example.org", client="203.0.113.7", prefix="")
    check = judge(hops=0, seen=seen)["proxy"]
    assert (check.passed, check.explanation) == (
        None,
        "No proxy announced itself, and none is expected (FORWARDED_HOPS is 0).",
    )


def test_two_proxies() -> None:
    seen = replace(GOOD, forwarded_for=("203.0.113.7", "192.0.2.1"), forwarded_proto=("https", "https"))
    check = judge(hops=2, seen=seen)["proxy"]
    assert (check.passed, check.explanation) == (
        True,
        "Scheme, host and visitor arrive unchanged through 2 proxies.",
    )


def test_static_files_from_python_fail() -> None:
    assert judge(static_answers=1)["static"].passed is False


def test_the_account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert judge()["account"].explanation == "The app runs as root; give it an account of its own."
    monkeypatch.setattr("os.geteuid", lambda: 999)
    monkeypatch.setattr("os.access", lambda path, mode: True)
    assert judge()["account"].explanation == "The app may write its own code, so an intruder could stay."
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert judge()["account"].passed is True


@pytest.mark.parametrize(
    ("states", "sentence"),
    [
        ([True, True], "Everything is in place."),
        ([True, None], "Everything looks right so far."),
        ([True, False, None], "One thing needs attention."),
        ([False, False], "2 things need attention."),
    ],
)
def test_headline(states: list[bool | None], sentence: str) -> None:
    assert deployment.headline([Check("x", "X", state, "") for state in states]) == sentence


CONFIGURATION = """\
import os
workers = 3
threads = 16
worker_class = "gthread"
bind = os.environ.get("BIND", "x")
"""


@pytest.mark.parametrize(
    ("words", "environment", "server"),
    [
        (["python", "gunicorn", "-c", "gunicorn.conf.py"], {}, Server("gthread", 3, 16)),
        (["python", "gunicorn", "hello:create_app()"], {}, Server("gthread", 3, 16)),
        (["python", "gunicorn", "-w", "5"], {}, Server("gthread", 5, 16)),
        (["python", "gunicorn"], {"GUNICORN_CMD_ARGS": "--workers=7 --threads 2"}, Server("gthread", 7, 2)),
        (["python", "gunicorn", "-w", "5"], {"GUNICORN_CMD_ARGS": "--workers=7"}, Server("gthread", 5, 16)),
        (["python", "gunicorn", "-k", "gevent"], {"WEB_CONCURRENCY": "9"}, Server("gevent", 3, 16)),
        (["python", "gunicorn", "-c", "elsewhere.py"], {}, Server(None, None, None)),
    ],
)
def test_gunicorn_settings(
    tmp_path: Path, words: list[str], environment: dict[str, str], server: Server
) -> None:
    (tmp_path / "gunicorn.conf.py").write_text(CONFIGURATION)
    assert deployment.configured_server(words, environment, [tmp_path / "chdir", tmp_path]) == server


def test_gunicorn_without_settings(tmp_path: Path) -> None:
    assert deployment.configured_server(["p", "g"], {}, [tmp_path]) == Server("sync", 1, 1)
    assert deployment.configured_server(["p", "g"], {"WEB_CONCURRENCY": "9"}, [tmp_path]) == Server(
        "sync", 9, 1
    )


def test_computed_or_broken_settings_stay_unknown(tmp_path: Path) -> None:
    file = tmp_path / "gunicorn.conf.py"
    file.write_text("workers = 2 * 3 + len('x')\n")
    assert deployment.configured_server(["p", "g"], {}, [tmp_path]) == Server("sync", None, 1)


def test_outside_gunicorn_no_server_is_claimed() -> None:
    assert deployment.server() == Server(None, None, None)
