"""The host's part of ACME: what is asked for and what is told, without an authority."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import pytest
from ansible_collections.flaskworks.server.plugins.filter.acme_orders import acme_orders
from ansible_collections.flaskworks.server.plugins.module_utils import acme, acme_order

ROOT = Path(__file__).parents[2]
HELLO = acme.Wanted("hello", ("hello.example.org", "www.hello.example.org"), "/etc/flask/tls/hello", 443)


@pytest.fixture
def letsencrypt(tmp_path: Path) -> Path:
    """Return a directory as certbot keeps it, with one lineage."""
    (tmp_path / "renewal").mkdir()
    (tmp_path / "live/flask-hello").mkdir(parents=True)
    (tmp_path / "archive/flask-hello").mkdir(parents=True)
    (tmp_path / "renewal/flask-hello.conf").write_text(
        "[renewalparams]\n"
        f"server = https://ca.example.org/directory\nkey_type = ecdsa\nrenew_hook = {acme.HOOK}\n"
    )
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += [
        "-keyout",
        "/dev/null",
        "-out",
        str(tmp_path / "live/flask-hello/fullchain.pem"),
        "-days",
        "2",
    ]
    command += ["-subj", "/CN=x", "-addext", "subjectAltName=DNS:www.hello.example.org,DNS:hello.example.org"]
    subprocess.run(command, check=True, capture_output=True)
    return tmp_path


def test_what_is_there_is_not_asked_for_again(letsencrypt: Path) -> None:
    assert acme.reason(HELLO, {"server": "https://ca.example.org/directory"}, str(letsencrypt)) == ""


def test_why_a_certificate_is_asked_for(letsencrypt: Path) -> None:
    other = acme.Wanted("hello", ("hello.example.org",), "/etc/flask/tls/hello", 443)
    new = acme.Wanted("new", ("new.example.org",), "/etc/flask/tls/new", 443)
    here = str(letsencrypt)
    assert acme.reason(new, {}, here) == "there is none yet"
    assert acme.reason(other, {}, here) == "it is for hello.example.org www.hello.example.org"
    assert acme.reason(HELLO, {"server": "https://other.example.org/"}, here) == (
        "its server was https://ca.example.org/directory"
    )
    assert acme.reason(HELLO, {"preferred_profile": "shortlived"}, here) == (
        "its preferred_profile was not set"
    )


def test_only_our_own_lineages_are_forgotten(letsencrypt: Path) -> None:
    (letsencrypt / "renewal/flask-foreign.conf").write_text("[renewalparams]\n")
    here = str(letsencrypt)
    assert acme.leftovers(["hello"], here) == []
    assert acme.leftovers([], here) == ["hello"]
    acme.retire("hello", here)
    assert acme.leftovers([], here) == []
    assert sorted(path.name for path in letsencrypt.rglob("flask-*")) == ["flask-foreign.conf"]


def test_settings_of_the_hook(tmp_path: Path) -> None:
    (tmp_path / "acme.conf").write_text(
        "# Ansible managed\n\n[hello]\ndomains = hello.example.org www.hello.example.org\n"
        "directory = /etc/flask/tls/hello\nhttps_port = 443\n"
    )
    assert acme.read_settings(str(tmp_path / "acme.conf")) == [HELLO]
    assert acme.read_settings(str(tmp_path / "missing.conf")) == []


def test_the_hook_is_complete_on_a_host(tmp_path: Path) -> None:
    """What the role installs beside each other needs nothing else."""
    (tmp_path / "certificates").mkdir()
    for template in (ROOT / "roles/tls/templates").glob("*.py.j2"):
        library = ROOT / "plugins/module_utils" / template.stem
        if library.exists():
            shutil.copy(library, tmp_path / "certificates")
    program = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from certificates import acme; acme.deploy"
    subprocess.run([sys.executable, "-I", "-c", program], check=True)


def test_what_an_authority_refuses_is_one_sentence() -> None:
    printed = (
        "\nCertbot failed to authenticate some domains (authenticator: webroot). The Certificate Authority "
        "reported these problems:\n  Domain: www.hello.example.org\n  Type:   unauthorized\n"
        "  Detail: 192.0.2.7: Invalid response: 404\n\nHint: …\n"
    )
    assert acme_order.refusal(printed, "Some challenges have failed.\nAsk for help or …\n") == (
        "the authority refuses: www.hello.example.org: 192.0.2.7: Invalid response: 404 (unauthorized)"
    )
    assert acme_order.refusal("", "Saving debug log to x\nAn unexpected error occurred:\ntoo many\n") == (
        "certbot could not fetch a certificate: too many"
    )


class Quiet(SimpleHTTPRequestHandler):
    """Says nothing of what it serves."""

    def log_message(self, *arguments: object) -> None:
        """Leave it away."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """Return a webroot and the port on which it is served."""
    (tmp_path / "served").mkdir()
    made = HTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "served")))
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    yield tmp_path / "served", made.server_port
    made.shutdown()
    thread.join()
    made.server_close()


def at(domain: str) -> acme.Wanted:
    return acme.Wanted("hello", (domain,), "/etc/flask/tls/hello", 443)


def test_a_name_that_leads_here_is_no_fault(server: tuple[Path, int]) -> None:
    webroot, port = server
    assert acme_order.unreachable(at("127.0.0.1"), str(webroot), port) == []
    assert list((webroot / ".well-known/acme-challenge").iterdir()) == []


def test_a_name_that_leads_elsewhere_is_told(server: tuple[Path, int], tmp_path: Path) -> None:
    _webroot, port = server
    [fault] = acme_order.unreachable(at("127.0.0.1"), str(tmp_path / "other"), port)
    assert fault.startswith(
        "hello: 127.0.0.1 leads to 127.0.0.1, which answers GET /.well-known/acme-challenge/… with status "
        "404 and not with this host's proof; correct its A and AAAA records"
    )


def test_a_name_that_does_not_resolve_is_told(tmp_path: Path) -> None:
    [fault] = acme_order.unreachable(at("nowhere.invalid"), str(tmp_path), 80)
    assert fault.startswith("hello: nowhere.invalid does not resolve (")
    assert fault.endswith("; let its A or AAAA record lead to this host, or take it out of domains")


def test_the_key_of_an_external_account_is_on_no_command_line() -> None:
    order = acme_order.Order(HELLO, "https://ca.example.org/", "/w", kid="kid-1", hmac="canary-value")
    with acme_order._settings(order) as command:
        assert "canary-value" not in " ".join(command)
        settings = Path(command[command.index("--config") + 1])
        assert settings.read_text() == "eab-kid = kid-1\neab-hmac-key = canary-value\n"
        assert settings.parent.stat().st_mode & 0o777 == 0o700
    assert not settings.exists()


def test_a_secret_takes_the_place_of_its_name() -> None:
    certificate = {
        "name": "hello",
        "domains": ["hello.example.org"],
        "directory": "/etc/flask/tls/hello",
        "acme": {
            "directory": "https://ca.example.org/",
            "eab": {"kid": "kid-1", "secret": "ACME_EAB_KEY"},
            "webroot": "/w",
            "https_port": 443,
        },
    }
    [order] = acme_orders([certificate], {"hello": {"ACME_EAB_KEY": "canary-value"}})
    assert (order["acme"]["kid"], order["acme"]["hmac"]) == ("kid-1", "canary-value")
