"""What somebody tries who runs code inside an app. Every attempt returns when it has succeeded.

The same code is run outside of the sandbox, by root: ``python breakout.py '{"shared": …}'``. Runs on the
host, with Python 3.11 and the standard library.
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

Given = Mapping[str, str]
Attempt = Callable[[Given], None]
ATTEMPTS: dict[str, Attempt] = {}

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWNET, CLONE_NEWPID = 0x20000, 0x10000000, 0x40000000, 0x20000000
PTRACE_ATTACH = 16
NUMBERS = {
    "x86_64": {"io_uring_setup": 425, "memfd_create": 319},
    "aarch64": {"io_uring_setup": 425, "memfd_create": 279},
}
"""Numbers of system calls that the C library or this Python has no function for."""

libc = ctypes.CDLL(None, use_errno=True)


def attempt(name: str) -> Callable[[Attempt], Attempt]:
    def register(function: Attempt) -> Attempt:
        ATTEMPTS[name] = function
        return function

    return register


def checked(result: int) -> int:
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def call(name: str, *arguments: object) -> int:
    """Make a system call."""
    return checked(int(libc.syscall(NUMBERS[os.uname().machine][name], *arguments)))


def outcomes(given: Given) -> dict[str, str]:
    """Return what came of every attempt: "succeeds", or the name of the error."""
    found = {}
    for name, function in ATTEMPTS.items():
        try:
            function(given)
        except OSError as error:
            found[name] = errno.errorcode.get(error.errno or 0, repr(error))
        except Exception as error:  # noqa: BLE001 (a bug of the attempt, which a test is to see in words)
            found[name] = repr(error)
        else:
            found[name] = "succeeds"
    return found


# -- files ---------------------------------------------------------------------------------------------


def append(path: str) -> None:
    with open(path, "ab"):
        pass


def create(path: str) -> None:
    with open(path, "wb"):
        pass
    os.unlink(path)


def read(path: str) -> None:
    with open(path, "rb") as file:
        file.read()


for _name, _path in {
    "write its own code": "{release}/src/app.py",
    "write its own settings": "{release}/gunicorn.conf.py",
    "write its own environment": "{release}/venv/bin/gunicorn",
}.items():
    ATTEMPTS[_name] = lambda given, path=_path: append(path.format(**given))  # type: ignore[misc]
for _name, _path in {
    "write /etc": "/etc/dropped",
    "write where everybody may": "/var/open/dropped",
    "write another app's data": "{others}/shared/dropped",
    "write another app's logs": "{others_logs}/dropped",
}.items():
    ATTEMPTS[_name] = lambda given, path=_path: create(path.format(**given))  # type: ignore[misc]
for _name, _path in {
    "read /etc/shadow": "/etc/shadow",
    "read /root": "/root/file",
    "read /home": "/home/alice/file",
    "read another app's data": "{others}/shared/data",
    "read another app's code": "{others_release}/src/app.py",
    "read another app's secrets": "{others_release}/environment",
    "read another app's configuration": "{others_configuration}/environment",
    "read another app's logs": "{others_logs}/app.log",
    "read another app's variables": "/proc/{others_process}/environ",
}.items():
    ATTEMPTS[_name] = lambda given, path=_path: read(path.format(**given))  # type: ignore[misc]


@attempt("list the apps")
def list_apps(given: Given) -> None:
    if os.path.basename(given["others"]) not in os.listdir(os.path.dirname(given["others"])):
        raise FileNotFoundError(errno.ENOENT, "not listed")


@attempt("see processes of others")
def see_processes(_given: Given) -> None:
    mine = {
        line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line[:4] == "Uid:"
    }
    owners = {
        str(os.stat(f"/proc/{process}").st_uid) for process in os.listdir("/proc") if process.isdecimal()
    }
    if not owners - mine:
        raise FileNotFoundError(errno.ENOENT, "only its own")


@attempt("read the figures of the host")
def figures(_given: Given) -> None:
    read("/proc/stat")
    read("/proc/meminfo")


@attempt("make a set-user-ID file")
def setuid(given: Given) -> None:
    path = f"{given['shared']}/setuid"
    create_file(path)
    try:
        os.chmod(path, 0o4755)
        if not os.stat(path).st_mode & stat.S_ISUID:
            raise PermissionError(errno.EPERM, "silently not set")
    finally:
        os.unlink(path)


@attempt("make a device node")
def device(given: Given) -> None:
    path = f"{given['shared']}/null"
    os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    os.unlink(path)


@attempt("give a file away")
def give_away(given: Given) -> None:
    path = f"{given['shared']}/given"
    create_file(path)
    try:
        os.chown(path, 0, 0)
    finally:
        os.unlink(path)


def create_file(path: str) -> None:
    with open(path, "wb"):
        pass


# -- programs ------------------------------------------------------------------------------------------


def run(*words: str) -> None:
    """Start a program, without a shell and without Python's help; the error is that of execve."""
    # vfork and exec report their error to the caller.
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        process.wait()


def execute(directory: str) -> None:
    path = f"{directory}/dropped"
    shutil.copyfile("/usr/bin/true", path)
    try:
        os.chmod(path, 0o755)
        run(path)
    finally:
        os.unlink(path)


def map_library(directory: str) -> None:
    """What loading a dropped library needs."""
    path = f"{directory}/dropped.so"
    shutil.copyfile("/usr/bin/true", path)
    try:
        with open(path, "rb") as file:
            mmap.mmap(file.fileno(), 4096, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC).close()
    finally:
        os.unlink(path)


for _name, _path in {
    "its data": "{shared}",
    "its logs": "{logs}",
    "/tmp": "/tmp",
    "/var/tmp": "/var/tmp",
    "/dev/shm": "/dev/shm",
}.items():
    ATTEMPTS[f"execute a file dropped in {_name}"] = lambda given, path=_path: execute(path.format(**given))  # type: ignore[misc]
    ATTEMPTS[f"load a library dropped in {_name}"] = lambda given, path=_path: map_library(
        path.format(**given)
    )  # type: ignore[misc]


@attempt("execute a file in memory")
def memory_file(_given: Given) -> None:
    descriptor = call("memfd_create", b"dropped", 0)
    try:
        os.write(descriptor, Path("/usr/bin/true").read_bytes())
        run(f"/proc/{os.getpid()}/fd/{descriptor}")
    finally:
        os.close(descriptor)


@attempt("run a shell")
def shell(_given: Given) -> None:
    run("/bin/sh", "-c", "true")


@attempt("run a program of the host")
def program(_given: Given) -> None:
    run("/usr/bin/id")


# -- memory --------------------------------------------------------------------------------------------


@contextmanager
def refused() -> Iterator[None]:
    """One error for what newer kernels refuse themselves (EACCES) and systemd's filter on others (EPERM)."""
    try:
        yield
    except PermissionError as error:
        raise PermissionError(errno.EPERM, "refused") from error


@attempt("map memory to write and execute")
@refused()
def writable_code(_given: Given) -> None:
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()


@attempt("make written memory executable")
@refused()
def written_code(_given: Given) -> None:
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    address = libc.mmap(
        None, 4096, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0
    )
    ctypes.memset(address, 0xC3, 1)
    checked(libc.mprotect(address, 4096, mmap.PROT_READ | mmap.PROT_EXEC))


# -- kernel --------------------------------------------------------------------------------------------


def in_child(function: Callable[[], object]) -> None:
    """Do something that would change this process in one of its own."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        code = 0
        try:
            function()
        except OSError as error:
            code = error.errno or 255
        os.write(writer, bytes([code]))
        os._exit(0)
    os.close(writer)
    code = os.read(reader, 1)[0]
    os.close(reader)
    with suppress(ChildProcessError):
        os.waitpid(child, 0)
    if code:
        raise OSError(code, os.strerror(code))


for _name, _flag in {
    "user": CLONE_NEWUSER,
    "mount": CLONE_NEWNS,
    "network": CLONE_NEWNET,
    "process": CLONE_NEWPID,
}.items():
    ATTEMPTS[f"make a {_name} namespace"] = lambda _given, flag=_flag: in_child(
        lambda: checked(libc.unshare(flag))
    )  # type: ignore[misc]


@attempt("trace a process of its own")
def trace(_given: Given) -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        in_child(lambda: checked(libc.ptrace(PTRACE_ATTACH, process.pid, None, None)))
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


@attempt("use io_uring")
def io_uring(_given: Given) -> None:
    os.close(call("io_uring_setup", 1, ctypes.create_string_buffer(120)))


@attempt("change the host's name")
def host_name(_given: Given) -> None:
    name = os.uname().nodename.encode()
    checked(libc.sethostname(name, len(name)))


@attempt("mount a file system")
def mount(_given: Given) -> None:
    checked(libc.mount(b"none", b"/mnt", b"tmpfs", 0, None))
    checked(libc.umount2(b"/mnt", 0))


@attempt("raise its priority")
def priority(_given: Given) -> None:
    in_child(lambda: os.setpriority(os.PRIO_PROCESS, 0, 1))


@attempt("ask D-Bus")
def dbus(_given: Given) -> None:
    with socket.socket(socket.AF_UNIX) as bus:
        bus.connect("/run/dbus/system_bus_socket")


# -- network -------------------------------------------------------------------------------------------

PORT = 7777


@attempt("open a raw socket")
def raw(_given: Given) -> None:
    socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close()


@attempt("open a packet socket")
def packet(_given: Given) -> None:
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close()


@attempt("open a netlink socket")
def netlink(_given: Given) -> None:
    socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0).close()


def listen(bind: bool) -> None:
    """A socket that listens has nobody to accept yet; another has nothing to wait for (EINVAL)."""
    with socket.socket() as server:
        if bind:
            server.bind(("127.0.0.1", 0))
        server.listen()
        server.setblocking(False)
        with suppress(BlockingIOError):
            server.accept()


@attempt("listen on a port")
def listen_bound(_given: Given) -> None:
    listen(bind=True)


@attempt("listen on any port")
def listen_unbound(_given: Given) -> None:
    listen(bind=False)


def echo(address: str) -> None:
    """Datagrams that are refused on the way are an error at once; lost ones would need a limit of time."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(60)
        client.sendto(b"hello\n", (address, PORT))
        client.recvfrom(100)


for _name, _address in {
    "reach the host itself": "127.0.0.1",
    "reach an address of the list": "192.0.2.1",
    "reach another address": "198.51.100.1",
}.items():
    ATTEMPTS[_name] = lambda _given, address=_address: echo(address)  # type: ignore[misc]


@attempt("send to all neighbours")
def multicast(_given: Given) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(b"hello\n", ("224.0.0.251", PORT))


if __name__ == "__main__":
    print(json.dumps(outcomes(json.loads(sys.argv[1]))))
