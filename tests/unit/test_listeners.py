"""Who holds a port, told from a file tree that looks like /proc and from a real socket."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from ansible_collections.flaskworks.server.plugins.module_utils import listeners
from ansible_collections.flaskworks.server.plugins.module_utils.listeners import Listener

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
APACHE = Listener(80, ("0.0.0.0", "::"), 812, "apache2", "apache2.service", "apache2")
CADDY = Listener(443, ("::",), 90, "caddy", "caddy.service", "caddy")
BY_HAND = Listener(80, ("0.0.0.0",), 4711, "python3", "", "python3.13-minimal")
SSH = Listener(443, ("0.0.0.0",), 12, "sshd", "ssh.service", "openssh-server")
DOCKER = Listener(80, ("0.0.0.0",), 99, "docker-proxy", "docker.service", "docker.io")


@dataclass
class Proc:
    """A file tree that looks like /proc."""

    root: Path

    def table(self, name: str, *sockets: tuple[str, str, int]) -> None:
        """Write the sockets: address and port as the kernel spells them, state, inode."""
        (self.root / "net").mkdir(exist_ok=True)
        lines = [
            f"   {number}: {local} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000     0       "
            f" 0 "
            f"{inode} 1 0000000000000000 100 0 0 10 0\n"
            for number, (local, state, inode) in enumerate(sockets)
        ]
        (self.root / "net" / name).write_text(HEAD + "".join(lines))

    def process(self, pid: int, name: str, cgroup: str, *inodes: int, parent: int = 1, exe: str = "") -> None:
        place = self.root / str(pid)
        (place / "fd").mkdir(parents=True)
        for number, inode in enumerate(inodes):
            (place / "fd" / str(number)).symlink_to(f"socket:[{inode}]")
        (place / "fd" / "99").symlink_to("/dev/null")
        (place / "comm").write_text(f"{name}\n")
        (place / "stat").write_text(f"{pid} ({name}) ) S {parent} {pid} {pid} 0 -1\n")
        (place / "cgroup").write_text(f"{cgroup}\n")
        (place / "exe").symlink_to(exe or f"/usr/sbin/{name}")


@pytest.fixture
def proc(tmp_path: Path) -> Proc:
    made = Proc(tmp_path)
    made.table(
        "tcp", ("00000000:0050", "0A", 100), ("0100007F:0050", "01", 101), ("0100007F:0016", "0A", 102)
    )
    made.table("tcp6", ("00000000000000000000000000000000:0050", "0A", 103))
    return made


def programs(command: Sequence[str]) -> str:
    """What systemctl and dpkg-query say on a Debian 12 host."""
    if command[:2] == ["systemctl", "show"]:
        paths = {"apache2.service": "/lib/systemd/system/apache2.service", "caddy.socket": ""}
        return "\n\n".join(f"Id={unit}\nFragmentPath={paths.get(unit, '')}" for unit in command[5:])
    if command[:2] == ["systemctl", "list-sockets"]:
        return "/run/dbus/system_bus_socket dbus.socket dbus.service\n[::]:80 caddy.socket caddy.service\n"
    assert command[:2] == ["dpkg-query", "--search"]
    known = {
        "/lib/systemd/system/apache2.service": "apache2: /lib/systemd/system/apache2.service\n",
        "/usr/sbin/apache2": "apache2-bin: /usr/sbin/apache2\n",
        "/usr/bin/python3.11": "diversion by x from: /usr/bin/python3.11\npython3.11-minimal:amd64, other: "
        "/usr/bin/python3.11\n",
    }
    return "".join(known.get(path, "") for path in command[2:])


def found(proc: Proc, *ports: int) -> list[Listener]:
    return listeners.packaged(listeners.holders(ports, proc.root, programs), proc.root, programs)


def test_a_service_with_workers_is_one_listener_on_both_families(proc: Proc) -> None:
    proc.process(812, "apache2", "0::/system.slice/apache2.service", 100, 103)
    proc.process(813, "apache2", "1:name=systemd:/system.slice/apache2.service\n0::/", 100, 103, parent=812)
    proc.process(90, "sshd", "0::/system.slice/ssh.service", 102)
    assert found(proc, 80, 443) == [APACHE]


def test_a_port_that_nobody_listens_on_has_no_holder(proc: Proc) -> None:
    assert found(proc, 443) == []


def test_a_host_without_ipv6_has_no_such_table(proc: Proc) -> None:
    (proc.root / "net/tcp6").unlink()
    proc.process(812, "apache2", "0::/system.slice/apache2.service", 100)
    assert [one.addresses for one in found(proc, 80)] == [("0.0.0.0",)]


def test_a_process_by_hand_has_no_unit_and_its_children_are_not_told_apart(proc: Proc) -> None:
    login = "0::/user.slice/user-1000.slice/user@1000.service/app.slice/web.service"
    proc.process(4711, "python3", login, 100, 103, exe="/usr/bin/python3.11")
    proc.process(4712, "python3", login, 100, parent=4711, exe="/usr/bin/python3.11")
    assert found(proc, 80) == [
        Listener(80, ("0.0.0.0", "::"), 4711, "python3", "", "python3.11-minimal"),
    ]


def test_a_socket_of_the_service_manager_is_told_beside_its_service(proc: Proc) -> None:
    proc.process(1, "systemd", "0::/init.scope", 100, parent=0)
    proc.process(90, "caddy", "9:name=systemd:/\n8:pids:/\n0::/system.slice/caddy.service", 100)
    assert [(one.pid, one.unit) for one in found(proc, 80) if one.pid] == [
        (1, "caddy.socket"),
        (90, "caddy.service"),
    ]


def test_a_socket_whose_process_cannot_be_seen_is_told(proc: Proc) -> None:
    assert found(proc, 80) == [Listener(80, ("0.0.0.0", "::"), 0)]


def test_a_program_that_was_upgraded_meanwhile_keeps_its_package(proc: Proc) -> None:
    proc.process(4711, "python3", "0::/user.slice", 100, 103, exe="/usr/bin/python3.11 (deleted)")
    assert [one.package for one in found(proc, 80)] == ["python3.11-minimal"]


@pytest.mark.parametrize(
    ("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")], ids=["IPv4", "IPv6"]
)
def test_this_process_is_found_by_its_socket(family: int, address: str) -> None:
    with socket.socket(family) as here:
        here.bind((address, 0))
        here.listen()
        port = here.getsockname()[1]
        (one,) = listeners.holders([port])
    assert (one.port, one.addresses, one.pid) == (port, (address,), os.getpid())


def test_only_a_proxy_that_was_set_up_here_is_ours(tmp_path: Path) -> None:
    (tmp_path / "apache2.service.d").mkdir()
    assert not listeners.is_ours("apache2.service", tmp_path)
    (tmp_path / "apache2.service.d" / "flask.conf").touch()
    assert listeners.is_ours("apache2.service", tmp_path)
    (tmp_path / "caddy.service.d").mkdir()
    (tmp_path / "caddy.service.d" / "flask.conf").touch()
    assert not listeners.is_ours("caddy.service", tmp_path)


def test_our_own_proxy_in_either_form_is_no_stranger() -> None:
    nginx = Listener(443, ("0.0.0.0",), 7, "nginx", "nginx.service")
    assert listeners.strangers([nginx, APACHE], "nginx.service", lambda unit: unit == "apache2.service") == []
    assert listeners.strangers([nginx, APACHE], "nginx.service", {}.__contains__) == [APACHE]


SO_FAR = "nothing was changed"


def test_the_refusal_names_who_it_is_and_the_ways_out() -> None:
    other = Listener(443, ("::",), 812, "apache2", "apache2.service", "apache2")
    assert listeners.refusal([APACHE, other], "nginx.service", False, SO_FAR) == (
        "ports 80, 443 are held by apache2 (process 812, apache2.service, Debian package apache2), where "
        "nginx is to "
        "serve the sites; nothing was changed: stop it ('systemctl disable --now apache2.service'), or have "
        "the play "
        "stop and disable it (-e flask_ports_conflict=take_over), or serve the sites with it (flask_proxy: "
        "apache), "
        "or give the sites other ports (flask_defaults.ports)"
    )


def test_the_refusal_names_several() -> None:
    assert listeners.refusal([BY_HAND, CADDY], "apache2.service", False, SO_FAR) == (
        "port 80 is held by python3 (process 4711, Debian package python3.13-minimal) and port 443 is held "
        "by caddy "
        "(process 90, caddy.service, Debian package caddy), where apache is to serve the sites; nothing was "
        "changed: "
        "stop it ('systemctl disable --now caddy.service') and move python3 (process 4711, Debian package "
        "python3.13-minimal) elsewhere, or give the sites other ports (flask_defaults.ports)"
    )


def test_what_may_be_taken_over_is_not_refused_then() -> None:
    assert listeners.refusal([APACHE, CADDY], "nginx.service", True, SO_FAR) == ""
    assert listeners.refusal([], "nginx.service", False, SO_FAR) == ""


@pytest.mark.parametrize(
    ("holder", "reason"),
    [
        (BY_HAND, "which is not a service of systemd that could be stopped"),
        (SSH, "which is the way to this host"),
        (DOCKER, "which publishes a port of a container"),
    ],
)
def test_some_are_never_taken_over_from(holder: Listener, reason: str) -> None:
    said = listeners.refusal([CADDY, holder], "nginx.service", True, SO_FAR)
    who = listeners.described(holder)
    assert said == (
        f"port {holder.port} is held by {who}, {reason}, so flask_ports_conflict: take_over does not stop "
        f"it; "
        f"nothing was changed: move {who} elsewhere, or give the sites other ports (flask_defaults.ports)"
    )
