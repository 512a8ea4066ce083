# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who listens on a port of this host: process, unit and Debian package. Looks only.

The kernel's tables (proc(5), ``/proc/net/tcp`` and ``tcp6``) say which ports are taken and by which socket,
and the open files of every process say whose that socket is. To see those of others takes root.
"""

from __future__ import annotations

import os
import re
import socket
import struct
import subprocess
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

PROC = Path("/proc")
DROP_INS = Path("/etc/systemd/system")
PROXIES: Mapping[str, str] = {"nginx.service": "nginx", "apache2.service": "apache"}
"""The units of this collection's proxies, and how `flask_proxy` calls them."""

_LISTENING = "0A"  # TCP_LISTEN of the kernel's include/net/tcp_states.h
_SOCKET = re.compile(r"socket:\[(\d+)\]")
_STOPPABLE = re.compile(r"\S+\.(?:service|socket)")
_LOCKS_OUT = re.compile(r"sshd?(?:@.*)?\.(?:service|socket)")
_CONTAINERS = frozenset({"docker-proxy", "rootlessport", "slirp4netns", "pasta"})

Run = Callable[[Sequence[str]], str]


@dataclass(frozen=True)
class Listener:
    """Somebody who listens on a port.

    Attributes:
        port: The TCP port.
        addresses: Where, as in ``0.0.0.0`` and ``::``.
        pid: The process, the first of several; 0 when it cannot be seen.
        process: Its name.
        unit: The unit of the system's service manager that it belongs to; empty for none.
        package: The Debian package that brought the unit or else the program; empty for none.
    """

    port: int
    addresses: tuple[str, ...]
    pid: int = 0
    process: str = ""
    unit: str = ""
    package: str = ""


def ask(command: Sequence[str]) -> str:
    """What a program prints; nothing when there is no such program. Its exit status tells nothing here."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
    except OSError:
        return ""
    return done.stdout


def taken(ports: Collection[int], proc: Path = PROC) -> dict[str, tuple[int, str]]:
    """The listening sockets on some ports: port and address, by inode."""
    found: dict[str, tuple[int, str]] = {}
    for table in ("tcp", "tcp6"):
        try:
            lines = (proc / "net" / table).read_text().splitlines()[1:]
        except FileNotFoundError:
            continue  # a kernel without IPv6
        for fields in map(str.split, lines):
            address, _colon, port = fields[1].partition(":")
            if fields[3] == _LISTENING and int(port, 16) in ports:
                found[fields[9]] = (int(port, 16), _address(address))
    return found


def holders(ports: Collection[int], proc: Path = PROC, run: Run = ask) -> list[Listener]:
    """Everybody who listens on one of the ports, by port; processes of one unit count as one.

    Their packages are left out, because it takes long to look for them: see `packaged`.
    """
    sockets = taken(ports, proc)
    owners = _owners(sockets, proc) if sockets else {}
    groups: dict[tuple[int, str], dict[int, set[str]]] = {}
    for inode, (port, address) in sockets.items():
        for pid in owners.get(inode) or [0]:
            unit = _socket_unit(port, run) if pid == 1 else _unit(pid, proc)
            # Without a unit, what one process inherited from another counts as the other's.
            parent = 0 if unit else _parent(pid, proc)
            key = unit or str(parent if parent in owners.get(inode, ()) else pid)
            groups.setdefault((port, key), {}).setdefault(pid, set()).add(address)
    found = []
    for (port, key), members in groups.items():
        pid = min(one for one in members if _parent(one, proc) not in members)  # a master before its workers
        addresses = tuple(sorted({address for each in members.values() for address in each}))
        found.append(Listener(port, addresses, pid, _name(pid, proc), "" if key.isdecimal() else key))
    return sorted(found, key=lambda one: (one.port, one.pid))


def packaged(found: Iterable[Listener], proc: Path = PROC, run: Run = ask) -> list[Listener]:
    """The same with their Debian packages."""
    known = list(found)
    paths = _unit_files({one.unit for one in known if one.unit}, run)
    for pid in {one.pid for one in known if one.pid}:
        with suppress(OSError):
            paths[str(pid)] = os.readlink(proc / str(pid) / "exe").removesuffix(" (deleted)")
    packages = _packages(paths, run) if paths else {}
    return [replace(one, package=packages.get(one.unit) or packages.get(str(one.pid), "")) for one in known]


def is_ours(unit: str, drop_ins: Path = DROP_INS) -> bool:
    """Whether a unit is a proxy that this collection has set up, told by the drop-in that its role writes."""
    return unit in PROXIES and (drop_ins / f"{unit}.d" / "flask.conf").exists()


def strangers(found: Iterable[Listener], unit: str, ours: Callable[[str], bool] = is_ours) -> list[Listener]:
    """Those who are neither the unit that is meant to listen nor another proxy of this collection."""
    return [one for one in found if one.unit != unit and not ours(one.unit)]


def fixture(one: Listener) -> str:
    """Why somebody is never stopped by a play, as the end of a sentence; empty when he may be."""
    if not _STOPPABLE.fullmatch(one.unit):
        return "which is not a service of systemd that could be stopped"
    if _LOCKS_OUT.fullmatch(one.unit):
        return "which is the way to this host"
    if one.process in _CONTAINERS:
        return "which publishes a port of a container"
    return ""


def refusal(found: Sequence[Listener], unit: str, take_over: bool, so_far: str) -> str:
    """One sentence that names who stands in the way of `unit`, says what was done so far, and the ways out.

    Empty when nobody does, or when all who do are to be taken over from and can be.
    """
    fixed = [one for one in found if fixture(one)]
    if not found or (take_over and not fixed):
        return ""
    server = PROXIES.get(unit, unit)
    if take_over:
        reasons = ", and ".join(f"{held([one])}, {fixture(one)}" for one in fixed)
        return (
            f"{reasons}, so flask_ports_conflict: take_over does not stop it; {so_far}: "
            f"{_by_hand(fixed)}, or give the sites other ports (flask_defaults.ports)"
        )
    ways = [_by_hand(found)]
    if not fixed:
        ways.append("have the play stop and disable it (-e flask_ports_conflict=take_over)")
    others = sorted({PROXIES[one.unit] for one in found if one.unit in PROXIES})
    ways += [f"serve the sites with it (flask_proxy: {other})" for other in others]
    ways.append("give the sites other ports (flask_defaults.ports)")
    return f"{held(found)}, where {server} is to serve the sites; {so_far}: {', or '.join(ways)}"


def held(found: Sequence[Listener]) -> str:
    """The beginning of a sentence: which ports are held by whom."""
    ports: dict[str, list[int]] = {}
    for one in found:
        ports.setdefault(described(one), []).append(one.port)
    return " and ".join(
        f"{'port' if len(each) == 1 else 'ports'} {', '.join(map(str, each))} "
        f"{'is' if len(each) == 1 else 'are'} held by {who}"
        for who, each in ports.items()
    )


def described(one: Listener) -> str:
    """Who it is, as in ``apache2 (process 812, apache2.service, Debian package apache2)``."""
    if not one.pid:
        return "a process that cannot be seen from here"
    known = [f"process {one.pid}", one.unit, one.package and f"Debian package {one.package}"]
    return f"{one.process} ({', '.join(filter(None, known))})"


def _by_hand(found: Sequence[Listener]) -> str:
    units = sorted({one.unit for one in found if _STOPPABLE.fullmatch(one.unit) and not fixture(one)})
    others = sorted({described(one) for one in found if fixture(one)})
    ways = [f"stop it ('systemctl disable --now {' '.join(units)}')"] if units else []
    ways += [f"move {' and '.join(others)} elsewhere"] if others else []
    return " and ".join(ways)


def _address(text: str) -> str:
    """The kernel writes addresses as words in the byte order of the machine."""
    packed = b"".join(struct.pack("=I", int(text[at : at + 8], 16)) for at in range(0, len(text), 8))
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)


def _owners(inodes: Collection[str], proc: Path) -> dict[str, list[int]]:
    """The processes that have a socket open, by its inode."""
    found: dict[str, list[int]] = {}
    for pid in sorted(int(entry.name) for entry in proc.iterdir() if entry.name.isdecimal()):
        # A process may end, and that of another is closed to who is not root.
        with suppress(OSError):
            for descriptor in os.scandir(proc / str(pid) / "fd"):
                with suppress(OSError):
                    linked = _SOCKET.fullmatch(os.readlink(descriptor.path))
                    if linked and linked[1] in inodes and pid not in found.setdefault(linked[1], []):
                        found[linked[1]].append(pid)
    return found


def _unit(pid: int, proc: Path) -> str:
    """The unit of the system's manager; a login's own services are not the system's."""
    with suppress(OSError):
        for line in (proc / str(pid) / "cgroup").read_text().splitlines():
            _number, controllers, path = line.split(":", 2)
            parts = path.strip("/").split("/")
            # Of several hierarchies one is systemd's, and the others may all be empty.
            if controllers in ("", "name=systemd") and parts[0] != "user.slice":
                for part in parts:
                    if part.endswith((".service", ".scope")):
                        return part
    return ""


def _socket_unit(port: int, run: Run) -> str:
    """The unit for which the service manager itself listens."""
    for line in run(
        ["systemctl", "list-sockets", "--all", "--full", "--no-legend", "--no-pager"]
    ).splitlines():
        fields = line.split()
        if fields and fields[0].endswith(f":{port}"):
            return next((field for field in fields[1:] if field.endswith(".socket")), "")
    return ""


def _parent(pid: int, proc: Path) -> int:
    with suppress(OSError, ValueError):
        # The name stands in brackets and may hold anything.
        return int((proc / str(pid) / "stat").read_text().rpartition(")")[2].split()[1])
    return -1


def _name(pid: int, proc: Path) -> str:
    with suppress(OSError):
        return (proc / str(pid) / "comm").read_text().rstrip("\n")
    return ""


def _unit_files(units: Collection[str], run: Run) -> dict[str, str]:
    """The files that units were read from."""
    if not units:
        return {}
    shown = run(["systemctl", "show", "--no-pager", "--property=Id,FragmentPath", "--", *sorted(units)])
    blocks = [dict(line.partition("=")[::2] for line in block.splitlines()) for block in shown.split("\n\n")]
    return {block["Id"]: block["FragmentPath"] for block in blocks if block.get("FragmentPath")}


def _packages(paths: Mapping[str, str], run: Run) -> dict[str, str]:
    """The Debian packages of files, by the same keys."""
    spelled = sorted({spelling for path in paths.values() for spelling in _spellings(path)})
    owners: dict[str, str] = {}
    for line in run(["dpkg-query", "--search", *spelled]).splitlines():
        names, _colon, path = line.rpartition(": ")
        if not names.startswith("diversion by "):
            owners[path] = names.split(", ")[0].partition(":")[0]
    found = {}
    for key, path in paths.items():
        known = [owners[spelling] for spelling in _spellings(path) if spelling in owners]
        if known:
            found[key] = known[0]
    return found


def _spellings(path: str) -> tuple[str, ...]:
    """A path with and without /usr, which are the same file; dpkg knows only one of the names."""
    if path.startswith(("/lib/", "/bin/", "/sbin/")):
        return path, f"/usr{path}"
    if path.startswith(("/usr/lib/", "/usr/bin/", "/usr/sbin/")):
        return path, path.removeprefix("/usr")
    return (path,)
