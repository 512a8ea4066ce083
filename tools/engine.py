"""A Docker engine that answers: the one that runs, or one that is installed and started here."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

from tools.steps import Stop, apt_install, capture, is_root, run_logged

LOG = Path("/var/log/flaskworks-dockerd.log")
PATIENCE = 60.0
"""Seconds that a starting engine is given until it answers."""

PRIVATE_CGROUPS = "umount -R /sys/fs/cgroup 2>/dev/null; mount -t cgroup2 none /sys/fs/cgroup && exec dockerd"
"""systemd 256 and newer refuse cgroup v1 controllers. The daemon, and it alone, sees a pure v2 tree."""


def answers() -> bool:
    """Whether an engine answers the docker command."""
    return capture(["docker", "version", "--format", "{{.Server.Version}}"], timeout=20)[0] == 0


def ensure(log: Path) -> None:
    """Use the engine that answers; otherwise, as root, install and start one."""
    if answers():
        return
    # Two clones may come here at once; a second daemon beside the first would delete its network.
    with Path("/run/flaskworks-engine.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if answers():
            return
        if not (shutil.which("dockerd") and shutil.which("docker") and shutil.which("iptables")):
            apt_install(["docker.io", "iptables"], log)
        _wait(None if _daemon_runs() else _start(log))


def foresee() -> None:
    """Stop at once where no engine answers and none can be installed or started."""
    if answers():
        return
    if os.environ.get("DOCKER_HOST"):
        raise Stop(
            f"No engine answers at DOCKER_HOST={os.environ['DOCKER_HOST']}; start it or unset the variable"
        )
    if not is_root():
        message = capture(["docker", "version"])[1].lower()
        if "permission denied" in message:
            raise Stop("The Docker engine refuses this user; add it to the group docker and log in again")
        raise Stop(
            "No Docker engine answers and only root can install one; start Docker, or run this as root"
        )
    if not shutil.which("dockerd") and not shutil.which("apt-get"):
        raise Stop("No Docker engine answers and this is not Debian; install Docker, start it, and try again")


def _daemon_runs() -> bool:
    """Whether a dockerd is running already, answering or not; one that was killed does not count."""
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            _pid, name, rest = re.split(r" \((.*)\) ", status.read_text(), maxsplit=1)
        except OSError:
            continue  # the process has ended meanwhile
        if name == "dockerd" and not rest.startswith(("Z", "X")):
            return True
    return False


def _start(log: Path) -> subprocess.Popen[bytes] | None:
    """Start the daemon; it outlives this command. None when systemd starts it."""
    if Path("/run/systemd/system").is_dir():
        run_logged(["systemctl", "start", "docker"], log)
        return None
    Path("/var/run/docker.pid").unlink(missing_ok=True)  # left by an engine that was killed
    command = ["dockerd"]
    if not Path("/sys/fs/cgroup/cgroup.controllers").exists():
        command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", PRIVATE_CGROUPS]
    with LOG.open("ab") as output, log.open("a") as note:
        note.write(f"$ {' '.join(command)}\nthe engine's own log: {LOG}\n")
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            close_fds=True,
        )


def _wait(daemon: subprocess.Popen[bytes] | None) -> None:
    end = time.monotonic() + PATIENCE
    while not answers():
        if daemon is not None and daemon.poll() is not None:
            last = LOG.read_text(errors="replace").strip().splitlines()[-1:]
            raise Stop(f"The Docker engine does not start here: {''.join(last)[-200:]}; its log is {LOG}")
        if time.monotonic() > end:
            raise Stop(f"The Docker engine did not answer within {PATIENCE:.0f} s; its log is {LOG}")
        time.sleep(0.2)
