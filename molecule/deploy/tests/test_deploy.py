"""What a deploy promises, tried on a host with systemd: each test ends with a host that serves."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from testinfra.host import Host

SCENARIO = Path(__file__).parent.parent
VARIABLES = "/etc/flask/hello/environment"


@dataclass
class Deploys:
    """The directory that is deployed, and ways to deploy it."""

    source: Path
    variables: dict[str, Any] = field(default_factory=dict)

    @property
    def module(self) -> Path:
        return self.source / "src" / "hello" / "__init__.py"

    def edit(self, old: str, new: str) -> None:
        text = self.module.read_text()
        assert old in text
        self.module.write_text(text.replace(old, new))

    def start(self) -> subprocess.Popen[str]:
        return self.play(
            str(SCENARIO / "converge.yml"), {"converge_source": str(self.source), **self.variables}
        )

    def start_back(self, **variables: Any) -> subprocess.Popen[str]:
        """Begin to roll back, with the playbook that users play."""
        [play] = yaml.safe_load((SCENARIO / "converge.yml").read_text())
        [role] = play["roles"]
        given = {"flask_hosts": "all", **play["vars"], **role["vars"], **variables}
        return self.play("flaskworks.server.rollback", given)

    def back(self, **variables: Any) -> tuple[int, str]:
        process = self.start_back(**variables)
        output = process.communicate(timeout=180)[0]
        return process.returncode, output

    def play(self, playbook: str, variables: dict[str, Any]) -> subprocess.Popen[str]:
        inventory = Path(os.environ["MOLECULE_INVENTORY_FILE"]).parent
        command = ["ansible-playbook", "-v", "-i", str(inventory), playbook]
        return subprocess.Popen(
            [*command, "-e", json.dumps(variables)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env={**os.environ, "ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_NOCOLOR": "1"},
        )

    def run(self) -> tuple[int, str]:
        process = self.start()
        output = process.communicate(timeout=180)[0]
        return process.returncode, output

    def good(self) -> str:
        code, output = self.run()
        assert code == 0, output
        return output


@pytest.fixture
def deploys(tmp_path: Path, host: Host) -> Deploys:
    """A copy of the scenario's app, on a host where some release of it serves."""
    set_variables(host, FEATURE="one")
    source = tmp_path / "app"
    shutil.copytree(SCENARIO / "app", source, ignore=shutil.ignore_patterns("__pycache__"))
    return Deploys(source)


@pytest.fixture
def one(host: Host, deploys: Deploys) -> None:
    """Have the app serve as the copy of it is."""
    answer = ask(host)
    if (answer["version"], answer["feature"]) != ("one", "one"):
        Deploys(SCENARIO / "app", {"flask_redeploy": "hello"}).good()


def set_variables(host: Host, **variables: str) -> None:
    lines = "".join(f'{name}="{value}"\n' for name, value in variables.items())
    secret = 'SECRET_KEY="not to be seen in any output"\n'
    assert host.run("printf '%s' %s > %s", "%s", lines + secret, VARIABLES).rc == 0


def ask(host: Host, path: str = "/") -> Any:
    done = host.run(
        "curl -sS --max-time 5 --unix-socket /srv/hello/current/gunicorn.sock http://hello.example.org%s",
        path,
    )
    assert done.rc == 0, done.stderr
    return json.loads(done.stdout)


def current(host: Host) -> str:
    return Path(host.check_output("readlink /srv/hello/current")).name


def releases(host: Host) -> list[str]:
    return list(host.check_output("ls -A /srv/hello/releases").split())


def instances(host: Host) -> set[str]:
    listed = host.check_output("systemctl list-units --all --plain --no-legend 'flask-hello@*'").splitlines()
    running = [line.split() for line in listed]
    return {
        fields[0].split("@")[1].rsplit(".", 1)[0]
        for fields in running
        if fields[2] not in ("inactive", "deactivating")
    }


def kill_module(host: Host, reached: str, pause: float, *arguments: str) -> None:
    """Kill the module on the host some time after it has reached a point."""
    pid = "sed -n 's/.*\"pid\": \\([0-9]*\\).*/\\1/p' /srv/hello/.lock"
    wait = f"for i in $(seq 3000); do if {reached}; then break; fi; sleep 0.01; done"
    host.run(f"{wait}; sleep {pause}; kill -9 $({pid})", *arguments)


def settled(host: Host) -> bool:
    """Whether, within a few seconds, only the current release runs and starts at boot."""
    for _ in range(60):
        if instances(host) == {current(host)}:
            break
        time.sleep(0.2)
    links = host.check_output(
        "ls /etc/systemd/system/sockets.target.wants /etc/systemd/system/multi-user.target.wants"
    )
    enabled = {line for line in links.split() if line.startswith("flask-hello@")}
    wanted = {f"flask-hello@{current(host)}.{kind}" for kind in ("socket", "service")}
    return instances(host) == {current(host)} and enabled == wanted


def test_serves_code_that_it_cannot_write(host: Host) -> None:
    name = current(host)
    assert ask(host)["release"] == name
    assert host.run("runuser -u hello -- touch /srv/hello/current/src/src/hello/x").rc != 0
    assert host.run("runuser -u hello -- cat /srv/hello/current/src/src/hello/__init__.py").rc == 0
    assert host.run("runuser -u hello -- cat /srv/hello/current/environment").rc != 0
    assert host.run("runuser -u nobody -- cat /srv/hello/current/src/src/hello/__init__.py").rc != 0
    assert host.run("runuser -u nobody -- cat /srv/hello/current/static/static/style.css").rc == 0
    assert host.file("/srv/hello/current/gunicorn.sock").group == "flask-proxy"
    assert host.run("find /srv/hello/releases /srv/hello/environments -user hello").stdout == ""
    assert host.run("ls /srv/hello/current/src/src/hello/__pycache__").rc == 0
    record = json.loads(host.file("/srv/hello/current/release.json").content_string)
    assert record["release"] == name
    assert "not to be seen" not in json.dumps(record)


@pytest.mark.usefixtures("one")
def test_changes_nothing_when_nothing_changed(host: Host, deploys: Deploys) -> None:
    name = current(host)
    assert "changed=0" in deploys.good()
    assert current(host) == name


def test_switches_to_new_code_and_drains_the_old(host: Host, deploys: Deploys) -> None:
    old = current(host)
    deploys.edit('VERSION = "one"', 'VERSION = "two"')
    output = deploys.good()
    assert ask(host)["version"] == "two"
    assert Path(host.check_output("readlink /srv/hello/previous")).name == old
    assert settled(host)
    assert "not to be seen" not in output


@pytest.mark.usefixtures("one")
def test_ends_with_a_receipt_and_notes_the_switch(host: Host, deploys: Deploys) -> None:
    old = current(host)
    assert f"hello: nothing to do, {old} serves" in deploys.good()
    deploys.edit('VERSION = "one"', 'VERSION = "receipt"')
    output = deploys.good()
    new = current(host)
    row = f"hello  trixie  {old[:16]} → {new[:16]} +-( +[0-9.]+ s){{3}}"
    assert len(re.findall(row, output)) == 1
    assert output.count("To roll back: ansible-playbook flaskworks.server.rollback -i ") == 1
    line = json.loads(host.check_output("tail -n 1 /srv/hello/history.jsonl"))
    assert (line["what"], line["from"], line["to"]) == ("deploy", old, new)
    assert sorted(line["seconds"]) == ["build", "gate", "switch"]
    assert host.file("/srv/hello/history.jsonl").mode == 0o600


HOLDER = """
import fcntl, json, os, time
lock = open("/srv/hello/.lock", "w")
fcntl.flock(lock, fcntl.LOCK_EX)
json.dump({"who": "ada@laptop", "what": "stage", "since": "noon", "pid": os.getpid()}, lock)
lock.flush()
time.sleep(600)
"""


def list_releases(place: Path, *arguments: str) -> tuple[int, str]:
    """List the releases that the scenario describes; what the operator sees."""
    play = yaml.safe_load((SCENARIO / "converge.yml").read_text())[0]
    tasks = [
        {"flaskworks.server.release_info": play["roles"][0]["vars"], "register": "found"},
        {"flaskworks.server.release_list": {"registered": "found"}},
    ]
    info = tasks[0]["flaskworks.server.release_info"]
    info["releases"] = info.pop("deploy_releases")
    (place / "list.yml").write_text(
        yaml.safe_dump([{"hosts": "all", "gather_facts": False, "vars": play["vars"], "tasks": tasks}])
    )
    inventory = Path(os.environ["MOLECULE_INVENTORY_FILE"]).parent
    done = subprocess.run(
        ["ansible-playbook", "-i", str(inventory), str(place / "list.yml"), *arguments],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
        env={**os.environ, "ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_NOCOLOR": "1"},
    )
    return done.returncode, done.stdout + done.stderr


def test_lists_what_is_there_and_who_holds_the_lock(host: Host, deploys: Deploys, tmp_path: Path) -> None:
    deploys.edit('VERSION = "one"', 'VERSION = "listed"')
    deploys.good()
    code, output = list_releases(tmp_path)
    assert code == 0, output
    assert re.search(f"hello +trixie +{current(host)} +current +[0-9]+ (s|min) ", output)
    assert re.search(r"hello +trixie +\S+ +previous ", output)
    assert "hello: last switch at 20" in output
    assert "locked" not in output
    host.check_output("systemd-run --quiet --unit=holder python3 -c %s", HOLDER)
    host.check_output("until test -s /srv/hello/.lock; do sleep 0.05; done")
    try:
        code, output = list_releases(tmp_path)
    finally:
        host.check_output("systemctl stop holder; truncate -s 0 /srv/hello/.lock")
    assert code == 0, output
    assert re.search(r"hello: locked by ada@laptop since noon \(stage, process \d+\)", output)


def test_the_list_is_for_root_and_says_so(tmp_path: Path) -> None:
    code, output = list_releases(tmp_path, "-u", "nobody", "-e", "ansible_remote_tmp=/tmp")
    assert code != 0
    assert "hello: /srv/hello may be read by root only; run this with become: true" in output
    assert "Traceback" not in output


@pytest.mark.usefixtures("one")
def test_takes_back_old_code_without_building(host: Host, deploys: Deploys) -> None:
    old = current(host)
    deploys.edit('VERSION = "one"', 'VERSION = "back"')
    deploys.good()
    deploys.edit('VERSION = "back"', 'VERSION = "one"')
    deploys.good()
    assert current(host) == old
    assert ask(host)["version"] == "one"
    assert settled(host)


@pytest.mark.usefixtures("one")
def test_goes_back_and_stays_there(host: Host, deploys: Deploys) -> None:
    old = current(host)
    deploys.edit('VERSION = "one"', 'VERSION = "regretted"')
    deploys.good()
    regretted = current(host)
    code, output = deploys.back()
    assert code == 0, output
    assert (current(host), ask(host)["version"]) == (old, "one")
    assert f"{regretted[:16]} → {old[:16]}" in output
    assert settled(host)
    code, output = deploys.run()
    assert code != 0
    assert f"hello: this is {regretted} again, which was rolled back by " in output
    assert "deploy it all the same with -e flask_redeploy=hello" in output
    assert ask(host)["version"] == "one"
    deploys.variables = {"flask_redeploy": "hello,another"}
    deploys.good()
    assert ask(host)["version"] == "regretted"
    deploys.variables = {}
    assert "changed=0" in deploys.good()


def test_goes_back_to_settings_and_to_a_named_release(host: Host, deploys: Deploys) -> None:
    deploys.edit('VERSION = "one"', 'VERSION = "proven"')
    deploys.good()
    old = current(host)
    set_variables(host, FEATURE="regretted")
    deploys.good()
    deploys.edit('VERSION = "proven"', 'VERSION = "regretted, too"')
    deploys.good()
    code, output = deploys.back(release=old[:16], app="hello")
    assert code == 0, output
    answer = ask(host)
    assert (current(host), answer["version"], answer["feature"]) == (old, "proven", "one")
    assert settled(host)
    code, output = deploys.back(release=old)
    assert code == 0, output
    assert "changed=0" in output
    assert f"hello: nothing to do, {old} serves" in output


def test_lists_what_is_there_when_there_is_no_way_back(host: Host, deploys: Deploys) -> None:
    assert settled(host)
    before = current(host)
    for variables, told in (
        (
            {"release": "20200101T000000Z"},
            "hello: there is no release 20200101T000000Z on this host. What is",
        ),
        ({"app": "helo"}, "there is no app 'helo', did you mean 'hello'?; this host has: hello"),
    ):
        code, output = deploys.back(**variables)
        assert code != 0
        assert told in output
        assert "app" in variables or f"    {before} " in output
        assert (current(host), instances(host)) == (before, {before})


@pytest.mark.usefixtures("one")
def test_recovers_from_a_killed_roll_back(host: Host, deploys: Deploys) -> None:
    old = current(host)
    deploys.edit('VERSION = "one"', 'VERSION = "left in a hurry"')
    deploys.good()
    assert settled(host)
    process = deploys.start_back()
    kill_module(host, "grep -q '\"roll back\"' /srv/hello/.lock", 0)
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert ask(host)["release"] == current(host)
    code, output = deploys.back(release=old)
    assert code == 0, output
    assert (current(host), ask(host)["version"]) == (old, "one")
    assert settled(host)


@pytest.mark.usefixtures("one")
def test_ships_a_changed_variable_without_code(host: Host, deploys: Deploys) -> None:
    before = current(host)
    set_variables(host, FEATURE="two")
    deploys.good()
    assert ask(host)["feature"] == "two"
    paths = [f"/srv/hello/releases/{name}/src/src/hello/__init__.py" for name in (before, current(host))]
    assert before != current(host)
    assert host.file(paths[0]).content == host.file(paths[1]).content
    assert host.check_output("stat -c %%i %s", paths[0]) == host.check_output("stat -c %%i %s", paths[1])


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("import", "RuntimeError: broken on purpose: import"),
        ("health", "the last answer was: 503 SERVICE UNAVAILABLE, 'broken on purpose: health'"),
        ("hang", "no answer within"),
    ],
)
@pytest.mark.usefixtures("one")
def test_refuses_a_broken_release(host: Host, deploys: Deploys, how: str, told: str) -> None:
    before, kept = current(host), releases(host)
    set_variables(host, BREAK=how)
    begin = time.monotonic()
    code, output = deploys.run()
    assert code != 0
    assert time.monotonic() - begin < 120  # health.timeout is 8 s; the rest is the machine
    assert told in output
    assert "not to be seen" not in output
    assert current(host) == before
    assert ask(host)["version"] == "one"
    assert releases(host) == kept
    assert instances(host) == {before}


def test_waits_for_a_release_that_boots_slowly(host: Host, deploys: Deploys) -> None:
    set_variables(host, BREAK="slow", FEATURE="slow")
    deploys.good()
    assert ask(host)["feature"] == "slow"
    assert settled(host)


@pytest.mark.usefixtures("one")
def test_switches_back_from_a_release_that_crashes_after_the_switch(host: Host, deploys: Deploys) -> None:
    before = current(host)
    set_variables(host, BREAK="crash", FEATURE="crash")
    deploys.variables = {"converge_watch": 60}
    code, output = deploys.run()
    assert code != 0
    assert "got into trouble after the switch: its service" in output
    assert f"It was switched back to {before}" in output
    assert current(host) == before
    assert ask(host)["feature"] == "one"
    bad = Path(host.check_output("readlink /srv/hello/previous")).name
    assert bad not in (before, "")
    code, output = deploys.run()
    assert code != 0
    assert f"this is {bad} again, which was marked bad by" in output
    assert "flask_redeploy=hello" in output
    assert current(host) == before
    assert settled(host)


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("WorkingDirectory=/srv/hello/current/src", "/src, not in /srv/hello/releases/"),
        ("EnvironmentFile=/srv/hello/current/environment", "has the variables of another release"),
    ],
)
@pytest.mark.usefixtures("one")
def test_refuses_a_service_that_runs_something_old(
    host: Host, deploys: Deploys, setting: str, told: str
) -> None:
    """It answers well, but with the code or the variables of the release before."""
    before, kept = current(host), releases(host)
    folder = "/etc/systemd/system/flask-hello@.service.d"
    drop_in = f"mkdir -p {folder} && printf '[Service]\\n%s\\n' '{setting}' > {folder}/old.conf"
    assert host.run(f"{drop_in} && systemctl daemon-reload").rc == 0
    set_variables(host, FEATURE="old")  # no release has it yet: one that fails is removed
    try:
        code, output = deploys.run()
    finally:
        assert host.run(f"rm -r {folder} && systemctl daemon-reload").rc == 0
    assert code != 0
    assert "the answers do not come from this release" in output
    assert told in output
    assert (current(host), releases(host)) == (before, kept)
    assert ask(host)["feature"] == "one"
    assert instances(host) == {before}


def test_recovers_from_killed_deploys(host: Host, deploys: Deploys) -> None:
    for number, pause in enumerate((1.0, 1.3, 1.6, 1.9, 2.3)):
        deploys.edit("VERSION = ", f"VERSION = '{number}' or ")
        process = deploys.start()
        time.sleep(pause)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert ask(host)["release"] == current(host)
    deploys.good()
    assert ask(host)["version"] == "4"
    assert settled(host)
    assert not [name for name in releases(host) if name.startswith(".")]


def test_recovers_from_a_module_killed_on_the_host(host: Host, deploys: Deploys) -> None:
    for number, pause in enumerate((0.1, 0.2, 0.3, 0.4)):
        deploys.edit("VERSION = ", f"VERSION = 'host {number}' or ")
        process = deploys.start()
        kill_module(host, "grep -q '\"stage\"' /srv/hello/.lock", pause)
        process.communicate(timeout=60)
        assert ask(host)["release"] == current(host)
    deploys.good()
    assert ask(host)["version"] == "host 3"
    assert settled(host)


@pytest.mark.usefixtures("one")
def test_builds_an_interrupted_environment_again(host: Host, deploys: Deploys) -> None:
    place = host.check_output("readlink -f /srv/hello/current/venv")
    lock = deploys.source / "requirements.lock"
    deploys.edit('VERSION = "one"', 'VERSION = "rebuilt"')
    lock.write_text(lock.read_text().replace("# via flask\n", "# via flask, really\n"))
    deploys.good()
    assert host.check_output("readlink -f /srv/hello/current/venv") == place  # comments decide nothing
    (deploys.source / "requirements.lock").write_text("flask\nitsdangerous\n")
    process = deploys.start()
    kill_module(host, "ls -d /srv/hello/environments/*/pyvenv.cfg | grep -qv %s", 0.2, place)
    process.communicate(timeout=60)
    deploys.good()
    new = host.check_output("readlink -f /srv/hello/current/venv")
    assert new != place
    assert host.file(f"{new}/.complete").exists
    assert ask(host)["version"] == "rebuilt"


def test_lets_two_deploys_at_once_end_with_one_release(host: Host, deploys: Deploys, tmp_path: Path) -> None:
    other = Deploys(tmp_path / "other")
    shutil.copytree(deploys.source, other.source)
    deploys.edit('VERSION = "one"', 'VERSION = "first"')
    other.edit('VERSION = "one"', 'VERSION = "second"')
    processes = [deploys.start(), other.start()]
    outputs = [process.communicate(timeout=180)[0] for process in processes]
    codes = [process.returncode for process in processes]
    assert 0 in codes, outputs
    for code, output in zip(codes, outputs, strict=True):
        assert code == 0 or "another deploy came between" in output
    assert ask(host)["release"] == current(host)
    deploys.good()
    assert ask(host)["version"] == "first"
    assert settled(host)


def forget(host: Host) -> None:
    """Make the host one that never had a release of the app."""
    done = host.run(
        "systemctl stop 'flask-hello*' && systemctl reset-failed && "
        "rm -f /etc/systemd/system/*.wants/flask-hello@* && systemctl daemon-reload && "
        "find /srv/hello -mindepth 1 -maxdepth 1 -not -name shared -exec rm -rf {} +"
    )
    assert done.rc == 0, done.stderr
    assert host.check_output("ls -A /srv/hello") == "shared"
    assert instances(host) == set()


def serves_or_promises_nothing(host: Host) -> bool:
    if not host.file("/srv/hello/current").is_symlink:
        return True
    return bool(ask(host)["release"] == current(host))


def finish(host: Host, deploys: Deploys) -> None:
    """Give the same command again, and see that it leaves what an undisturbed first deploy leaves."""
    deploys.good()
    assert ask(host)["version"] == "one"
    assert settled(host)
    assert releases(host) == [current(host)]
    assert not host.file("/srv/hello/previous").exists
    place = host.check_output("readlink -f /srv/hello/current/venv")
    assert host.file(f"{place}/.complete").exists
    assert host.check_output("ls /srv/hello/environments").split() == [Path(place).name]
    assert "changed=0" in deploys.good()


# About when the host is reached, and while the environment is built.
@pytest.mark.parametrize("pause", [1.3, 3.3])
def test_recovers_from_a_killed_first_deploy(host: Host, deploys: Deploys, pause: float) -> None:
    forget(host)
    process = deploys.start()
    time.sleep(pause)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert serves_or_promises_nothing(host)
    finish(host, deploys)


@pytest.mark.parametrize(
    "reached",
    [
        "ls /srv/hello/environments/*/pyvenv.cfg",
        "ls /srv/hello/releases/*/release.json",
        "ls /srv/hello/releases/*/gunicorn.sock",
    ],
)
def test_recovers_from_a_module_killed_in_the_first_deploy(
    host: Host, deploys: Deploys, reached: str
) -> None:
    forget(host)
    process = deploys.start()
    kill_module(host, f"{reached} >/dev/null 2>&1", 0)
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert serves_or_promises_nothing(host)
    finish(host, deploys)


def git(directory: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", *identity, *arguments], cwd=directory, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_deploys_a_tag_of_a_repository(host: Host, deploys: Deploys) -> None:
    """The controller fetches; of the repository the host sees one commit's files and its name."""
    git(deploys.source, "init", "--quiet")
    git(deploys.source, "remote", "add", "origin", "https://someone:t0ken-of-git@git.example.org/hello.git")
    deploys.edit('VERSION = "one"', 'VERSION = "tagged"')
    git(deploys.source, "add", ".")
    git(deploys.source, "commit", "--quiet", "--message", "The release")
    git(deploys.source, "tag", "v1.0")
    revision = git(deploys.source, "rev-parse", "HEAD")
    deploys.edit('VERSION = "tagged"', 'VERSION = "later"')
    git(deploys.source, "commit", "--quiet", "--all", "--message", "Not released yet")

    deploys.variables = {"converge_git": f"file://{deploys.source}", "converge_version": "v1.0"}
    output = deploys.good()
    assert ask(host)["version"] == "tagged"
    assert settled(host)
    record = json.loads(host.file("/srv/hello/current/release.json").content_string)
    assert record["revision"] == revision
    assert host.check_output("find /srv/hello/ -name .git") == ""
    assert host.run("grep -rlF -e t0ken-of-git -e git.example.org /srv/hello /etc/flask").stdout == ""
    assert "t0ken-of-git" not in output
    assert "changed=0" in deploys.good()

    git(deploys.source, "tag", "--force", "v1.0")
    deploys.good()
    assert ask(host)["version"] == "later"


def test_a_project_file_is_enough_to_build_from(deploys: Deploys, host: Host) -> None:
    (deploys.source / "requirements.lock").unlink()
    (deploys.source / "pyproject.toml").write_text(
        '[project]\nname = "hello"\ndependencies = ["flask>=3.1"]\n'
    )
    deploys.edit('VERSION = "one"', 'VERSION = "project file"')
    deploys.good()
    assert ask(host)["version"] == "project file"
    assert host.file("/srv/hello/current/venv/bin/gunicorn").exists  # brought by the plan, not by the project
    assert "changed=0" in deploys.good()


def write_wheel(path: Path, module: str) -> None:
    metadata = "Metadata-Version: 2.1\nName: hello\nVersion: 1.0\nRequires-Dist: flask>=3.1\n"
    parts = {
        "hello/__init__.py": module,
        "hello/static/style.css": "body { color: teal }",
        "hello-1.0.dist-info/METADATA": metadata,
        "hello-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in [*parts, "hello-1.0.dist-info/RECORD"])
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**parts, "hello-1.0.dist-info/RECORD": record}.items():
            archive.writestr(name, content)


def test_a_bare_wheel_is_enough_to_deploy(deploys: Deploys, host: Host, tmp_path: Path) -> None:
    wheel = tmp_path / "hello-1.0-py3-none-any.whl"
    write_wheel(wheel, deploys.module.read_text().replace('VERSION = "one"', 'VERSION = "wheel"'))
    deploys.variables = {"converge_source": str(wheel), "converge_static": "hello/static"}
    deploys.good()
    assert ask(host)["version"] == "wheel"
    assert host.file("/srv/hello/current/static/static/style.css").content_string == "body { color: teal }"
    assert (
        host.run("runuser -u hello -- touch /srv/hello/current/venv/lib/python3.13/site-packages/hello/x").rc
        != 0
    )
    assert "changed=0" in deploys.good()


def test_deploys_a_version_of_a_package(deploys: Deploys, host: Host, tmp_path: Path) -> None:
    """What an index has is found by the controller; the host installs it and what it depends on."""
    wheel = tmp_path / "hello-1.0-py3-none-any.whl"
    write_wheel(wheel, deploys.module.read_text().replace('VERSION = "one"', 'VERSION = "package"'))
    deploys.variables = {
        "converge_other": {"package": "hello==1.0", "index": str(tmp_path)},
        "converge_static": "hello/static",
    }
    deploys.good()
    assert ask(host)["version"] == "package"
    assert host.file("/srv/hello/current/static/static/style.css").content_string == "body { color: teal }"
    assert json.loads(host.file("/srv/hello/current/release.json").content_string)["revision"] == "hello-1.0"
    assert "changed=0" in deploys.good()

    deploys.variables["converge_other"]["package"] = "hello==2.0"
    code, output = deploys.run()
    assert code != 0
    assert "cannot get hello==2.0 from" in output
    assert ask(host)["version"] == "package"


def test_deploys_an_archive_with_a_checksum(deploys: Deploys, host: Host, tmp_path: Path) -> None:
    """All of it is below one directory, as in archives that are made of a version."""
    deploys.edit('VERSION = "one"', 'VERSION = "archive"')
    archive = shutil.make_archive(str(tmp_path / "hello-1.2"), "gztar", deploys.source.parent, "app")
    checksum = "sha256:" + hashlib.sha256(Path(archive).read_bytes()).hexdigest()
    deploys.variables = {"converge_other": {"archive": archive, "checksum": checksum}}
    deploys.good()
    assert ask(host)["version"] == "archive"
    record = json.loads(host.file("/srv/hello/current/release.json").content_string)
    assert record["revision"] == "hello-1.2.tar.gz"
    assert "changed=0" in deploys.good()

    with Path(archive).open("ab") as file:
        file.write(b"and more")
    code, output = deploys.run()
    assert code != 0
    assert "is not the file that source.checksum means" in output
    assert ask(host)["version"] == "archive"
