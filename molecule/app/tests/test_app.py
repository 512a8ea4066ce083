"""An app can write its data and its logs, and nothing else; what is broken heals."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from testinfra.host import Host

EPHEMERAL = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
CONVERGE = Path(__file__).resolve().parents[1] / "converge.yml"
COMMAND = ["ansible-playbook", "-i", str(EPHEMERAL / "inventory"), str(CONVERGE)]

# Everyone may write here; a service gets its own /tmp and /var/tmp from its unit.
FOR_EVERYONE = ("/tmp", "/var/tmp", "/dev/shm", "/dev/mqueue", "/run/lock")


def converge(*arguments: str) -> str:
    """Run the scenario's playbook again; what it printed."""
    run = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def writable(host: Host, user: str) -> set[str]:
    """All directories that the user can write to: root lists them, the user asks the kernel."""
    ask = """sh -c 'for directory; do test ! -w "$directory" || echo "$directory"; done' sh"""
    listing = host.check_output(
        "find / -path /proc -prune -o -type d -print0"
        f" | setpriv --reuid={user} --regid={user} --init-groups xargs --null {ask}"
    )
    return {path for path in listing.split() if not path.startswith(FOR_EVERYONE)}


@pytest.mark.parametrize("app", ["hello", "reports"])
def test_an_app_writes_its_data_and_logs_and_nothing_else(host: Host, app: str) -> None:
    assert writable(host, app) == {f"/srv/{app}/shared", f"/var/log/flask/{app}"}


def test_an_app_sees_nothing_of_another_app(host: Host) -> None:
    for path in ("/srv/reports/shared", "/etc/flask/reports", "/var/log/flask/reports", "/srv/reports"):
        assert host.run(f"setpriv --reuid=hello --regid=hello --init-groups ls {path}").rc == 2
    assert host.run("setpriv --reuid=hello --regid=hello --init-groups ls /etc/flask/hello").rc == 0


def test_the_account_cannot_log_in_and_is_in_no_other_group(host: Host) -> None:
    account = host.user("hello")
    assert account.shell == "/usr/sbin/nologin"
    assert account.home == "/srv/hello"
    assert account.groups == ["hello"]
    assert account.password.startswith("!")
    assert account.uid < 1000
    assert host.group("flask-proxy").exists


def test_what_was_removed_or_given_away_heals_and_check_mode_knows(host: Host) -> None:
    host.check_output("touch /srv/hello/shared/data && rmdir /var/log/flask/hello")
    host.check_output("chmod 0777 /srv/hello && chown root:root /srv/hello/shared")
    assert "changed=1" in converge("--check")
    assert not host.file("/var/log/flask/hello").exists
    assert "changed=1" in converge()
    assert "changed=0" in converge()
    assert writable(host, "hello") == {"/srv/hello/shared", "/var/log/flask/hello"}
    assert host.file("/srv/hello/shared/data").exists


def test_an_app_that_is_gone_keeps_its_data(host: Host) -> None:
    host.check_output("touch /srv/reports/shared/data")
    entry = {
        "name": "hello",
        "home": "/srv/hello",
        "shared": "/srv/hello/shared",
        "configuration": "/etc/flask/hello",
        "logs": "/var/log/flask/hello",
    }
    assert "changed=1" in converge("--extra-vars", json.dumps({"given_accounts": [entry]}))
    assert not host.file("/etc/sysusers.d/flask-reports.conf").exists
    assert host.file("/srv/reports/shared/data").user == "root"
    assert host.user("reports").exists
    assert "changed=1" in converge()


def test_other_platforms_are_refused_in_one_sentence() -> None:
    facts = {"ansible_facts": {"distribution": "Ubuntu", "distribution_major_version": "24"}}
    run = subprocess.run(
        [*COMMAND, "--extra-vars", json.dumps(facts)], capture_output=True, text=True, check=False
    )
    assert run.returncode == 2
    assert "trixie runs Ubuntu 24; the role app supports Debian 12 and Debian 13." in run.stdout + run.stderr
