"""A hardened host, asked from outside; and what becomes of a change that locks its operator out."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from testinfra.host import Host

from tests.plays import Running

ROOT = Path(__file__).parents[3]
INVENTORY = Path(os.environ["MOLECULE_INVENTORY_FILE"]).parent
REACHED = yaml.safe_load((INVENTORY / "connections.yml").read_text())["all"]["hosts"]
LIMIT = 180.0
"""Seconds after which something that has not happened will not happen any more."""

DROP_IN = "/etc/ssh/sshd_config.d/00-flaskworks.conf"
RULES = "/etc/flaskworks/firewall.nft"
ARMED = "/var/lib/flaskworks/access/revert"
NOWHERE = "192.0.2.0/24"
REFUSED = (
    "the play connects to port 22, and sshd would listen on 2222: name both in hardening_ssh_ports, "
    "then change ansible_port, and take the old one away last; the play connects as operator, who is not in "
    "AllowUsers (alice): add him to hardening_ssh_allow_users. Nothing was changed"
)
ANSWER = """\
import ctypes, os, signal, socket

ctypes.CDLL("/usr/lib/libflaskworks-test.so")
ending = []
signal.signal(signal.SIGTERM, lambda *_: ending.append(1))
listener = socket.socket(fileno=3)
listener.settimeout(0.1)
while not ending:
    try:
        connection, _address = listener.accept()
    except TimeoutError:
        continue
    connection.settimeout(10)
    connection.recv(4096)
    connection.sendall(f"HTTP/1.0 200 OK\\r\\n\\r\\n{os.getpid()}".encode())
    connection.close()
"""
SOCKET = "[Socket]\nListenStream=127.0.0.1:8099"
SERVICE = "[Service]\nExecStart=/usr/bin/python3 /usr/local/bin/answer"
# Two versions of a package with a library, and where apt finds the second one, and no other: as an archive of
# security updates calls itself.
PACKAGES = """
set -e
rm -rf /tmp/packages && mkdir -p /tmp/packages && cd /tmp/packages
mkdir -p tree/DEBIAN tree/usr/lib
cp "$(find /usr/lib -name libz.so.1 | head -1)" tree/usr/lib/libflaskworks-test.so
for version in 1 2; do
    cat >tree/DEBIAN/control <<END
Package: flaskworks-test
Version: $version
Architecture: all
Maintainer: Test <test@example.org>
Description: library of a test
END
    dpkg-deb --build tree $version.deb >/dev/null
done
dpkg --install 1.deb >/dev/null
cat tree/DEBIAN/control - >Packages <<END
Filename: ./2.deb
Size: $(stat -c %s 2.deb)
SHA256: $(sha256sum 2.deb | cut -d' ' -f1)
END
. /etc/os-release
cat >Release <<END
Origin: Debian
Label: Debian-Security
Suite: stable-security
Codename: $VERSION_CODENAME-security
Date: $(LC_ALL=C date -Ru)
SHA256:
 $(sha256sum Packages | cut -d' ' -f1) $(stat -c %s Packages) Packages
END
echo 'deb [trusted=yes] file:/tmp/packages ./' >/tmp/only.list
mkdir -p /tmp/lists
cat >/tmp/only.conf <<END
Dir::Etc::sourcelist "/tmp/only.list";
Dir::Etc::sourceparts "/dev/null";
Dir::State::lists "/tmp/lists";
END
chmod -R a+rX /tmp/packages
APT_CONFIG=/tmp/only.conf apt-get -q update
"""
LOADED = f"nft list chain inet flaskworks ssh | grep -qF {NOWHERE}"


def change(tmp_path: Path, variables: dict[str, Any]) -> Running:
    """Begin to change how all hosts are reached, with other variables."""
    return Running(
        [
            *("ansible-playbook", "-i", str(INVENTORY), str(ROOT / "molecule/hardening/access.yml")),
            *("-e", json.dumps(variables)),
        ],
        {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0"},
        tmp_path / f"{time.monotonic_ns()}.log",
    )


def ask(name: str, user: str, command: str) -> subprocess.CompletedProcess[str]:
    """Run a command over a connection of its own, as the operator's own ssh would."""
    return subprocess.run(
        [
            *("ssh", "-F", "none", "-i", REACHED[name]["ansible_ssh_private_key_file"]),
            *("-o", "UserKnownHostsFile=/dev/null", "-o", "StrictHostKeyChecking=no", "-o", "BatchMode=yes"),
            *("-o", "ConnectTimeout=3", f"{user}@{REACHED[name]['address']}", command),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def login(name: str, user: str = "operator") -> tuple[int, str]:
    """Log in and become root."""
    done = ask(name, user, "sudo -n id -un")
    return done.returncode, done.stdout.strip()


def opens(name: str, port: int) -> str:
    """What becomes of a connection to a port: "open", "refused" or, when nobody answers, "silence"."""
    try:
        socket.create_connection((REACHED[name]["address"], port), timeout=2).close()
    except ConnectionRefusedError:
        return "refused"
    except TimeoutError:
        return "silence"
    return "open"


def state(host: Host) -> str:
    """All that decides how a host is reached: its files, the rules that are loaded, and what sshd says."""
    said: str = host.check_output(
        f"cat {DROP_IN} {RULES}; nft --terse --stateless list ruleset; /usr/sbin/sshd -T"
    )
    return said


def until(question: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + LIMIT
    while not question():
        assert time.monotonic() < end, what
        time.sleep(0.2)


def let_in(name: str) -> bool:
    """Whether the operator gets in, now or soon: sshd makes a client wait whom it has refused before."""
    until(lambda: login(name) == (0, "root"), f"{name} does not let its operator in")
    return True


@pytest.fixture
def as_before(hosts: dict[str, Host]) -> Iterator[None]:
    """Assert that every host is afterwards as it was, with nothing armed, and lets its operator in."""
    before = {name: state(host) for name, host in hosts.items()}
    yield
    assert not any(host.file(ARMED).exists for host in hosts.values())
    assert {name: state(host) for name, host in hosts.items()} == before
    assert all(let_in(name) for name in hosts)


class TestReached:
    def test_people_get_in_with_their_keys(self, platform: Any) -> None:
        assert login(platform.name) == (0, "root")
        assert login(platform.name, "alice") == (0, "root")
        assert login(platform.name, "root")[0] == 255

    def test_a_session_begins_with_a_warning_and_keeps_what_it_makes_to_itself(self, platform: Any) -> None:
        done = ask(platform.name, "alice", "bash -lc 'umask; ulimit -Hc'")
        assert done.stdout.split() == ["0027", "0"]
        assert "This system is private. Access is for authorized users only" in done.stderr

    def test_a_password_is_not_asked_for(self, platform: Any) -> None:
        told = subprocess.run(
            [
                *("ssh", "-F", "none", "-v", "-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes"),
                *("-o", "StrictHostKeyChecking=no", "-o", "PubkeyAuthentication=no"),
                f"alice@{platform.address}",
            ],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert told.returncode == 255
        assert "Permission denied (publickey)." in told.stderr

    def test_what_nobody_opened_does_not_answer(self, platform: Any, host: Host) -> None:
        host.check_output("systemd-run --unit=listener --collect python3 -m http.server 8080")
        try:
            host.check_output(
                "timeout 60 sh -c 'until ss -Hltn sport = :8080 | grep -q .; do sleep 0.1; done'"
            )
            assert [opens(platform.name, port) for port in (22, 8080)] == ["open", "silence"]
            assert "silence" not in [opens(platform.name, port) for port in (80, 443)]
            # The host itself, and what it asks for, is another matter.
            host.check_output(
                "python3 -c \"import socket; socket.create_connection(('127.0.0.1', 8080), 5)\""
            )
        finally:
            host.run("systemctl stop listener.service")

    def test_rules_of_others_stay(self, hosts: dict[str, Host], tmp_path: Path) -> None:
        for host in hosts.values():
            host.check_output("nft add table ip stranger && nft add chain ip stranger kept")
            host.check_output("nft delete table inet flaskworks")
        play = change(tmp_path, {}).wait()
        assert (play.code, play.changed) == (0, len(hosts)), play.output
        for host in hosts.values():
            tables = host.check_output("nft list tables").splitlines()
            assert {"table ip stranger", "table inet flaskworks"} <= set(tables)
            host.check_output("systemctl restart flaskworks-access.service")
            assert host.check_output("nft list tables").splitlines() == tables
            host.check_output("nft delete table ip stranger")


@pytest.mark.usefixtures("as_before")
class TestLockedOut:
    @pytest.mark.parametrize(
        ("variables", "words"),
        [
            (
                {"hardening_ssh_ports": [2222], "hardening_ssh_allow_users": ["alice"]},
                REFUSED,
            ),
            ({"hardening_ssh_raw": "NoSuchOption yes"}, "Bad configuration option: NoSuchOption"),
            ({"hardening_ssh_rate": "many"}, "/etc/flaskworks/firewall.nft was refused by 'nft'"),
        ],
        ids=["operator", "sshd", "nft"],
    )
    def test_what_would_refuse_the_operator_is_not_installed(
        self, tmp_path: Path, variables: dict[str, Any], words: str
    ) -> None:
        play = change(tmp_path, variables).wait()
        said = " ".join(play.output.split())
        assert (play.code, said.count(words) >= len(REACHED)) == (2, True), said

    @pytest.mark.parametrize(
        "variables",
        [
            {"hardening_ssh_raw": "Match User operator\n    ForceCommand /bin/false"},
            {"hardening_ssh_sources": [NOWHERE]},
        ],
        ids=["sshd", "firewall"],
    )
    def test_who_locks_himself_out_is_let_back_in(self, tmp_path: Path, variables: dict[str, Any]) -> None:
        play = change(tmp_path, {**variables, "hardening_revert_after": 20}).wait()
        said = " ".join(play.output.split())
        told = "with the new settings this host cannot be reached any more"
        assert (play.code, said.count(told) >= len(REACHED)) == (2, True), said

    def test_who_has_no_other_way_in_keeps_his(self, hosts: dict[str, Host], tmp_path: Path) -> None:
        """A guest who has a password and no key, and root: what they come by cannot be taken from them."""
        groups = {"hardening_ssh_allow_groups": ["operator", "alice", "guest", "root"]}
        known = {**groups, "hardening_ssh_passwords": True, "hardening_ssh_root_login": "yes"}
        for host in hosts.values():
            host.check_output(
                "id guest || useradd --create-home guest; echo guest:a-long-password | chpasswd"
            )
            host.check_output("echo 'guest ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/guest")
            host.check_output("install -D -m 600 ~operator/.ssh/authorized_keys /root/.ssh/authorized_keys")
        try:
            play = change(tmp_path, known).wait()
            assert play.code == 0, play.output
            after = {name: state(host) for name, host in hosts.items()}
            apart = {"ansible_control_path": "/tmp/flaskworks-%%C"}
            guest = {**apart, "ansible_user": "guest", "ansible_password": "a-long-password"}
            told = (
                "password login would end, this play connects with a password, and no key of its user gets in"
            )
            play = change(tmp_path, {**known, **guest, "hardening_ssh_passwords": False}).wait()
            said = " ".join(play.output.split())
            assert (play.code, said.count(told) >= len(REACHED)) == (2, True), said
            told = "the play connects as root, and sshd would refuse root (PermitRootLogin no): name an"
            root = {**apart, "ansible_user": "root", "hardening_ssh_root_login": "no"}
            play = change(tmp_path, {**known, **root}).wait()
            said = " ".join(play.output.split())
            assert (play.code, said.count(told) >= len(REACHED)) == (2, True), said
            assert {name: state(host) for name, host in hosts.items()} == after
        finally:
            back = change(tmp_path, {}).wait()
            for host in hosts.values():
                host.check_output("rm -rf /root/.ssh /etc/sudoers.d/guest")
        assert back.code == 0, back.output

    def lock_out(self, hosts: dict[str, Host], tmp_path: Path, patience: int) -> None:
        """Have the controller die after the change, before its proof."""
        variables = {"hardening_ssh_sources": [NOWHERE], "hardening_revert_after": patience}
        running = change(tmp_path, variables)
        for host in hosts.values():
            until(lambda host=host: host.run(LOADED).succeeded, "the rules are not loaded")  # type: ignore[misc]
        running.kill(all_of_it=True)
        assert all(host.file(ARMED).exists for host in hosts.values())

    def test_the_host_lets_in_again_when_the_controller_dies(
        self, hosts: dict[str, Host], tmp_path: Path
    ) -> None:
        self.lock_out(hosts, tmp_path, 30)
        assert [login(name)[0] for name in hosts] == [255] * len(hosts)
        for host in hosts.values():
            until(lambda host=host: not host.file(ARMED).exists, "the timer does nothing")  # type: ignore[misc]

    def test_a_restart_takes_back_what_was_not_proven(self, hosts: dict[str, Host], tmp_path: Path) -> None:
        """The unit that runs before the network does, here without the restart around it."""
        self.lock_out(hosts, tmp_path, 600)
        for host in hosts.values():
            host.check_output("systemctl stop flaskworks-access-revert.timer")
            host.check_output("systemctl restart flaskworks-access.service")


class TestConcerns:
    def test_a_guest_of_the_proxy_who_guesses_passwords_is_shut_out(self, host: Host) -> None:
        """The log comes after the role, and what a client writes into a line blames nobody else."""
        line = (
            '{"time":"%s","app":"hello","release":"","client":"%s","method":"GET","scheme":"https","host":"%s",'
            '"path":"/","protocol":"HTTP/1.1","status":%d,"bytes":1}'
        )
        time_now = host.check_output("date +%Y-%m-%dT%H:%M:%S%:z")
        forged = r"a\",\"client\":\"198.51.100.9\",\"status\":401,"
        lines = [line % (time_now, "198.51.100.7", "hello.example.org", 401)] * 25
        lines += [line % (time_now, "198.51.100.8", forged, 200)] * 25
        text = "\n".join(lines)
        host.check_output(
            f"mkdir -p /var/log/flask-proxy && cat >/var/log/flask-proxy/flask-hello.log <<'END'\n{text}\nEND"
        )
        banned = "fail2ban-client get flaskworks-proxy banip"
        until(lambda: "198.51.100.7" in host.check_output(banned), "fail2ban does not see the log")
        assert host.check_output(banned).split() == ["198.51.100.7"]
        assert "198.51.100.7" in host.check_output("nft list table inet f2b-table")
        assert "198.51.100.7" not in host.check_output("nft list table inet flaskworks")

    def test_an_app_on_an_upgraded_library_begins_anew_and_loses_nothing(self, host: Host) -> None:
        """The upgrade is one of Debian-Security, as far as unattended-upgrades can tell, and done by it."""
        host.check_output(f"cat >/usr/local/bin/answer <<'END'\n{ANSWER}\nEND")
        for kind, unit in (("socket", SOCKET), ("service", SERVICE)):
            host.check_output(f"cat >/etc/systemd/system/flask-answer@.{kind} <<'END'\n{unit}\nEND")
        host.check_output(PACKAGES)
        host.check_output("systemctl daemon-reload && systemctl start flask-answer@one.socket")
        asked = "python3 -c \"import urllib.request as r; print(r.urlopen('http://127.0.0.1:8099/').read().decode())\""
        shown = "systemctl show --value --property=MainPID flask-answer@one.service"
        first = host.check_output(asked)
        host.check_output("/usr/local/lib/flaskworks/recycle")
        assert (host.check_output(asked), host.check_output(shown)) == (first, first)
        host.check_output(
            f"rm -f /tmp/over; (until test -e /tmp/over; do {asked} || echo lost; done) >/tmp/answers 2>&1 &"
        )
        until(lambda: first in host.check_output("cat /tmp/answers"), "nobody asks")
        said = host.check_output("APT_CONFIG=/tmp/only.conf unattended-upgrade --verbose 2>&1")
        assert "Packages that will be upgraded: flaskworks-test" in said
        assert host.check_output("dpkg-query -W flaskworks-test").split() == ["flaskworks-test", "2"]
        until(lambda: host.check_output(shown) not in (first, "0"), "the app goes on with the old library")
        second = host.check_output(asked)
        assert second != first
        until(lambda: second in host.check_output("cat /tmp/answers"), "nobody asks the new one")
        host.check_output("touch /tmp/over")
        assert set(host.check_output("cat /tmp/answers").split()) == {first, second}
        host.check_output("systemctl stop flask-answer@one.socket flask-answer@one.service")
        host.check_output("apt-get -q -y purge flaskworks-test")

    def test_what_could_not_be_set_is_there_for_the_next_boot(self, host: Host) -> None:
        assert "-kernel.kptr_restrict = 2" in host.check_output("cat /etc/sysctl.d/90-flaskworks.conf")

    def test_updates_are_those_of_security(self, host: Host) -> None:
        said = host.check_output(
            "apt-config dump | grep -E '^(Unattended-Upgrade::Origins|APT::Periodic::Un)'"
        )
        assert said.splitlines()[1:] == [
            'Unattended-Upgrade::Origins-Pattern "";',
            (
                "Unattended-Upgrade::Origins-Pattern:: "
                '"origin=Debian,codename=${distro_codename}-security,label=Debian-Security";'
            ),
        ]
