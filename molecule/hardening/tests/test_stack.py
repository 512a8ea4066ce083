"""A hardened host in the whole stack: site.yml, deploys, guests with other addresses, a restart."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import testinfra
import yaml
from testinfra.host import Host

from tests.load import SMALL, Load, Target, Verdict, Versions
from tests.plays import Play, start

EPHEMERAL = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
INVENTORY = EPHEMERAL / "inventory"
AUTHORITY = INVENTORY / ".tls" / "ca.pem"
REACHED = yaml.safe_load((INVENTORY / "connections.yml").read_text())["all"]["hosts"]
CONTROL = 7007
BOOTED = "systemctl is-system-running | grep -Eqx 'running|degraded'"
LIMIT = 180.0
ENOUGH = {kind.name: 15 for kind in SMALL if kind.name != "3 s"} | {"3 s": 2}

# A machine on another wire, with addresses of both kinds: a network namespace, joined to the host by a cable.
# In a container IPv6 is switched off; where it counts, that is a setting of this host alone.
NEIGHBOUR = """
systemctl is-active --quiet neighbour || {
    systemd-run --quiet --service-type=exec --unit=neighbour --property=PrivateNetwork=yes sleep infinity
    unshare --mount sh -c 'mount -o remount,bind,rw /proc/sys
        for where in all default; do echo 0 >/proc/sys/net/ipv6/conf/$where/disable_ipv6; done'
    pid=$(systemctl show --value --property=MainPID neighbour)
    ip link add wire type veth peer name wire netns "$pid"
    ip link set wire up
    ip address add 198.51.100.1/24 dev wire
    ip address add 2001:db8::1/64 dev wire nodad
    ip address add 2001:db8:0:1::1/64 dev wire nodad
    nsenter --net=/proc/$pid/ns/net sh -ec '
        ip link set wire up
        for last in 9 66 77; do ip address add 198.51.100.$last/24 dev wire; done
        for there in ::66 ::67 :0:1::9; do ip address add 2001:db8$there/64 dev wire nodad; done'
}
systemctl show --value --property=MainPID neighbour
"""
# Connects from an address to another one and says what became of it, so many times; with a slash behind the
# number, what a request over TLS is answered.
KNOCK = """
import socket, ssl, sys

source, target, port, how = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
for _ in range(int(how.partition("/")[0])):
    try:
        connection = socket.create_connection((target, port), 1.0, (source, 0))
    except TimeoutError:
        print("silence")
    except ConnectionRefusedError:
        print("refused")
    else:
        connection.settimeout(60)
        if "/" in how:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            connection = context.wrap_socket(connection, server_hostname="closed.example.org")
            connection.sendall(b"GET / HTTP/1.0\\r\\nHost: closed.example.org\\r\\n\\r\\n")
            print(connection.makefile("rb").readline().split()[1].decode())
        else:
            print("open")
        connection.close()
"""
# As Docker 28 writes them through iptables, shortened: a published port, and who may not reach it.
DOCKER = """\
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 172.30.0.0/16 ! -o docker0 -j MASQUERADE
-A DOCKER ! -i docker0 -p tcp -m tcp --dport 5000 -j DNAT --to-destination 172.30.0.2:5000
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER - [0:0]
:DOCKER-FORWARD - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-FORWARD
-A DOCKER -d 172.30.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 5000 -j ACCEPT
-A DOCKER-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A DOCKER-FORWARD -o docker0 -j DOCKER
-A DOCKER-FORWARD -i docker0 -j ACCEPT
COMMIT
"""


@dataclass
class Neighbour:
    """A machine that is neither the operator's nor known to the host."""

    host: Host

    def knocks(self, source: str, target: str, port: int, how: str = "1") -> list[str]:
        pid = self.host.check_output(NEIGHBOUR)
        said: str = self.host.check_output(
            "nsenter --net=/proc/%s/ns/net python3 -c %s %s %s %s %s",
            *(pid, KNOCK, source, target, str(port), how),
        )
        return said.split()


@dataclass
class Story:
    """What became of the plays, and of the requests meanwhile."""

    first: Play
    second: Play
    deploy: Play
    verdict: Verdict


def play(name: str, **variables: Any) -> Play:
    """Run a playbook of the collection, with hardening switched on."""
    output = EPHEMERAL / f"{name}.log"
    return start(INVENTORY, name, output=output, variables={"hardening_enabled": True, **variables}).wait()


@pytest.fixture(scope="session", autouse=True)
def story(platforms: dict[str, Any], hosts: dict[str, Host]) -> Story:
    """Everything once: provision, do it again, deploy something else under load."""
    versions = Versions(EPHEMERAL / "app")
    (versions.directory / "run.txt").write_text(f"{time.time()}\n")
    versions.write("one")
    for host in hosts.values():
        # Before Apache starts, which listens on IPv6 where there is any.
        host.check_output(NEIGHBOUR)
        host.check_output("apt-get update -q && apt-get install -q -y --no-install-recommends iptables")
        echo = (Path(__file__).parents[3] / "tests/load/echo.py").read_text()
        host.check_output("test -e /opt/echo.py || printf %%s %s >/opt/echo.py", echo)
        host.run("systemd-run --unit=load-control /usr/bin/python3 /opt/echo.py %s", str(CONTROL))
    first = play("site")
    assert first.code == 0, first.output
    second = play("site")
    targets = [
        Target(name, one.address, "load.example.org", authority=str(AUTHORITY), control=CONTROL)
        for name, one in platforms.items()
    ]
    with Load(targets, SMALL) as load:
        load.wait(ENOUGH, load.mark(), release="one")
        load.settle()
        versions.write("two")
        deploy = play("deploy")
        load.retire("one", 4.0)
        load.wait(ENOUGH, load.mark(), release="two")
    return Story(first, second, deploy, load.verdict())


@pytest.fixture
def neighbour(host: Host) -> Neighbour:
    """Return a machine on the host's other wire."""
    return Neighbour(host)


def until(question: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + LIMIT
    while not question():
        assert time.monotonic() < end, what
        time.sleep(0.2)


def login(name: str, address: str) -> tuple[int, str]:
    """Log in over a connection of its own."""
    done = subprocess.run(
        [
            *("ssh", "-F", "none", "-i", REACHED[name]["ansible_ssh_private_key_file"]),
            *("-o", "UserKnownHostsFile=/dev/null", "-o", "StrictHostKeyChecking=no", "-o", "BatchMode=yes"),
            *("-o", "LogLevel=ERROR", "-o", "ConnectTimeout=3", f"operator@{address}", "sudo -n id -un"),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.returncode, done.stdout.strip()


class TestStack:
    def test_a_second_run_changes_nothing(self, story: Story) -> None:
        assert (story.second.code, story.second.changed) == (0, 0), story.second.output

    def test_a_deploy_under_hardening_loses_no_request(self, story: Story) -> None:
        assert story.deploy.code == 0, story.deploy.output
        verdict = story.verdict
        assert (verdict.failed, verdict.stale, verdict.slow) == (0, 0, 0), verdict.explain()

    def test_the_sites_are_open_to_everybody_and_nothing_else_is(
        self, host: Host, neighbour: Neighbour
    ) -> None:
        host.run("systemd-run --unit=listener --collect python3 -m http.server --bind :: 8080")
        try:
            until(lambda: host.run("ss -Hltn sport = :8080 | grep -q .").succeeded, "nobody listens")
            for source, target in (("198.51.100.9", "198.51.100.1"), ("2001:db8::66", "2001:db8::1")):
                said = [neighbour.knocks(source, target, port) for port in (22, 80, 443, 8080, 7008)]
                assert said == [["open"], ["open"], ["open"], ["silence"], ["silence"]], source
        finally:
            host.run("systemctl stop listener.service")


class TestGuests:
    def test_who_knocks_too_often_at_ssh_is_not_heard_and_others_are(
        self, platform: Any, host: Host, neighbour: Neighbour
    ) -> None:
        """60 connections at once, then one in two seconds. Of IPv6, a network of /64 has that together."""
        host.check_output("nft flush set inet flaskworks ssh_clients")
        host.check_output("nft flush set inet flaskworks ssh_networks")
        said = neighbour.knocks("198.51.100.77", "198.51.100.1", 22, "64")
        assert said[:60] == ["open"] * 60
        assert "silence" in said[60:]
        assert neighbour.knocks("198.51.100.9", "198.51.100.1", 22) == ["open"]
        assert login(platform.name, platform.address) == (0, "root")
        said = neighbour.knocks("2001:db8::66", "2001:db8::1", 22, "40")
        said += neighbour.knocks("2001:db8::67", "2001:db8::1", 22, "24")
        assert said[:60] == ["open"] * 60
        assert "silence" in said[60:]
        assert neighbour.knocks("2001:db8:0:1::9", "2001:db8:0:1::1", 22) == ["open"]

    def test_who_guesses_passwords_of_a_site_is_shut_out_by_his_address(
        self, platform: Any, host: Host, neighbour: Neighbour
    ) -> None:
        operator = ssl.create_default_context(cafile=str(AUTHORITY))
        for _ in range(25):
            assert status(platform.address, operator) == 401
        assert neighbour.knocks("198.51.100.66", "198.51.100.1", 443, "20/") == ["401"] * 20
        banned = "fail2ban-client get flaskworks-proxy banip"
        until(lambda: "198.51.100.66" in host.check_output(banned).split(), "fail2ban does not see the log")
        assert neighbour.knocks("198.51.100.66", "198.51.100.1", 443) == ["refused"]
        assert neighbour.knocks("198.51.100.9", "198.51.100.1", 443, "1/") == ["401"]
        assert status(platform.address, operator) == 401
        host.check_output("fail2ban-client unban 198.51.100.66")


def status(address: str, context: ssl.SSLContext) -> int:
    """What the closed site answers to whom has no password."""
    with (
        socket.create_connection((address, 443), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="closed.example.org") as connection,
    ):
        connection.sendall(b"GET / HTTP/1.0\r\nHost: closed.example.org\r\n\r\n")
        return int(connection.makefile("rb").readline().split()[1])


def test_rules_of_docker_stay(hosts: dict[str, Host]) -> None:
    """Whatever is done with our rules; and ours are back when somebody flushes all of them."""
    loaded = "nft --stateless --terse list table inet flaskworks"
    listed = "iptables-save | sed -E '/^#/d; s/ \\[[0-9:]+\\]$//'"
    for host in hosts.values():
        host.check_output(f"iptables-restore --noflush <<'END'\n{DOCKER}END")
    before = {name: host.check_output(listed) for name, host in hosts.items()}
    assert all("--dport 5000 -j DNAT --to-destination 172.30.0.2:5000" in text for text in before.values())
    for host in hosts.values():
        host.check_output("nft delete table inet flaskworks")
    again = play("provision")
    assert again.code == 0, again.output
    for host in hosts.values():
        host.check_output("systemctl restart flaskworks-access.service")
        host.check_output("systemctl reload flaskworks-access.service")
    assert {name: host.check_output(listed) for name, host in hosts.items()} == before
    for host in hosts.values():
        ours = host.check_output(loaded)
        # Debian's unit flushes everything, as its settings say; Docker writes its rules when it starts.
        host.check_output("systemctl restart nftables.service")
        assert host.check_output(loaded) == ours
        host.check_output("systemctl reload nftables.service")
        assert host.check_output(loaded) == ours


def test_a_host_that_restarts_is_as_it_was(platforms: dict[str, Any], hosts: dict[str, Host]) -> None:
    """Last, because a container may come back with another address."""
    rules = "nft --stateless --terse list table inet flaskworks"
    asked = f"readlink /srv/load/current; {rules}; /usr/sbin/sshd -T"
    before = {name: host.check_output(asked) for name, host in hosts.items()}
    for host in hosts.values():
        host.check_output("logger -t before 'said before the restart' && journalctl --sync")
    containers = [one.container for one in platforms.values()]
    subprocess.run(["docker", "restart", *containers], check=True, capture_output=True, timeout=LIMIT)
    for name, one in platforms.items():
        assert _back(name, one.container, asked) == before[name]


def _serves(address: str, context: ssl.SSLContext) -> bool:
    try:
        return status(address, context) == 401
    except OSError:
        return False


def _back(name: str, container: str, asked: str) -> str:
    """Assert that a host that was restarted does what it did; what it says of itself."""
    host = testinfra.get_host(f"docker://{container}")
    context = ssl.create_default_context(cafile=str(AUTHORITY))
    until(lambda: host.run(BOOTED).succeeded, "it does not come up")
    (found,) = json.loads(subprocess.check_output(["docker", "inspect", container]))
    (network,) = found["NetworkSettings"]["Networks"].values()
    address = network["IPAddress"]
    until(lambda: login(name, address) == (0, "root"), f"{name} does not let its operator in")
    until(lambda: _serves(address, context), f"{name} does not serve")
    units = "fail2ban.service flaskworks-access.service flaskworks-bans.path"
    assert host.check_output(f"systemctl is-active {units}").split() == ["active"] * 3
    assert host.check_output("fail2ban-client status | tail -1").endswith("flaskworks-proxy, sshd")
    neighbour = Neighbour(host)
    said = [neighbour.knocks("198.51.100.9", "198.51.100.1", port) for port in (22, 443, 7008)]
    assert said == [["open"], ["open"], ["silence"]]
    assert "said before the restart" in host.check_output("journalctl --identifier=before")
    told: str = host.check_output(asked)
    return told
