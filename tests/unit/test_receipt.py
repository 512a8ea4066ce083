"""What an operator reads at the end of a deploy or of a roll back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.flaskworks.server.plugins.plugin_utils import receipt
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).parents[2]
A = "20261121T101500Z-aaaaaaaaaa"
B = "20261121T111500Z-bbbbbbbbbb"
A_ELSEWHERE = "20261121T101500Z-aaaaaaaa00"
B_ELSEWHERE = "20261121T111500Z-bbbbbbbb00"
COMMIT = "3fa9c1d2b4a6978812345678901234567890abcd"


def app(release: str | None, previous: str | None, serves: str | None, **more: Any) -> dict[str, Any]:
    told = {"release": release, "previous": previous, "serves": serves, "changed": True, "staged": False}
    return {**told, "seconds": {}, "revision": "", **more}


def staged(release: str | None = B, old: str | None = A, **more: Any) -> dict[str, Any]:
    seconds = {"build": 1.25, "gate": 0.8}
    return {"apps": {"hello": app(release, old, old, staged=True, seconds=seconds, revision=COMMIT, **more)}}


def activated(release: str = B, old: str | None = A, **more: Any) -> dict[str, Any]:
    seconds = {"build": 1.25, "gate": 0.8, "switch": 0.031}
    return {"apps": {"hello": app(release, old, release, seconds=seconds, revision=COMMIT, **more)}}


def idle(release: str = A, name: str = "hello") -> dict[str, Any]:
    return {"apps": {name: app(release, release, release, changed=False)}}


NOT_RUN = {"changed": False, "skipped": True}
LOST = {"unreachable": True, "changed": False, "msg": "no route to host"}


def show(results: dict[str, list[Any]], check: bool = False, **more: Any) -> list[str]:
    return receipt.lines(receipt.read(list(results), results, check), **more)


def test_a_deploy_on_two_hosts() -> None:
    lines = show(
        {
            "web1": [staged(), activated()],
            "web2.example.org": [staged(B_ELSEWHERE, A_ELSEWHERE), activated(B_ELSEWHERE, A_ELSEWHERE)],
        },
        inventory=["inventories/prod"],
    )
    assert lines == [
        "app    host              release                              revision     build    gate  switch",
        "hello  web1              20261121T101500Z → 20261121T111500Z  3fa9c1d2b4  1.25 s  0.80 s  0.03 s",
        "hello  web2.example.org  20261121T101500Z → 20261121T111500Z  3fa9c1d2b4  1.25 s  0.80 s  0.03 s",
        "To roll back: ansible-playbook flaskworks.server.rollback -i inventories/prod",
    ]


def test_a_first_release_cannot_be_rolled_back() -> None:
    assert show({"web1": [staged(old=None), activated(old=None)]}) == [
        "app    host  release               revision     build    gate  switch",
        "hello  web1  - → 20261121T111500Z  3fa9c1d2b4  1.25 s  0.80 s  0.03 s",
    ]


def test_a_call_that_stages_and_switches_at_once() -> None:
    assert show({"web1": [activated()]})[1:] == [
        "hello  web1  20261121T101500Z → 20261121T111500Z  3fa9c1d2b4  1.25 s  0.80 s  0.03 s",
        "To roll back: ansible-playbook flaskworks.server.rollback",
    ]


def test_nothing_to_do_is_one_line() -> None:
    assert show({"web1": [idle(), NOT_RUN]}) == [f"hello: nothing to do, {A} serves"]
    assert show({"web1": [idle()], "web2": [idle(A_ELSEWHERE)]}) == [
        "hello: nothing to do, 20261121T101500Z serves"
    ]
    assert show({"web1": [idle()], "web2": [idle(B)], "web3": [idle()]}) == [
        "hello: nothing to do, 20261121T101500Z serves on web1, web3; 20261121T111500Z serves on web2"
    ]


def test_only_what_changed_is_in_the_table() -> None:
    both = [
        {"apps": {**idle(A, "admin")["apps"], **staged()["apps"]}},
        activated(),
    ]
    assert show({"web1": both, "web2": [idle(B), NOT_RUN]}, limit="web*") == [
        "app    host  release                              revision     build    gate  switch",
        "hello  web1  20261121T101500Z → 20261121T111500Z  3fa9c1d2b4  1.25 s  0.80 s  0.03 s",
        "hello  web2  20261121T111500Z serves on           -                -       -       -",
        "To roll back: ansible-playbook flaskworks.server.rollback --limit 'web*' -e app=hello",
        f"admin: nothing to do, {A} serves",
    ]


def test_many_apps_share_one_command() -> None:
    apps = {f"app{number}": activated()["apps"]["hello"] for number in range(9)}
    lines = show({"web1": [{"apps": apps}]})
    assert lines[-1] == "To roll back: ansible-playbook flaskworks.server.rollback -e app=APP"
    assert len(lines) == 11


def test_check_mode_shows_what_would_be_released() -> None:
    """Nothing is named that does not exist yet; the second task returns what the first one did."""
    foreseen = staged(release=None)
    assert show({"web1": [foreseen, foreseen], "web2": [idle(), idle()]}, check=True) == [
        "What would be released (nothing was touched):",
        "app    host  release                     revision",
        "hello  web1  20261121T101500Z → new      3fa9c1d2b4",
        "hello  web2  20261121T101500Z serves on  -",
    ]
    assert show({"web1": [idle()]}, check=True) == [f"hello: nothing to do, {A} serves"]


def test_a_play_that_failed_after_a_host_switched() -> None:
    failed = {"failed": True, "msg": "…", "apps": {"hello": app(B, A, A, changed=False)}}
    lines = show({"web1": [staged(), activated()], "web2": [staged(), failed]}, failed=True)
    assert lines == [
        "app    host  release                              revision     build    gate  switch",
        "hello  web1  20261121T101500Z → 20261121T111500Z  3fa9c1d2b4  1.25 s  0.80 s  0.03 s",
        "hello  web2  20261121T101500Z serves on           3fa9c1d2b4       -       -       -",
        "To roll back: ansible-playbook flaskworks.server.rollback",
    ]


def test_a_play_that_failed_before_any_host_switched_says_it_elsewhere() -> None:
    failed = {"failed": True, "msg": "…", "apps": {"hello": app(None, None, A, changed=False)}}
    assert show({"web1": [staged()], "web2": [failed], "web3": [LOST], "web4": []}, failed=True) == []


def test_a_host_that_was_lost_while_it_switched() -> None:
    lines = show({"web1": [staged(), activated()], "web2": [staged(), LOST]}, failed=True)
    assert lines[2] == (
        "hello  web2  20261121T101500Z or 20261121T111500Z: not reached  3fa9c1d2b4  1.25 s  0.80 s       -"
    )


def test_hosts_that_switched_back() -> None:
    back = {"failed": True, "apps": {"hello": app(B, A, A)}}
    assert show({"web1": [staged(), activated(), back]}, failed=True) == [
        "app    host  release                                       revision     build    gate  switch",
        "hello  web1  20261121T101500Z, back from 20261121T111500Z  3fa9c1d2b4  1.25 s  0.80 s  0.03 s",
    ]


def test_a_roll_back_says_how_to_go_forward_again() -> None:
    told = {"apps": {"hello": app(A, B, A, seconds={"gate": 0.3, "switch": 0.02}, revision="1.0")}}
    assert show({"web1": [told]}, what="roll back") == [
        "app    host  release                              revision  build    gate  switch",
        "hello  web1  20261121T111500Z → 20261121T101500Z  1.0           -  0.30 s  0.02 s",
        "What was left is not deployed again unless the deploy is run with -e flask_redeploy=hello",
    ]


def test_revisions() -> None:
    assert receipt.revision(COMMIT) == "3fa9c1d2b4"
    assert receipt.revision(f"{COMMIT}-dirty") == "3fa9c1d2b4-dirty"
    assert receipt.revision("hello==1.2.3") == "hello==1.2.3"
    assert receipt.revision("") == "-"


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["apps", "hello", "release", "previous", "serves", "seconds", "build", "staged"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.lists(JUNK, max_size=3), st.booleans(), st.booleans())
def test_whatever_a_failed_play_has_registered_is_read(results: list[Any], check: bool, failed: bool) -> None:
    entries = receipt.read(["web1"], {"web1": results}, check)
    assert all(line.isprintable() for line in receipt.lines(entries, failed=failed))


PLAY = """
- name: Show a receipt
  hosts: all
  gather_facts: false
  serial: "{{ batch | default('100%') }}"
  tasks:
    - name: Register what a deploy would have
      ansible.builtin.set_fact:
        staged: "{{ results[inventory_hostname][0] }}"
        activated: "{{ results[inventory_hostname][1] }}"

    - name: Show what was released
      flaskworks.server.receipt:
        registered: [staged, activated]
"""


FAILING = """
- name: Fail on one host after the other has switched
  hosts: all
  gather_facts: false
  any_errors_fatal: true
  tasks:
    - name: Ship
      block:
        - name: Register what a deploy would have
          ansible.builtin.set_fact:
            __deploy_staged: "{{ results[inventory_hostname][0] }}"
            __deploy_activated: "{{ results[inventory_hostname][1] }}"

        - name: Fail
          ansible.builtin.fail:
            msg: the unit is gone
          when: inventory_hostname == 'web2'
      rescue:
        - name: Tell what became of the hosts
          ansible.builtin.import_role:
            name: flaskworks.server.deploy
            tasks_from: failure
          vars:
            deploy_releases: []
"""
BOTH = {
    "web1": [staged(), activated()],
    "web2": [staged(B_ELSEWHERE, A_ELSEWHERE), activated(B_ELSEWHERE, A_ELSEWHERE)],
}


def play(
    place: Path,
    *arguments: str,
    text: str = PLAY,
    results: dict[str, Any] = BOTH,
    code: int = 0,
    **environment: str,
) -> str:
    """Run a play on two hosts that do not exist; what the operator sees."""
    (place / "play.yml").write_text(text)
    (place / "hosts.yml").write_text("all: {hosts: {web1: , web2: }}\n")
    program = str(Path(sys.executable).parent / "ansible-playbook")
    done = subprocess.run(
        [program, "-i", "hosts.yml", "-e", json.dumps({"results": results}), "play.yml", *arguments],
        cwd=place,
        env={
            **os.environ,
            "ANSIBLE_HOME": str(ROOT / ".ansible"),
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"),
            "NO_COLOR": "1",
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


TABLE = """
app    host  release                              revision     build    gate  switch
hello  web1  20261121T101500Z → 20261121T111500Z  3fa9c1d2b4  1.25 s  0.80 s  0.03 s
hello  web2  20261121T101500Z → 20261121T111500Z  3fa9c1d2b4  1.25 s  0.80 s  0.03 s
To roll back: ansible-playbook flaskworks.server.rollback -i hosts.yml
"""


@pytest.mark.parametrize("shown", ["yaml", "json"])
def test_the_table_is_printed_once_in_every_format(tmp_path: Path, shown: str) -> None:
    output = play(tmp_path, ANSIBLE_CALLBACK_RESULT_FORMAT=shown)
    assert TABLE in output
    assert output.count("To roll back") == 1


def test_the_table_of_all_batches_comes_with_the_last_one(tmp_path: Path) -> None:
    output = play(tmp_path, "-e", "batch=1")
    assert TABLE in output
    assert output.count("To roll back") == 1


def test_output_for_programs_stays_what_it_is(tmp_path: Path) -> None:
    told = json.loads(play(tmp_path, ANSIBLE_STDOUT_CALLBACK="ansible.posix.json"))
    result = told["plays"][0]["tasks"][-1]["hosts"]["web1"]
    assert f"\n{result['msg']}\n" == TABLE
    assert [(one["host"], one["from"], one["to"], one["serves"]) for one in result["receipt"]] == [
        ("web1", A, B, B),
        ("web2", A_ELSEWHERE, B_ELSEWHERE, B_ELSEWHERE),
    ]


def test_a_failing_play_shows_the_table_above_the_failure(tmp_path: Path) -> None:
    failed = {"failed": True, "apps": {"hello": app(B_ELSEWHERE, A_ELSEWHERE, A_ELSEWHERE, changed=False)}}
    results = {"web1": [staged(), activated()], "web2": [staged(B_ELSEWHERE, A_ELSEWHERE), failed]}
    output = play(tmp_path, text=FAILING, results=results, code=2)
    rows = [line for line in output.splitlines() if line.startswith(("hello  web", "To roll back"))]
    assert rows == [
        "hello  web1  20261121T101500Z → 20261121T111500Z  3fa9c1d2b4  1.25 s  0.80 s  0.03 s",
        "hello  web2  20261121T101500Z serves on           3fa9c1d2b4       -       -       -",
        "To roll back: ansible-playbook flaskworks.server.rollback -i hosts.yml",
    ]
    assert output.index("To roll back") < output.index("What each host serves now")


def test_a_play_that_fails_before_any_host_switched_shows_no_table(tmp_path: Path) -> None:
    results = {"web1": [staged(), NOT_RUN], "web2": [staged(B_ELSEWHERE, A_ELSEWHERE), NOT_RUN]}
    output = play(tmp_path, text=FAILING, results=results, code=2)
    assert "No host has switched" in output
    assert "revision" not in output
