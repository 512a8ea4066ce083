"""Test hosts: containers with systemd, reached over ssh as an ordinary user with sudo, as real hosts are."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, Self

IMAGE = "flaskworks-host:trixie"
PREFIX = "flaskworks-bench-"

# An administrator's account and sshd, and then no trace of package lists: the host is bare again.
_OPEN = r"""
set -e
until systemctl is-system-running 2>&1 | grep -Eqx 'running|degraded'; do sleep 0.1; done
export DEBIAN_FRONTEND=noninteractive
apt-get -q update
apt-get -q install --yes --no-install-recommends openssh-server
apt-get clean
rm -rf /var/lib/apt/lists/*
touch -d @0 /var/lib/apt/lists
useradd --gid operator --create-home --shell /bin/bash operator
echo 'operator ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/operator
install -d -m 0700 -o operator -g operator /home/operator/.ssh
cat > /home/operator/.ssh/authorized_keys
chown operator:operator /home/operator/.ssh/authorized_keys
systemctl is-active --quiet ssh || systemctl start ssh
"""


def run(argv: list[str], *, text: str = "", timeout: float = 300.0) -> str:
    """Run a command and return its output; raise with that output when it fails."""
    done = subprocess.run(
        argv,
        input=text,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(
            f"'{' '.join(argv[:4])} …' ended with exit status {done.returncode}:\n{done.stdout[-3000:]}"
        )
    return done.stdout


class Host:
    """One container. It is removed when the block that it was made for ends."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = PREFIX + name
        self.address = ""
        self.identity = ""
        self._key = directory / "operator"
        self._known = directory / f"{name}.known"

    def __enter__(self) -> Self:
        if not self._key.exists():
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "bench", "-f", str(self._key)])
        self.remove()
        # The settings of the Molecule hosts; molecule/shared/create.yml says why each is needed.
        capabilities = [f"--cap-add={name}" for name in ("SYS_ADMIN", "NET_ADMIN", "SYS_PTRACE")]
        run(
            [
                *[
                    "docker",
                    "run",
                    "--detach",
                    "--name",
                    self.name,
                    "--hostname",
                    self.name,
                    "--pull",
                    "never",
                ],
                *["--cgroupns", "private", "--security-opt", "apparmor=unconfined", *capabilities, IMAGE],
            ]
        )
        self.execute(_OPEN, text=Path(f"{self._key}.pub").read_text())
        described = json.loads(run(["docker", "inspect", self.name]))[0]
        self.identity = described["Id"][:12]
        self.address = next(iter(described["NetworkSettings"]["Networks"].values()))["IPAddress"]
        return self

    def __exit__(self, *_failure: object) -> None:
        self.remove()

    def remove(self) -> None:
        """Remove the container, if there is one."""
        subprocess.run(
            ["docker", "rm", "--force", "--volumes", self.name],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )

    def execute(self, script: str, *, text: str = "") -> str:
        """Run a shell script in the container, past ssh, and return its output."""
        return run(["docker", "exec", "--interactive", self.name, "sh", "-c", script], text=text)

    def inventory(self) -> dict[str, Any]:
        """Return how Ansible reaches the host.

        The control path carries the container's id: a kept connection to a removed host must not be taken for
        one to its successor at the same address.
        """
        options = f"-o UserKnownHostsFile={self._known} -o StrictHostKeyChecking=accept-new"
        return {
            "ansible_host": self.address,
            "ansible_user": "operator",
            "ansible_ssh_private_key_file": str(self._key),
            "ansible_ssh_common_args": options,
            "ansible_control_path": f"/tmp/{PREFIX}{self.identity}",
        }
