"""Apps that somebody broke into: what they try fails, and what apps do all day goes on."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest
from testinfra.host import Host

RELEASE = "20260101T000000Z-0123456789"
CLASSES = ("gthread", "sync", "gevent")
NETWORKS = ("all", "localhost", "list", "none")
APPS = ("gthread-all", "sync-localhost", "gthread-list", "gevent-none", "open")
"""Those that run; of the others, systemd judges the units."""

# Stages a release by hand, with the owners and modes that a deploy gives. The neighbour is as careless as can
# be.
STAGE = f"""
set -eu
umask 022
for app in {" ".join(APPS)}; do
  release=/srv/$app/releases/{RELEASE}
  mkdir -p "$release/src"
  chmod 0711 /srv/$app/releases "$release"
  ln -sfn /opt/environment "$release/venv"
  cp --preserve /etc/flask/$app/gunicorn.conf.py /etc/flask/$app/environment "$release/"
  cp /opt/app.py /opt/breakout.py /opt/work.py "$release/src/"
  chown -R root:$app "$release/src"
  chmod 0750 "$release/src"
  chmod 0640 "$release"/src/*.py
  systemctl start "flask-$app@{RELEASE}.socket" "flask-$app@{RELEASE}.service"
done
neighbour=/srv/sync-localhost
chmod 0777 $neighbour $neighbour/shared /var/log/flask/sync-localhost
chmod 0755 $neighbour/releases/{RELEASE}/src
chmod 0644 $neighbour/releases/{RELEASE}/src/*.py
echo data > $neighbour/shared/data
echo line > /var/log/flask/sync-localhost/app.log
"""

# By attempt, what comes of it in an app that says nothing of its sandbox.
FAILS = {
    "write its own code": "EACCES",
    "write its own settings": "EACCES",
    "write its own environment": "EACCES",
    "write /etc": "EROFS",
    "write where everybody may": "EROFS",
    "write another app's data": "ENOENT",
    "write another app's logs": "ENOENT",
    "read /etc/shadow": "EACCES",
    "read /root": "EACCES",
    "read /home": "EACCES",
    "read another app's data": "ENOENT",
    "read another app's code": "ENOENT",
    "read another app's secrets": "ENOENT",
    "read another app's configuration": "EACCES",
    "read another app's logs": "ENOENT",
    "read another app's variables": "ENOENT",
    "list the apps": "ENOENT",
    "see processes of others": "ENOENT",
    "read the figures of the host": "ENOENT",
    "make a set-user-ID file": "EPERM",
    "make a device node": "EPERM",
    "give a file away": "EPERM",
    "execute a file dropped in its data": "EACCES",
    "execute a file dropped in its logs": "EACCES",
    "execute a file dropped in /tmp": "EACCES",
    "execute a file dropped in /var/tmp": "EACCES",
    "execute a file dropped in /dev/shm": "EACCES",
    "load a library dropped in its data": "EPERM",
    "load a library dropped in its logs": "EPERM",
    "load a library dropped in /tmp": "EPERM",
    "load a library dropped in /var/tmp": "EPERM",
    "load a library dropped in /dev/shm": "EPERM",
    "execute a file in memory": "EPERM",
    "run a shell": "EACCES",
    "run a program of the host": "EACCES",
    "map memory to write and execute": "EPERM",
    "make written memory executable": "EPERM",
    "make a user namespace": "EPERM",
    "make a mount namespace": "EPERM",
    "make a network namespace": "EPERM",
    "make a process namespace": "EPERM",
    "trace a process of its own": "EPERM",
    "use io_uring": "EPERM",
    "change the host's name": "EPERM",
    "mount a file system": "EPERM",
    "raise its priority": "EPERM",
    "ask D-Bus": "EACCES",
    "open a raw socket": "EPERM",
    "open a packet socket": "EAFNOSUPPORT",
    "open a netlink socket": "EAFNOSUPPORT",
    "listen on any port": "EINVAL",
    "send to all neighbours": "EPERM",
}

# What needs open, and nothing else.
OPENED = {
    "run a shell": "succeeds",
    "run a program of the host": "succeeds",
    "map memory to write and execute": "succeeds",
    "make written memory executable": "succeeds",
    "execute a file in memory": "succeeds",
    "read the figures of the host": "succeeds",
}

ADDRESSES = ("reach the host itself", "reach an address of the list", "reach another address")
REACHES = {
    "gthread-all": ("succeeds", "succeeds", "succeeds"),
    "sync-localhost": ("succeeds", "EPERM", "EPERM"),
    "gthread-list": ("EPERM", "succeeds", "EPERM"),
    "gevent-none": ("EAFNOSUPPORT", "EAFNOSUPPORT", "EAFNOSUPPORT"),
}

WORK = (
    "database",
    "upload",
    "log",
    "threads",
    "processes",
    "names",
    "encryption",
    "foreign functions",
    "journal",
    "machine",
)


@pytest.fixture(scope="module", autouse=True)
def _staged(host: Host) -> None:
    host.check_output(STAGE.replace("%", "%%"))


def ask(host: Host, app: str, path: str, *options: str) -> str:
    socket = f"/srv/{app}/releases/{RELEASE}/gunicorn.sock"
    words = ["curl", "--silent", "--show-error", "--fail", "--max-time", "120", "--unix-socket", socket]
    words += [*options, f"http://hello{path}"]
    return str(host.check_output(" ".join(["%s"] * len(words)), *words))


@cache
def given(host: Host, app: str) -> str:
    """Where an attempt is to look, for the app that makes it."""
    process = host.check_output(f"systemctl show --property=MainPID --value flask-sync-localhost@{RELEASE}")
    return json.dumps(
        {
            "release": f"/srv/{app}/releases/{RELEASE}",
            "shared": f"/srv/{app}/shared",
            "logs": f"/var/log/flask/{app}",
            "others": "/srv/sync-localhost",
            "others_release": f"/srv/sync-localhost/releases/{RELEASE}",
            "others_configuration": "/etc/flask/sync-localhost",
            "others_logs": "/var/log/flask/sync-localhost",
            "others_process": process,
        }
    )


@cache
def attempts(host: Host, app: str) -> dict[str, str]:
    """What comes of all attempts in an app."""
    options = ("--header", "Content-Type: application/json", "--data", given(host, app))
    found: dict[str, str] = json.loads(ask(host, app, "/attempts", *options))
    return found


@cache
def outside(host: Host) -> dict[str, str]:
    """What comes of them outside of every sandbox."""
    found: dict[str, str] = json.loads(
        host.check_output("/opt/environment/bin/python /opt/breakout.py %s", given(host, "gthread-all"))
    )
    return found


@pytest.mark.parametrize("name", [*FAILS, *ADDRESSES, "listen on a port"])
def test_the_attempt_succeeds_outside_of_the_sandbox(host: Host, name: str) -> None:
    assert outside(host)[name] == "succeeds"


@pytest.mark.parametrize("name", FAILS)
def test_the_attempt_fails(host: Host, name: str) -> None:
    assert attempts(host, "gthread-all")[name] == FAILS[name]


@pytest.mark.parametrize("name", FAILS)
def test_needs_open_what_they_say_and_nothing_else(host: Host, name: str) -> None:
    assert attempts(host, "open")[name] == {**FAILS, **OPENED}[name]


def test_no_attempt_is_without_an_expectation(host: Host) -> None:
    assert set(outside(host)) == {*FAILS, *ADDRESSES, "listen on a port"}


@pytest.mark.parametrize("app", REACHES)
def test_an_app_reaches_what_its_network_says(host: Host, app: str) -> None:
    assert tuple(attempts(host, app)[name] for name in ADDRESSES) == REACHES[app]


@pytest.mark.parametrize("app", ["gthread-all", "sync-localhost", "gthread-list", "gevent-none", "open"])
def test_no_app_listens_on_a_port(host: Host, app: str) -> None:
    # Debian 12's systemd cannot forbid bind(), so there it is listening that comes to nothing.
    bound = "EINVAL" if host.system_info.release.startswith("12") else "EPERM"
    assert attempts(host, app)["listen on a port"] == ("EAFNOSUPPORT" if app == "gevent-none" else bound)


@pytest.mark.parametrize("app", ["sync-localhost", "gthread-list", "gevent-none"])
def test_other_worker_classes_are_held_as_well(host: Host, app: str) -> None:
    found = attempts(host, app)
    network = {"open a raw socket", "listen on any port", "send to all neighbours"}
    own = (
        {name for name in FAILS if "another app" in name or name == "list the apps"}
        if app == "sync-localhost"
        else set()
    )
    names = FAILS.keys() - network - own
    assert {name: found[name] for name in names} == {name: FAILS[name] for name in names}


@pytest.mark.parametrize("app", APPS)
@pytest.mark.parametrize("name", WORK)
def test_daily_work_goes_on(host: Host, app: str, name: str) -> None:
    assert work(host, app)[name] == "done"


@pytest.mark.parametrize("app", APPS)
def test_what_c_calls_back_needs_jit(host: Host, app: str) -> None:
    assert work(host, app)["callbacks"] == ("done" if app == "open" else "MemoryError()")


@cache
def work(host: Host, app: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(ask(host, app, "/work"))
    return found


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("worker_class", CLASSES)
def test_exposure(host: Host, worker_class: str, network: str) -> None:
    """The threshold is in tenths."""
    unit = f"flask-{worker_class}-{network}@{RELEASE}.service"
    threshold = 3 if network == "none" else 10
    judged = host.run(f"systemd-analyze security --no-pager --threshold={threshold} {unit}")
    assert judged.rc == 0, judged.stdout


def test_the_judge_has_another_opinion_of_a_plain_unit(host: Host) -> None:
    assert host.run("systemd-analyze security --no-pager --threshold=80 echo.service").rc == 1


@pytest.mark.parametrize("app", APPS)
def test_systemd_says_nothing_against_the_unit(host: Host, app: str) -> None:
    unit = f"flask-{app}@{RELEASE}.service"
    verified = host.run(f"systemd-analyze verify --man=no {unit}")
    assert (verified.rc, verified.stdout + verified.stderr) == (0, "")
    journal = host.check_output(f"journalctl --unit={unit} --output=cat")
    assert "rror" not in journal
    assert "BPF" not in journal
