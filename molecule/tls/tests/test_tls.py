"""Key pairs that a real server can use and a strict client believes, through renewals and kills."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

EPHEMERAL = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
AUTHORITY = EPHEMERAL / "authority" / "tls"
PROVIDED = EPHEMERAL / "provided"
CONVERGE = Path(__file__).resolve().parents[1] / "converge.yml"
COMMAND = ["ansible-playbook", "-i", str(EPHEMERAL / "inventory"), str(CONVERGE)]


def converge(*arguments: str) -> str:
    """Run the scenario's own playbook again; its output."""
    run = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout + run.stderr


def refused(*arguments: str) -> str:
    """Run it, expecting failure; its output as one line."""
    run = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False)
    assert run.returncode == 2, run.stdout + run.stderr
    return " ".join((run.stdout + run.stderr).split())


def target(host: Host, name: str) -> str:
    return str(host.check_output(f"readlink /etc/flask/tls/{name}"))


@contextmanager
def server(host: Host, name: str) -> Iterator[int]:
    """Serve a pair on the host with openssl's own server; the port."""
    port = 8443
    pair = f"/etc/flask/tls/{name}"
    files = f"-cert {pair}/fullchain.pem -key {pair}/privkey.pem"
    host.check_output(
        f"systemd-run --collect -u tls-test-{name} openssl s_server -accept {port} {files} -www"
    )
    try:
        yield port
    finally:
        host.check_output(f"systemctl stop tls-test-{name}")


def handshake(address: str, port: int, name: str, trusted: Path) -> dict[str, Any]:
    """Connect as a strict client that trusts one file; the server's certificate."""
    client = ssl.create_default_context(cafile=str(trusted))
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    for _attempt in range(50):
        try:
            plain = socket.create_connection((address, port), timeout=5)
        except ConnectionRefusedError:
            time.sleep(0.1)
            continue
        with plain, client.wrap_socket(plain, server_hostname=name) as channel:
            return channel.getpeercert() or {}
    raise AssertionError(f"nothing listens on {address}:{port}")


@pytest.mark.parametrize(
    ("certificate", "name"),
    [
        ("hello", "hello.example.org"),
        ("hello", "www.hello.example.org"),
        ("reports", "reports.example.org"),
        ("shop", "www.shop.example.net"),
    ],
)
def test_strict_clients_believe_the_server(host: Host, platform: Any, certificate: str, name: str) -> None:
    trusted = PROVIDED / "shop.pem" if certificate == "shop" else AUTHORITY / "ca.pem"
    with server(host, certificate) as port:
        assert handshake(platform.address, port, name, trusted)["subject"]
        with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
            handshake(platform.address, port, "other.example.org", trusted)


@pytest.mark.parametrize("name", ["hello", "reports", "shop"])
def test_only_root_reads_the_keys(host: Host, name: str) -> None:
    key = host.file(f"/etc/flask/tls/{name}/privkey.pem")
    chain = host.file(f"/etc/flask/tls/{name}/fullchain.pem")
    assert (key.user, key.group, key.mode) == ("root", "root", 0o600)
    assert (chain.user, chain.group, chain.mode) == ("root", "root", 0o644)
    assert host.file("/etc/flask/tls").mode == 0o755
    assert host.run(f"runuser -u nobody -- cat /etc/flask/tls/{name}/privkey.pem").rc != 0


def test_the_authority_stays_on_the_controller(host: Host) -> None:
    signer = (AUTHORITY / "ca.key").read_text().splitlines()[1]
    assert (AUTHORITY / "ca.key").stat().st_mode & 0o777 == 0o600
    assert host.run(f"grep -rlF -- '{signer}' /etc /var /root /tmp /srv").stdout == ""


def test_no_key_is_told_however_much_is_asked(host: Host, tmp_path: Path) -> None:
    host.check_output("rm /etc/flask/tls/hello /etc/flask/tls/shop")
    secret = (PROVIDED / "shop.key").read_text()
    password, variables = tmp_path / "password", tmp_path / "secrets.yml"
    password.write_text("open sesame")
    variables.write_text(json.dumps({"shop_privkey": secret}))
    vault = ["--vault-password-file", str(password)]
    subprocess.run(["ansible-vault", "encrypt", *vault, str(variables)], check=True, capture_output=True)
    output = converge("-vvv", "--diff", *vault, "-e", f"@{variables}")
    assert re.search(r"changed=1\b", output)
    assert "subject: hello.example.org" in output
    made = host.check_output("cat /etc/flask/tls/hello/privkey.pem")
    for key in (made, secret, (AUTHORITY / "ca.key").read_text()):
        assert key.splitlines()[1] not in output
    assert "PRIVATE KEY" not in output


def test_a_vaulted_key_file_will_do(host: Host, tmp_path: Path) -> None:
    password, key = tmp_path / "password", tmp_path / "shop.key"
    password.write_text("open sesame")
    key.write_text((PROVIDED / "shop.key").read_text())
    vault = ["--vault-password-file", str(password)]
    subprocess.run(["ansible-vault", "encrypt", *vault, str(key)], check=True, capture_output=True)
    host.check_output("rm /etc/flask/tls/shop")
    converge(*vault, "-e", f"shop_privkey={key}")
    assert loads(host, "shop")


def test_a_certificate_close_to_its_end_is_renewed_alone(host: Host) -> None:
    host.check_output("rm /etc/flask/tls/hello")
    assert re.search(r"changed=1\b", converge("-e", "{hello_days: 20, hello_renew_before: 10}"))
    hello, reports = target(host, "hello"), target(host, "reports")
    assert re.search(r"hello: issued again until .* \(the old one expires on ", converge("-v"))
    assert target(host, "hello") != hello
    assert target(host, "reports") == reports
    assert host.file(f"/etc/flask/tls/{hello}/privkey.pem").exists


def test_a_new_domain_is_served_after_the_next_run(host: Host, platform: Any) -> None:
    converge("-e", "{hello_domains: [hello.example.org, new.example.org]}")
    with server(host, "hello") as port:
        assert handshake(platform.address, port, "new.example.org", AUTHORITY / "ca.pem")
    assert len(host.check_output("ls -d /etc/flask/tls/.pairs/hello-*").split()) == 2


def test_names_outside_the_limits_are_refused_before_anything_changes(host: Host) -> None:
    hello = target(host, "hello")
    output = refused("-e", "{hello_domains: [hello.example.net]}")
    assert "not for hello.example.net; move ca.pem and ca.key away" in output
    assert target(host, "hello") == hello


def test_check_tells_and_changes_nothing(host: Host) -> None:
    hello = target(host, "hello")
    output = converge("--check", "--diff", "-e", "{hello_domains: [hello.example.org, later.example.org]}")
    assert "+names: hello.example.org later.example.org" in output
    assert target(host, "hello") == hello
    assert host.run("ls -A /etc/flask/tls/.pairs | grep -F .pending").stdout == ""


def test_open_permissions_are_closed_without_a_new_pair(host: Host) -> None:
    shop = target(host, "shop")
    host.check_output("chmod 0644 /etc/flask/tls/shop/privkey.pem")
    assert "shop: permissions corrected" in converge("-v")
    assert host.file("/etc/flask/tls/shop/privkey.pem").mode == 0o600
    assert target(host, "shop") == shop


def loads(host: Host, name: str) -> bool:
    """Whether a server could use the pair: the public halves are equal."""
    pair = f"/etc/flask/tls/{name}"
    certified = host.run(f"openssl x509 -in {pair}/fullchain.pem -noout -pubkey")
    own = host.run(f"openssl pkey -in {pair}/privkey.pem -pubout")
    return bool(certified.rc == own.rc == 0 and certified.stdout == own.stdout)


def kill_after(seconds: float, *arguments: str) -> None:
    """Start a run in its own process group and kill all of it, or let it end if it is faster."""
    run = subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        run.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()


def test_a_killed_run_leaves_a_good_pair_and_the_next_is_green(host: Host) -> None:
    for number, seconds in enumerate((1.8, 2.6)):
        domains = f"{{hello_domains: [hello.example.org, n{number}.example.org]}}"
        kill_after(seconds, "-e", domains)
        assert loads(host, "hello")
        converge("-e", domains)
        assert loads(host, "hello")
    assert re.search(r"changed=0\b", converge("-e", domains))
    assert host.run("ls -A /etc/flask/tls/.pairs | grep -E '^[.](new|pending|link)'").stdout == ""


def test_a_module_killed_after_the_switch_owes_its_commands(host: Host) -> None:
    host.check_output("rm /etc/flask/tls/hello")
    refused("-e", "{tls_apply: [[sh, -c, 'kill -9 $PPID']]}")
    assert loads(host, "hello")
    hello = target(host, "hello")
    applied = ["-e", "{tls_apply: [[touch, /run/applied]]}"]
    assert re.search(r"changed=1\b", converge(*applied))
    assert host.file("/run/applied").exists
    assert target(host, "hello") == hello


@pytest.fixture
def told(host: Host) -> Iterator[Callable[[], int]]:
    """A service in nginx's place that counts how often it was told to reload."""
    unit = (
        "[Service]\nExecStart=sleep infinity\nExecReload=sh -c 'echo >> /run/told; test ! -e /run/refuse'\n"
    )
    path = "/run/systemd/system/nginx.service"
    host.check_output(
        f"mkdir -p /run/systemd/system && cat > {path} <<'END'\n{unit}END\nsystemctl daemon-reload"
    )
    host.check_output("systemctl start nginx.service && rm -f /run/told /run/refuse && touch /run/told")
    yield lambda: len(host.check_output("cat /run/told; echo end").splitlines()) - 1
    host.check_output(
        f"systemctl stop nginx.service; rm -f {path} /run/told /run/refuse; systemctl daemon-reload"
    )


def test_a_running_proxy_is_told_until_it_listens(host: Host, told: Callable[[], int]) -> None:
    converge()
    before = told()
    host.check_output("touch /run/refuse; rm /etc/flask/tls/hello")
    assert "the command is repeated" in refused()
    assert loads(host, "hello")
    assert told() == before + 1
    host.check_output("rm /run/refuse")
    assert re.search(r"changed=1\b", converge())
    assert told() == before + 2
    assert re.search(r"changed=0\b", converge())
    assert told() == before + 2
