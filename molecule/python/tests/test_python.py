"""What the role python promises: environments that are whole, never changed, and not the app's to write."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

from testinfra.host import Host

UV = "/usr/local/lib/flaskworks/uv/bin/uv"
PLAIN = {"ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_NOCOLOR": "1"}
LOCK = (Path(__file__).parent.parent / "reports.lock").read_text()


def build(check: bool = False, **arguments: Any) -> tuple[bool, dict[str, Any]]:
    """Call the module as a task would; whether it succeeded, and what it returned."""
    inventory = Path(os.environ["MOLECULE_INVENTORY_FILE"]).parent
    command = ["ansible", "trixie", "-i", str(inventory), "-b", "-m", "flaskworks.server.environment"]
    done = subprocess.run(
        [*command, "-a", json.dumps(arguments), *(["--check"] if check else [])],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, "ANSIBLE_CALLBACK_RESULT_FORMAT": "json", **PLAIN},
    )
    answer: dict[str, Any] = json.loads(done.stdout.partition("=> ")[2])
    return done.returncode == 0, answer


def test_uv_is_the_pinned_one(host: Host) -> None:
    pinned = (Path(__file__).parents[3] / "roles/python/files/uv.txt").read_text().split()[0].split("==")[1]
    assert host.check_output("%s --version", UV).split()[1] == pinned


def test_environment_holds_what_was_asked_for(host: Host) -> None:
    shown = host.check_output(
        "/opt/reports/bin/python -c 'import itsdangerous, markupsafe as m; print(m.__file__)'"
    )
    assert shown.startswith("/opt/reports/lib/")
    assert host.check_output("find -L /opt/reports -name '*.pyc' | head -n 1")


def test_only_its_group_reads_it_and_only_root_writes(host: Host) -> None:
    assert host.run("runuser -u games -- /opt/reports/bin/python -c 'import markupsafe'").rc == 0
    assert host.run("runuser -u nobody -- ls /opt/reports/").rc != 0
    place = host.check_output("readlink -f /opt/reports")
    assert host.check_output("find %s ! -type l '(' -perm /022 -o ! -user root ')'", place) == ""


def test_other_requirements_give_another_environment(host: Host) -> None:
    first = build(path="/opt/other", requirements="itsdangerous==2.2.0")
    place = host.check_output("readlink -f /opt/other")
    assert first[1]["changed"]
    assert first[1]["builder"] == "uv"
    again = build(path="/opt/other", requirements="# a comment decides nothing\nitsdangerous==2.2.0")
    assert not again[1]["changed"]
    foreseen = build(check=True, path="/opt/other", requirements="markupsafe")
    assert foreseen[1]["changed"]
    assert host.check_output("readlink -f /opt/other") == place
    second = build(path="/opt/other", requirements="markupsafe")
    assert second[1]["changed"]
    assert host.check_output("readlink -f /opt/other") != place
    assert not host.file(place).exists


def test_an_interrupted_build_is_done_again(host: Host) -> None:
    place = host.check_output("readlink -f /opt/reports")
    assert host.run("rm -r %s/.complete %s/lib/python3*/site-packages/markupsafe", place, place).rc == 0
    _ok, answer = build(path="/opt/reports", requirements=LOCK, group="games")
    assert answer["changed"]
    assert host.run("/opt/reports/bin/python -c 'import markupsafe'").rc == 0


def test_pip_builds_where_uv_is_missing(host: Host) -> None:
    assert host.run("mv %s %s.away", UV, UV).rc == 0
    try:
        good, answer = build(directory="/opt/all", requirements=LOCK)
    finally:
        host.run("mv %s.away %s", UV, UV)
    assert good
    assert answer["builder"] == "pip"
    assert host.run("%s/bin/python -c 'import markupsafe'", answer["path"]).rc == 0


def with_wrong_hashes(package: str) -> str:
    """Return the lock file with other hashes for one of its packages."""
    before, name, after = LOCK.partition(f"{package}==")
    block, *rest = re.split(r"\n(?=\w)", after, maxsplit=1)
    wrong = re.sub(r"sha256:\w{4}", "sha256:0000", block)
    assert wrong != block
    return "\n".join([before + name + wrong, *rest])


def test_what_cannot_be_installed_is_named(host: Host) -> None:
    good, answer = build(directory="/opt/all", requirements="itsdangerous==0.0.0.1")
    assert not good
    assert "itsdangerous==0.0.0.1" in answer["msg"]
    # One at a time: which of two is fetched first is chance. The second has more than a hundred hashes.
    for package in ("itsdangerous", "markupsafe"):
        good, answer = build(directory="/opt/all", requirements=with_wrong_hashes(package))
        assert not good
        assert f"{package}==" in answer["msg"]
        assert "Compile the lock again with hashes" in answer["msg"]
    half = LOCK + "blinker==1.9.0\n"
    good, answer = build(directory="/opt/all", requirements=half)
    assert not good
    assert "not for blinker==1.9.0" in answer["msg"]
    for name in host.check_output("ls /opt/all").split():
        assert host.file(f"/opt/all/{name}/.complete").exists
