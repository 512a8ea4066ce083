"""The host's part of ACME: what is asked for and what is told, without an authority."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.flaskworks.server.plugins.filter.acme_orders import acme_orders
from ansible_collections.flaskworks.server.plugins.module_utils import acme, acme_order
from ansible_collections.flaskworks.server.plugins.modules import acme as module

ROOT = Path(__file__).parents[2]
CA = "https://ca.example.org/directory"
HELLO = acme.Wanted("hello", ("hello.example.org", "www.hello.example.org"), "/etc/flask/tls/hello", 443)


@pytest.fixture
def letsencrypt(tmp_path: Path) -> Path:
    """Return a directory as certbot keeps it, with one lineage."""
    (tmp_path / "renewal").mkdir()
    (tmp_path / "live/flask-hello").mkdir(parents=True)
    (tmp_path / "archive/flask-hello").mkdir(parents=True)
    (tmp_path / "renewal/flask-hello.conf").write_text(
        "[renewalparams]\n"
        "server = https://ca.example.org/directory\nkey_type = ecdsa\nauthenticator = webroot\n"
        f"renew_hook = {acme.HOOK}\n"
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


@dataclass(frozen=True)
class Issued:
    """What certbot has fetched, and where it is to be live."""

    letsencrypt: Path
    wanted: acme.Wanted
    certificate: bytes
    other_key: str


@pytest.fixture
def issued(tmp_path: Path) -> Issued:
    live = tmp_path / "letsencrypt/live/flask-hello"
    live.mkdir(parents=True)
    keys = []
    for key, chain in (("other.pem", "/dev/null"), ("privkey.pem", str(live / "fullchain.pem"))):
        command = [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
        ]
        command += ["-keyout", str(live / key), "-out", chain, "-days", "2", "-subj", "/CN=x"]
        subprocess.run(command, check=True, capture_output=True)
        keys.append((live / key).read_text())
    return Issued(
        tmp_path / "letsencrypt",
        acme.Wanted("hello", ("hello.example.org",), str(tmp_path / "tls/hello"), 443),
        ssl.PEM_cert_to_DER_cert((live / "fullchain.pem").read_text()),
        keys[0],
    )


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
    assert acme.reason(HELLO, {"preferred_profile": ""}, here) == ""
    assert acme.reason(HELLO, {"authenticator": "dns-rfc2136"}, here) == "its authenticator was webroot"


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
    assert acme_order.refusal(printed, "Some challenges have failed.\nAsk for help or …\n", CA) == (
        "the authority refuses: www.hello.example.org: 192.0.2.7: Invalid response: 404 (unauthorized)"
    )
    told = "Saving debug log to x\nAn unexpected error occurred:\ntoo many\n"
    assert acme_order.refusal("", told, CA) == "certbot could not fetch a certificate: too many"


@pytest.mark.parametrize(
    ("printed", "sentence"),
    [
        (
            "ValueError: Requesting ca.example.org/directory: Connection refused",
            (
                "the authority https://ca.example.org/directory cannot be reached from this host (Connection "
                "refused); correct that and run again"
            ),
        ),
        (
            (
                "requests.exceptions.ConnectionError: HTTPSConnectionPool(host='ca.example.org', "
                "port=443): Max "
                'retries exceeded with url: /directory (Caused by NameResolutionError("<urllib3.connection.'
                "HTTPSConnection object at 0x7f>: Failed to resolve 'ca.example.org' ([Errno -2] Name or "
                'service not known)"))'
            ),
            (
                "the authority https://ca.example.org/directory cannot be reached from this host (Name or "
                "service not known); correct that and run again"
            ),
        ),
        (
            (
                "requests.exceptions.ReadTimeout: HTTPSConnectionPool(host='ca.example.org', port=443): Read "
                "timed out. (read timeout=45)"
            ),
            (
                "the authority https://ca.example.org/directory cannot be reached from this host (no "
                "answer); "
                "correct that and run again"
            ),
        ),
        (
            (
                "requests.exceptions.SSLError: HTTPSConnectionPool(host='ca.example.org', port=443): Max "
                "retries "
                "exceeded with url: /directory (Caused by SSLError(SSLCertVerificationError(1, '[SSL: "
                "CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate "
                "(_ssl.c:1000)')))"
            ),
            (
                "the authority https://ca.example.org/directory shows a certificate that this host does not "
                "trust; say in tls.root what it is checked with"
            ),
        ),
    ],
)
def test_an_authority_that_cannot_be_asked_is_told(printed: str, sentence: str) -> None:
    assert acme_order.refusal("", f"An unexpected error occurred:\n{printed}\n", CA) == sentence


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


def test_what_certbot_is_asked(tmp_path: Path) -> None:
    by_http = acme_order.Order(
        HELLO, CA, "/var/lib/flask/acme", email="ops@example.org", profile="shortlived"
    )
    with acme_order._settings(by_http) as command:
        assert command[:3] == ["certbot", "certonly", "--config"]
        assert " ".join(command[4:]) == (
            "--non-interactive --agree-tos --email ops@example.org --no-eff-email "
            "--server https://ca.example.org/directory --cert-name flask-hello "
            "--key-type ecdsa --elliptic-curve secp256r1 --preferred-profile shortlived "
            "--webroot --webroot-path /var/lib/flask/acme --force-renewal --renew-with-new-domains "
            "--deploy-hook /usr/local/lib/flaskworks/acme-certificate "
            "--domain hello.example.org --domain www.hello.example.org"
        )
    with acme_order._settings(acme_order.Order(HELLO, CA, "/w", dns_wait=30)) as command:
        told = " ".join(command)
    assert "--register-unsafely-without-email" in told
    assert "--webroot" not in told
    assert (
        "--dns-rfc2136 --dns-rfc2136-propagation-seconds 30 "
        "--dns-rfc2136-credentials /etc/flask/acme-dns/hello.ini"
    ) in told


def test_the_key_of_a_name_server_is_for_root_alone(tmp_path: Path) -> None:
    dns = {
        "server": "192.0.2.53",
        "port": 53,
        "key": "acme.example.org",
        "secret": "canary",
        "algorithm": "HMAC-SHA256",
    }
    text = acme_order.credentials(dns)
    assert text == (
        "# Ansible managed\ndns_rfc2136_server = 192.0.2.53\ndns_rfc2136_port = 53\n"
        "dns_rfc2136_name = acme.example.org\ndns_rfc2136_secret = canary\n"
        "dns_rfc2136_algorithm = HMAC-SHA256\n"
    )
    place = tmp_path / "acme-dns"
    assert acme.keep_credentials("hello", text, str(place)) is True
    assert acme.keep_credentials("hello", text, str(place)) is False
    assert [(path.name, path.stat().st_mode & 0o777) for path in place.iterdir()] == [("hello.ini", 0o600)]
    (place / "hello.ini").chmod(0o644)
    assert acme.keep_credentials("hello", text, str(place)) is True
    assert (place / "hello.ini").stat().st_mode & 0o777 == 0o600
    assert acme.forget_credentials("hello", str(place)) is True
    assert acme.forget_credentials("hello", str(place)) is False


class Proxy:
    """A proxy that shows a certificate once it has been reloaded."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, *, running: bool = True, refuses: bool = False
    ) -> None:
        self.running, self.refuses, self.reloads = running, refuses, 0
        self.loaded = self.on_disk = b""
        monkeypatch.setattr(acme, "shown", lambda _port, _name: self.loaded)
        monkeypatch.setattr(subprocess, "run", self.systemctl)

    def systemctl(self, command: list[str], **_settings: Any) -> subprocess.CompletedProcess[str]:
        if command[1] == "list-units":
            return subprocess.CompletedProcess(command, 0, "nginx.service" if self.running else "", "")
        assert command[:2] == ["systemctl", "try-reload-or-restart"]
        self.reloads += 1
        if self.refuses:
            return subprocess.CompletedProcess(command, 1, "", "nginx.service: control process exited")
        self.loaded = self.on_disk
        return subprocess.CompletedProcess(command, 0, "", "")


def test_a_new_pair_is_installed_and_the_proxy_shows_it(
    issued: Issued, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = Proxy(monkeypatch)
    proxy.on_disk = issued.certificate
    assert acme.deploy(issued.wanted, str(issued.letsencrypt)) == "installed"
    pair = Path(issued.wanted.directory)
    assert pair.is_symlink()
    assert (pair / "privkey.pem").stat().st_mode & 0o777 == 0o600
    assert proxy.reloads == 1
    assert acme.deploy(issued.wanted, str(issued.letsencrypt)) == ""
    assert proxy.reloads == 1
    proxy.loaded = b"another one"  # as after a reload that failed
    assert acme.deploy(issued.wanted, str(issued.letsencrypt)) == "the proxy was told of it"
    assert (proxy.reloads, proxy.loaded) == (2, issued.certificate)


def test_without_a_proxy_there_is_nobody_to_tell(issued: Issued, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = Proxy(monkeypatch, running=False)
    assert acme.deploy(issued.wanted, str(issued.letsencrypt)) == "installed"
    assert acme.deploy(issued.wanted, str(issued.letsencrypt)) == ""
    assert proxy.reloads == 0


def test_a_proxy_that_refuses_is_told(issued: Issued, monkeypatch: pytest.MonkeyPatch) -> None:
    Proxy(monkeypatch, refuses=True)
    with pytest.raises(acme.AcmeError) as error:
        acme.deploy(issued.wanted, str(issued.letsencrypt))
    assert str(error.value) == (
        "hello: the new certificate is in place, but the proxy refuses to load it: nginx.service: control "
        "process exited; it serves the old one until that is put right"
    )


def test_a_proxy_that_does_not_show_it_is_told(issued: Issued, monkeypatch: pytest.MonkeyPatch) -> None:
    Proxy(monkeypatch)
    monkeypatch.setattr(acme, "PATIENCE", 0.0)
    with pytest.raises(acme.AcmeError) as error:
        acme.deploy(issued.wanted, str(issued.letsencrypt))
    assert str(error.value) == (
        "hello: the new certificate is in place, but 0 s after the reload port 443 does not show it for "
        "hello.example.org; see the proxy's error log"
    )


def test_a_key_of_another_certificate_is_not_installed(
    issued: Issued, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = Proxy(monkeypatch)
    (issued.letsencrypt / "live/flask-hello/privkey.pem").write_text(issued.other_key)
    with pytest.raises(acme.AcmeError) as error:
        acme.deploy(issued.wanted, str(issued.letsencrypt))
    assert str(error.value) == (
        "hello: the new pair has a private key that does not belong to its certificate; the old "
        "one stays live"
    )
    assert proxy.reloads == 0
    assert not Path(issued.wanted.directory).exists()


def test_the_hook_deploys_what_was_renewed_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = tmp_path / "acme.conf"
    settings.write_text(
        "".join(
            f"[{name}]\ndomains = {name}.example.org\ndirectory = /t/{name}\nhttps_port = 443\n\n"
            for name in ("hello", "reports", "waits")
        )
    )
    (tmp_path / "renewal").mkdir()
    for name in ("hello", "reports"):
        (tmp_path / f"renewal/flask-{name}.conf").write_text("")
    monkeypatch.setattr(acme, "LETSENCRYPT", str(tmp_path))
    deployed: list[str] = []

    def deploy(wanted: acme.Wanted) -> str:
        deployed.append(wanted.name)
        if wanted.name == "reports" and len(deployed) > 2:
            raise acme.AcmeError("reports: the proxy refuses")
        return "installed"

    monkeypatch.setattr(acme, "deploy", deploy)
    renewed = {"RENEWED_LINEAGE": "/etc/letsencrypt/live/flask-hello"}
    assert acme.main([], renewed, str(settings)) == 0
    assert acme.main([], {"RENEWED_LINEAGE": "/etc/letsencrypt/live/shop"}, str(settings)) == 0
    assert deployed == ["hello"]
    assert acme.main(["--all"], {}, str(settings)) == 1
    assert deployed == ["hello", "hello", "reports"]
    told = capsys.readouterr()
    assert told.out.splitlines()[0] == "hello: installed, no certificate"
    assert told.err == "reports: the proxy refuses\n"


class Called:
    """The module as `provide` sees it, and what it has others do."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, *, check_mode: bool = False, profiles: bool = True
    ) -> None:
        self.check_mode, self.params = check_mode, {"profiles": profiles}
        self.warnings: list[str] = []
        self.done: list[str] = []
        self.orders: list[acme_order.Order] = []
        self.faults: list[str] = []
        monkeypatch.setattr(acme, "LETSENCRYPT", "/nowhere")
        monkeypatch.setattr(
            acme, "reason", lambda _wanted, settings: settings["server"] and "there is none yet"
        )
        monkeypatch.setattr(acme, "deploy", lambda _wanted: self.note("deployed", "installed"))
        monkeypatch.setattr(acme, "keep_credentials", lambda _name, text: self.note(text, False))
        monkeypatch.setattr(acme, "forget_credentials", lambda _name: self.note("forgotten", False))
        monkeypatch.setattr(acme_order, "make_webroot", self.done.append)
        monkeypatch.setattr(acme_order, "unreachable", self.unreachable)
        monkeypatch.setattr(acme_order, "issue", self.orders.append)

    def note(self, what: str, answer: Any) -> Any:
        self.done.append(what)
        return answer

    def unreachable(self, _wanted: acme.Wanted, _webroot: str) -> list[str]:
        self.done.append("asked itself")
        return self.faults

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def provide(self, **given: Any) -> str:
        order = {"directory": CA, "webroot": "/w", "https_port": 443, "reachable": True, "profile": None}
        nothing = {"email": None, "kid": None, "hmac": None, "dns": None}
        return module.provide(self, HELLO, {**nothing, **order, **given})


def test_check_mode_asks_nobody_and_writes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    called = Called(monkeypatch, check_mode=True)
    assert called.provide() == "would be issued because there is none yet"
    assert (called.done, called.orders) == ([], [])


def test_an_authority_is_asked_when_the_host_has_found_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    called = Called(monkeypatch)
    assert called.provide(email="ops@example.org", profile="shortlived") == "issued because there is none yet"
    assert called.done == ["forgotten", "/w", "asked itself", "deployed"]
    assert called.orders == [
        acme_order.Order(HELLO, CA, "/w", "ops@example.org", profile="shortlived", dns_wait=0)
    ]


def test_no_authority_is_asked_for_names_that_lead_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    called = Called(monkeypatch)
    called.faults = ["hello: a.example.org does not resolve", "hello: b.example.org does not resolve"]
    with pytest.raises(acme.AcmeError) as error:
        called.provide()
    assert str(error.value) == (
        "hello: a.example.org does not resolve\nhello: b.example.org does not resolve"
    )
    assert called.orders == []


def test_a_host_that_cannot_ask_itself_is_not_made_to(monkeypatch: pytest.MonkeyPatch) -> None:
    called = Called(monkeypatch)
    called.provide(reachable=False)
    assert called.done == ["forgotten", "/w", "deployed"]


def test_where_a_name_server_takes_the_proof_the_host_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    called = Called(monkeypatch)
    dns = {
        "server": "192.0.2.53",
        "port": 53,
        "key": "k",
        "algorithm": "HMAC-SHA512",
        "secret": "s",
        "wait": 30,
    }
    called.provide(dns=dns)
    assert called.done == [acme_order.credentials(dns), "deployed"]
    assert [order.dns_wait for order in called.orders] == [30]


def test_a_certbot_that_knows_no_profiles_is_not_asked_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    called = Called(monkeypatch, profiles=False)
    called.provide(profile="shortlived")
    assert [order.profile for order in called.orders] == [""]
    assert called.warnings == [
        (
            "hello: the certbot of this host cannot ask for the profile 'shortlived' (Debian 13 can); the "
            "authority chooses"
        )
    ]


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
    assert order["acme"]["dns"] is None
    dns = {"server": "192.0.2.53", "port": 53, "key": "k", "algorithm": "HMAC-SHA512", "wait": 60}
    certificate["acme"] = {
        "directory": CA,
        "dns": {**dns, "secret": "ACME_DNS_KEY"},
        "webroot": "/w",
        "https_port": 443,
    }
    [order] = acme_orders([certificate], {"hello": {"ACME_DNS_KEY": "canary-value"}})
    assert order["acme"]["dns"] == {**dns, "secret": "canary-value"}
    with pytest.raises(AnsibleFilterError) as error:
        acme_orders([certificate], {})
    assert str(error.value) == "hello: secret ACME_DNS_KEY has no value; add it to tls_secrets.hello"
