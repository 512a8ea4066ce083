"""Hooks run as a service of the new release would, and stop a deploy when they fail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.flaskworks.server.plugins.action.release import ActionModule, kinds
from ansible_collections.flaskworks.server.plugins.module_utils.release import hook_units, hooks, withdrawal
from ansible_collections.flaskworks.server.plugins.module_utils.release.staging import Outcome

from tests.unit.release_host import Bench, Killed

NAME = "20261121T101500Z-0123456789"


def bench_with(tmp_path: Path, **lines: list[str]) -> Bench:
    none: dict[str, Any] = {"migrate": [], "before_activate": [], "after_activate": [], "timeout": 60}
    return Bench(tmp_path, hooks={**none, **lines})


def run(bench: Bench, kind: str, staged: dict[str, Outcome]) -> Outcome:
    names = {name: str(one.release) for name, one in staged.items()}
    return hooks.run(bench.job(), kind, [bench.release("hello")], names)["hello"]


def give_up(bench: Bench, staged: dict[str, Outcome]) -> Outcome:
    names = {name: str(one.release) for name, one in staged.items()}
    return withdrawal.give_up(bench.job(), [bench.release("hello")], names)["hello"]


def test_a_hook_is_a_unit_with_the_settings_of_the_service(tmp_path: Path) -> None:
    bench = bench_with(tmp_path, migrate=["flask --app hello db upgrade 50%"])
    staged = bench.stage()
    assert run(bench, "migrate", staged).changed
    [(unit, text)] = bench.host.hooks.items()
    name = staged["hello"].release
    home = f"{tmp_path}/srv/hello/releases/{name}"
    assert unit.startswith(f"flask-hello-migrate-{name}-")
    assert unit.endswith(".service")
    assert text == (
        "[Unit]\n"
        f"Description=Hook migrate of hello, release {name}\n"
        "[Service]\n"
        "User=hello\n"
        f"WorkingDirectory=/srv/hello/releases/{name}/src\n"
        "Type=oneshot\n"
        "ExecPaths=/usr\n"
        f"ExecSearchPath={home}/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"
        "ExecStart=flask --app hello db upgrade 50%%\n"
        "TimeoutStartSec=60\n"
        "TimeoutStopSec=10\n"
        "StandardInput=null\n"
        "StandardOutput=journal\n"
        "StandardError=journal\n"
        "RuntimeDirectoryPreserve=yes\n"
    )


def test_a_hook_takes_over_the_sandbox_and_not_the_life_of_a_service() -> None:
    text = """# /etc/systemd/system/flask-hello@.service
[Unit]
After=network.target
[Service]
Type=notify
# User=nobody
User=hello
ExecStart=/srv/hello/releases/%i/venv/bin/gunicorn \\
    --config /srv/hello/releases/%i/gunicorn.conf.py
ExecReload=/bin/true
KillMode=mixed
FinalKillSignal=SIGKILL
TimeoutStopSec=40
Restart=always
RestartSec=2
EnvironmentFile=/srv/hello/releases/%i/environment
Environment=A=%%i "B=c=d"
Slice=flask-my\\x2dapp.slice
LimitNOFILE=4096
ReadWritePaths=/srv/hello/shared \\
    /var/log/flask/hello
[Install]
WantedBy=multi-user.target

# /etc/systemd/system/flask-hello@.service.d/local.conf
[Service]
ReadWritePaths=
MemoryMax=1G
StandardOutput=null
"""
    assert hook_units.settings_of(text, NAME) == [
        "User=hello",
        f"EnvironmentFile=/srv/hello/releases/{NAME}/environment",
        'Environment=A=%%i "B=c=d"',
        r"Slice=flask-my\x2dapp.slice",
        "LimitNOFILE=4096",
        "ReadWritePaths=/srv/hello/shared      /var/log/flask/hello",
        "ReadWritePaths=",
        "MemoryMax=1G",
    ]


def test_a_failing_hook_tells_its_output_and_nothing_switches(tmp_path: Path) -> None:
    bench = bench_with(tmp_path, before_activate=["true", "fail please", "true"])
    old = bench.deploy()["hello"].release
    bench.code["hello"] = "two"
    staged = bench.stage()
    failure = str(run(bench, "before_activate", staged).failure)
    unit = list(bench.host.hooks)[-1]
    assert failure.startswith("hello: the hook before_activate failed with status 3: fail please\n")
    assert f"    {unit} said this\n" in failure
    assert failure.endswith(
        "What served before goes on serving. Correct the hook or what it needs, and deploy again."
    )
    assert len(bench.host.hooks) == 2  # the third did not run
    assert give_up(bench, staged).release == old
    assert bench.serving() == "one"
    assert bench.host.running("hello") == {old}
    assert not [unit for unit in bench.host.states if "before_activate" in unit]


def test_what_was_given_up_is_used_again(tmp_path: Path) -> None:
    bench = bench_with(tmp_path)
    bench.deploy()
    bench.code["hello"] = "two"
    staged = bench.stage()
    give_up(bench, staged)
    builds = bench.releases()
    assert bench.deploy()["hello"].release == staged["hello"].release
    assert bench.releases() == builds
    assert bench.serving() == "two"


def test_giving_up_leaves_the_candidate_of_another_deploy(tmp_path: Path) -> None:
    bench = bench_with(tmp_path)
    bench.deploy()
    bench.code["hello"] = "two"
    staged = bench.stage()
    bench.code["hello"] = "three"
    other = bench.stage(who="you@there")
    give_up(bench, staged)
    assert bench.activate(other)["hello"].failure is None
    assert bench.serving() == "three"


@pytest.mark.parametrize("kind", ["migrate", "before_activate"])
def test_no_hook_runs_for_what_is_not_staged_any_more(tmp_path: Path, kind: str) -> None:
    bench = bench_with(tmp_path, migrate=["true"], before_activate=["true"])
    staged = bench.stage()
    give_up(bench, staged)
    assert "another deploy came between" in str(run(bench, kind, staged).failure)
    assert bench.host.hooks == {}


def test_after_activate_runs_for_what_serves(tmp_path: Path) -> None:
    bench = bench_with(tmp_path, after_activate=["true"])
    staged = bench.stage()
    assert "another deploy came between (nothing serves)" in str(run(bench, "after_activate", staged).failure)
    bench.activate(staged)
    assert run(bench, "after_activate", staged).failure is None
    assert len(bench.host.hooks) == 1


def test_the_next_deploy_reaps_the_hook_of_a_killed_one(tmp_path: Path) -> None:
    bench = bench_with(tmp_path, migrate=["die"])
    staged = bench.stage()
    with pytest.raises(Killed):
        run(bench, "migrate", staged)
    [unit] = [unit for unit in bench.host.states if "migrate" in unit]
    bench.host.states[f"flask-hello-migrate@{NAME}.service"] = bench.host.states[unit]  # another app's
    bench.stage()
    assert unit not in bench.host.states
    assert f"flask-hello-migrate@{NAME}.service" in bench.host.states


def test_the_hooks_of_a_neighbour_are_left_alone(tmp_path: Path) -> None:
    release = Bench(tmp_path).release("hello")
    assert hook_units.is_hook(release, f"flask-hello-migrate-{NAME}-0123abcd.service")
    assert not hook_units.is_hook(release, f"flask-hello-migrate@{NAME}.service")
    assert not hook_units.is_hook(release, f"flask-hello-migrate-x@{NAME}.service")
    assert not hook_units.is_hook(release, f"flask-hello-migrate-migrate-{NAME}-0123abcd.service")
    assert not hook_units.is_hook(release, f"flask-hello-drain-{NAME}.service")


def test_kinds_of_hooks_of_staged_apps_only() -> None:
    none: dict[str, list[str]] = {"migrate": [], "before_activate": [], "after_activate": []}
    releases = [
        {"name": "hello", "hooks": {**none, "migrate": ["true"]}},
        {"name": "notes", "hooks": {**none, "migrate": ["true"], "after_activate": ["true"]}},
    ]
    assert kinds(releases, {"hello": NAME}) == ["migrate"]
    assert kinds(releases, {"hello": NAME, "notes": NAME}) == ["migrate", "after_activate"]
    assert kinds(releases, {}) == []


@pytest.mark.parametrize(("host", "first"), [("web2", True), ("web3", False)])
def test_the_first_host_that_staged_an_app_migrates_it(host: str, first: bool) -> None:
    staged = {"apps": {"hello": {"release": NAME, "staged": True}}}
    action = ActionModule.__new__(ActionModule)
    action._vars = {
        "inventory_hostname": host,
        "ansible_play_hosts_all": ["web1", "web2", "web3"],
        "hostvars": {
            "web1": {"done": {"apps": {"hello": {"release": NAME, "staged": False}}}},
            "web2": {"done": staged},
            "web3": {"done": staged},
        },
    }
    assert action._is_first("hello", "done") is first


def test_the_next_deploy_forgets_a_hook_that_outlived_its_deploy_and_ended(tmp_path: Path) -> None:
    bench = bench_with(tmp_path, migrate=["die"])
    staged = bench.stage()
    with pytest.raises(Killed):
        run(bench, "migrate", staged)
    [left] = bench.host.unit_files
    del bench.host.states[
        left
    ]  # it has ended by itself: the service manager has forgotten it, its file is there
    bench.stage()
    assert bench.host.unit_files == set()
