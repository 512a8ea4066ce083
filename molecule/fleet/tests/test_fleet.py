"""Several hosts in one play: all of them switch or none, and it is told what each serves."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

APP = Path(__file__).parents[2] / "deploy" / "app"
PATIENCE = 300  # seconds until something that has to happen counts as not happening, on any machine
KINDS = ("migrate", "before_activate", "after_activate")
HOLD = "sh -c 'touch /srv/hello/shared/held; until test -e /srv/hello/shared/go; do sleep 0.1; done'"


@dataclass
class Play:
    """A source, and plays that deploy it to all hosts."""

    source: Path
    hosts: Mapping[str, Host]
    variables: dict[str, Any] = field(default_factory=dict)

    def start(self) -> subprocess.Popen[str]:
        inventory = Path(os.environ["MOLECULE_INVENTORY_FILE"]).parent
        variables = json.dumps({"fleet_source": str(self.source), **self.variables})
        return subprocess.Popen(
            ["ansible-playbook", "flaskworks.server.deploy", "-i", str(inventory), "-e", variables],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0"},
        )

    def run(self) -> tuple[int, str]:
        process = self.start()
        return finish(process)

    def good(self) -> str:
        code, output = self.run()
        assert code == 0, output
        return output

    def refused(self) -> str:
        code, output = self.run()
        assert code != 0, output
        return output

    def serves(self) -> dict[str, str]:
        return {name: current(host) for name, host in self.hosts.items()}

    def notes(self, kind: str) -> dict[str, list[str]]:
        return {
            name: host.run("cat /srv/hello/shared/%s", kind).stdout.splitlines()
            for name, host in self.hosts.items()
        }

    def tell(self, script: str, *names: str) -> None:
        for name in names or self.hosts:
            assert self.hosts[name].run(script).rc == 0, name


@pytest.fixture
def play(tmp_path: Path, hosts: dict[str, Host], request: pytest.FixtureRequest) -> Iterator[Play]:
    """New code, on hosts that serve something else and know nothing of hooks that ran before."""
    source = tmp_path / "app"
    shutil.copytree(APP, source, ignore=shutil.ignore_patterns("__pycache__"))
    module = source / "src/hello/__init__.py"
    module.write_text(module.read_text().replace('VERSION = "one"', f'VERSION = "{request.node.name}"'))
    made = Play(source, hosts)
    made.tell("rm -rf /srv/hello/shared/*")
    yield made
    made.tell("touch /srv/hello/shared/go; sed -i /BREAK/d /etc/flask/hello/environment")


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    output = process.communicate(timeout=PATIENCE)[0]
    return process.returncode, output


def current(host: Host) -> str:
    return Path(host.check_output("readlink /srv/hello/current")).name


def running(host: Host) -> set[str]:
    """The releases that run. What is being stopped does not count."""
    listed = host.check_output("systemctl list-units --all --plain --no-legend 'flask-hello@*'")
    fields = [line.split() for line in listed.splitlines()]
    return {
        one[0].split("@")[1].rsplit(".", 1)[0] for one in fields if one[2] not in ("inactive", "deactivating")
    }


def until(reached: Callable[[], bool], what: str) -> None:
    limit = time.monotonic() + PATIENCE
    while not reached():
        assert time.monotonic() < limit, what
        time.sleep(0.1)


def held(play: Play, *names: str) -> None:
    """Wait until a hook waits on each of these hosts."""
    until(
        lambda: all(play.hosts[name].file("/srv/hello/shared/held").exists for name in names),
        "no hook has begun",
    )


def only_what_serves_runs(play: Play) -> None:
    for host in play.hosts.values():
        until(lambda host=host: running(host) == {current(host)}, "something else runs")  # type: ignore[misc]


def no_host_has_switched(play: Play, before: dict[str, str], output: str, failed: str) -> None:
    told = f"The deploy failed on {failed}. No host has switched: each serves what it served before."
    assert told in output
    assert play.serves() == before
    only_what_serves_runs(play)
    assert play.notes("after_activate") == {"web1": [], "web2": [], "web3": []}


def lines_of(output: str) -> dict[str, str]:
    """What the last message says that each host serves."""
    told = output.split("What each host serves now:")[1]
    return dict(re.findall(r"(?:hello|\*)  (web\d)  ([^\n]+)", told))


def test_hooks_run_as_the_new_release_and_migrate_once(play: Play) -> None:
    play.good()
    after = play.serves()
    moments = {name.split("-")[0] for name in after.values()}
    assert len(moments) == 1
    as_release = {
        name: f"hello {release} /srv/hello/releases/{release}/venv/bin/flask"
        for name, release in after.items()
    }
    assert play.notes("migrate") == {"web1": [as_release["web1"]], "web2": [], "web3": []}
    assert play.notes("before_activate") == {name: [line] for name, line in as_release.items()}
    assert play.notes("after_activate") == {name: [line] for name, line in as_release.items()}
    output = play.good()
    assert output.count("changed=0") == 3
    assert play.serves() == after
    assert play.notes("before_activate") == {name: [line] for name, line in as_release.items()}


def test_broken_on_one_host_switches_none(play: Play) -> None:
    before = play.serves()
    play.tell("echo BREAK=import >> /etc/flask/hello/environment", "web2")
    output = play.refused()
    assert "RuntimeError: broken on purpose: import" in output
    no_host_has_switched(play, before, output, "web2")
    assert play.notes("migrate") == {"web1": [], "web2": [], "web3": []}


def test_a_failing_migration_switches_none_and_shows_its_output(play: Play) -> None:
    before = play.serves()
    play.variables["fleet_hooks"] = {"migrate": "sh -c 'echo there is no column author >&2; exit 7'"}
    output = play.refused()
    assert "hello: the hook migrate failed with status 7: sh -c" in output
    assert re.search(r"^ +there is no column author$", output, re.MULTILINE)
    no_host_has_switched(play, before, output, "web1")
    assert play.notes("before_activate") == {"web1": [], "web2": [], "web3": []}


def test_a_hook_before_the_switch_that_fails_on_one_host_switches_none(play: Play) -> None:
    before = play.serves()
    play.tell("touch /srv/hello/shared/refused", "web3")
    play.variables["fleet_hooks"] = {
        "before_activate": ["true", "sh -c 'test ! -e /srv/hello/shared/refused'"]
    }
    output = play.refused()
    assert "hello: the hook before_activate failed with status 1: sh -c" in output
    no_host_has_switched(play, before, output, "web3")


def test_batches_go_one_after_the_other_and_stop_at_the_first_failure(play: Play) -> None:
    before = play.serves()
    play.variables["flask_serial"] = 1
    play.tell("echo BREAK=import >> /etc/flask/hello/environment", "web2")
    output = play.refused()
    now = play.serves()
    assert now["web1"] != before["web1"]
    assert {name: now[name] for name in ("web2", "web3")} == {name: before[name] for name in ("web2", "web3")}
    assert "The deploy failed on web2. What each host serves now:" in output
    assert lines_of(output) == {
        "web1": f"{now['web1']} (new)",
        "web2": before["web2"],
        "web3": "what it served before; its turn had not come",
    }
    only_what_serves_runs(play)

    play.tell("sed -i /BREAK/d /etc/flask/hello/environment", "web2")
    play.tell("rm /srv/hello/shared/*", "web1")
    play.good()
    after = play.serves()
    assert after["web1"] == now["web1"]
    assert after["web2"] != before["web2"]
    assert after["web3"] != before["web3"]
    assert [len(lines) for lines in play.notes("migrate").values()] == [0, 1, 0]


def test_a_host_that_fails_after_others_switched_is_told(play: Play) -> None:
    before = play.serves()
    play.variables["fleet_hooks"] = {"before_activate": HOLD}
    process = play.start()
    held(play, "web1", "web2", "web3")
    [candidate] = running(play.hosts["web2"]) - {before["web2"]}
    play.tell(f"systemctl stop flask-hello@{candidate}.socket flask-hello@{candidate}.service", "web2")
    play.tell("touch /srv/hello/shared/go")
    code, output = finish(process)
    assert code != 0
    now = play.serves()
    assert f"so {candidate} was not activated" in output
    assert now["web2"] == before["web2"]
    assert lines_of(output) == {
        "web1": f"{now['web1']} (new)",
        "web2": before["web2"],
        "web3": f"{now['web3']} (new)",
    }
    assert now["web1"] != before["web1"]
    assert now["web3"] != before["web3"]
    only_what_serves_runs(play)


def test_trouble_after_the_switch_on_one_host_switches_all_back(play: Play) -> None:
    before = play.serves()
    play.variables["fleet_watch"] = "30s"
    play.tell("echo BREAK=crash >> /etc/flask/hello/environment", "web2")
    output = play.refused()
    assert play.serves() == before
    assert "got into trouble after the switch: its service" in output
    assert f"It was switched back to {before['web2']}" in output
    assert "The deploy failed on web2. Each host serves again what it served before." in output
    assert play.notes("after_activate") == {"web1": [], "web2": [], "web3": []}
    for name, host in play.hosts.items():
        [mark] = [
            one
            for one in json.loads(host.file("/srv/hello/.marks.json").content_string).values()
            if one["release"] == Path(host.check_output("readlink /srv/hello/previous")).name
        ]
        assert mark["state"] == "bad"
        assert mark["why"].startswith("its service" if name == "web2" else "on web2: its service")
    only_what_serves_runs(play)
    assert "which was marked bad by" in play.refused()
    assert play.serves() == before


def test_a_second_deploy_at_once_waits_and_then_fails_by_name(play: Play) -> None:
    before = play.serves()
    second = Play(play.source, play.hosts)
    play.variables["fleet_hooks"] = {"before_activate": HOLD}
    process = play.start()
    held(play, "web1", "web2", "web3")
    output = second.refused()
    for name in play.hosts:
        assert re.search(rf"{name}.*\n?", output)
    found = re.findall(
        r"hello: locked by \S+@\S+ since [0-9: -]+ UTC \(before_activate, process \d+\); waited 2 s: "
        r"run again when that deploy has ended",
        output,
    )
    assert len(found) >= 3
    assert play.serves() == before
    play.tell("touch /srv/hello/shared/go")
    code, output = finish(process)
    assert code == 0, output
    assert all(play.serves()[name] != before[name] for name in play.hosts)
    only_what_serves_runs(play)


def test_a_host_that_is_lost_in_the_middle_stops_the_others(play: Play) -> None:
    before = play.serves()
    play.variables["fleet_hooks"] = {"before_activate": HOLD}
    process = play.start()
    held(play, "web1", "web2", "web3")
    # As if its network went away: no new connection, and those that there are end.
    play.tell("systemctl stop ssh.socket ssh.service; pkill -KILL sshd; true", "web3")
    play.tell("touch /srv/hello/shared/go")
    code, output = finish(process)
    play.tell("systemctl start ssh.service", "web3")
    assert code != 0
    assert "UNREACHABLE!" in output
    assert "The deploy failed on web3. No host has switched: each serves what it served before." in output
    assert play.serves() == before
    play.variables = {}
    play.good()
    assert all(play.serves()[name] != before[name] for name in play.hosts)
    only_what_serves_runs(play)


def test_a_killed_deploy_leaves_no_hook_behind(play: Play) -> None:
    web1 = play.hosts["web1"]
    play.variables["fleet_hooks"] = {"migrate": HOLD}
    process = play.start()
    held(play, "web1")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    module = json.loads(web1.check_output("cat /srv/hello/.lock"))
    assert module["what"] == "migrate"
    play.tell(f"kill -9 {module['pid']}", "web1")
    hooks = "systemctl list-units --all --plain --no-legend 'flask-hello-migrate-*'"
    assert "activating" in web1.check_output(hooks)
    play.variables = {}
    play.good()
    assert web1.check_output(hooks) == ""
    assert web1.run("ls /run/systemd/system | grep flask-hello-").stdout == ""
    only_what_serves_runs(play)
