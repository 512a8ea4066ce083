"""Environments: what decides their name, and builds that end, fail or are cut off."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.flaskworks.server.plugins.module_utils import environment as module
from ansible_collections.flaskworks.server.plugins.module_utils.environment import (
    EnvironmentFailure,
    Wanted,
    Wheel,
    build,
    content_hash,
    is_complete,
    uses_hashes,
)
from hypothesis import given
from hypothesis import strategies as st

IDENTITY = {
    "implementation": "cpython",
    "version": "3.13.5",
    "abi": "cpython-313",
    "platform": "linux-x86_64",
}
HASHED = "flask==3.1.3 \\\n    --hash=sha256:aa\nclick==8.1 --hash=sha256:bb\n"
WANTED = Wanted("/usr/bin/python3", "flask\n", server="gunicorn>=23")


class Tool:
    """Stands in for uv and pip: does what an argument list says to a directory."""

    def __init__(self, path: Path, brings: Sequence[str] = (), fails: str = "") -> None:
        self.path, self.brings, self.fails = path, brings, fails
        self.calls: list[list[str]] = []

    def __call__(self, argv: Sequence[str], **_options: object) -> subprocess.CompletedProcess[str]:
        self.calls.append(list(argv))
        if "venv" in argv:
            (self.path / "bin").mkdir(parents=True)
            (self.path / "bin" / "python").touch()
        for name in self.brings if "-r" in argv else ():
            (self.path / "lib/python3.13/site-packages" / f"{name}-1.0.dist-info").mkdir(parents=True)
        failed = bool(self.fails) and "install" in argv
        return subprocess.CompletedProcess(list(argv), int(failed), self.fails if failed else "")


@pytest.fixture(autouse=True)
def _no_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "UV_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "find_uv", lambda: None)


def test_hashes_are_required_when_all_have_them() -> None:
    assert uses_hashes(HASHED)
    assert not uses_hashes("flask\nclick>=8  # why\n")
    assert not uses_hashes("")
    with pytest.raises(EnvironmentFailure, match=r"the lock has hashes .* but not for click>=8"):
        uses_hashes(HASHED + "click>=8\n", "the lock")


@pytest.mark.parametrize(
    "changed",
    [
        replace(WANTED, requirements="flask>=3\n"),
        replace(WANTED, server="gunicorn[gevent]>=23"),
        replace(WANTED, interpreter="/opt/python"),
        replace(WANTED, wheels=(Wheel("x.whl", "aa"),)),
    ],
)
def test_whatever_decides_the_content_decides_the_name(changed: Wanted) -> None:
    assert content_hash(changed, IDENTITY) != content_hash(WANTED, IDENTITY)


def test_an_upgraded_interpreter_gives_another_name() -> None:
    assert content_hash(WANTED, {**IDENTITY, "version": "3.13.6"}) != content_hash(WANTED, IDENTITY)


@given(
    st.lists(st.sampled_from(["flask", "click>=8", "", "# note", "jinja2==3.1 \\\n  --hash=sha256:aa"])),
    st.booleans(),
)
def test_layout_and_comments_decide_nothing(lines: list[str], windows: bool) -> None:
    plain = "\n".join(lines)
    noisy = "\n\n".join(
        f"{line}   " if line.startswith("#") or "\\" in line else f"{line}  # x" for line in lines
    )
    noisy = noisy.replace("\n", "\r\n") if windows else noisy
    assert content_hash(replace(WANTED, requirements=noisy), IDENTITY) == content_hash(
        replace(WANTED, requirements=plain), IDENTITY
    )


def test_a_build_is_marked_and_not_repeated(tmp_path: Path) -> None:
    path = tmp_path / "all" / "abc"
    tool = Tool(path)
    assert build(str(path), WANTED, "abc", run=tool).changed
    assert is_complete(str(path))
    assert path.stat().st_mode & 0o777 == 0o750
    calls = len(tool.calls)
    assert not build(str(path), WANTED, "abc", run=tool).changed
    assert len(tool.calls) == calls


def test_an_interrupted_build_is_done_again(tmp_path: Path) -> None:
    path = tmp_path / "all" / "abc"
    (path / "bin").mkdir(parents=True)
    (path / "bin/python").touch()
    (path / "half").touch()
    assert not is_complete(str(path))
    assert build(str(path), WANTED, "abc", run=Tool(path)).changed
    assert not (path / "half").exists()


def test_a_failed_build_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "all" / "abc"
    with pytest.raises(EnvironmentFailure) as caught:
        build(
            str(path), WANTED, "abc", run=Tool(path, fails="ERROR: no matching distribution for flask==99\n")
        )
    assert "cannot install the requirements" in str(caught.value)
    assert "flask==99" in str(caught.value)
    assert not path.exists()


def test_the_server_is_installed_only_when_it_is_missing(tmp_path: Path) -> None:
    for number, (brings, server, wanted) in enumerate(
        [
            ([], "gunicorn>=23", True),
            (["gunicorn"], "gunicorn>=23", False),
            (["gunicorn"], "gunicorn[gevent]>=23", True),
            (["gunicorn", "gevent"], "gunicorn[gevent]>=23", False),
        ]
    ):
        path = tmp_path / "all" / str(number)
        tool = Tool(path, brings)
        build(str(path), replace(WANTED, server=server), "abc", run=tool)
        assert (server in tool.calls[-1]) == wanted


def test_hashes_and_uv_reach_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "all" / "abc"
    tool = Tool(path, ["gunicorn"])
    result = build(str(path), replace(WANTED, requirements=HASHED), "abc", run=tool, uv="/there/uv")
    assert result.builder == "uv"
    assert "--require-hashes" in tool.calls[-1]
    assert "--compile-bytecode" in tool.calls[-1]


def test_two_builds_of_the_same_do_not_collide(tmp_path: Path) -> None:
    path = tmp_path / "all" / "abc"
    tool = Tool(path)
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(build(str(path), WANTED, "abc", run=tool)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(result.changed for result in results) == [False, False, True]


def test_an_orphaned_tool_keeps_the_lock(tmp_path: Path) -> None:
    """A tool that outlives its module goes on writing: nobody may remove the directory meanwhile."""
    path = tmp_path / "all" / "abc"
    left: list[subprocess.Popen[bytes]] = []

    def leave(argv: Sequence[str], **options: object) -> subprocess.CompletedProcess[str]:
        left.append(subprocess.Popen(["sleep", "60"], pass_fds=options["pass_fds"]))  # type: ignore[call-overload]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(str(path), WANTED, "abc", run=leave)
    with pytest.raises(EnvironmentFailure, match="another build"):
        build(str(path), WANTED, "abc", run=Tool(path), lock_wait=0.2)
    left[0].kill()
    left[0].wait()
    assert build(str(path), WANTED, "abc", run=Tool(path), lock_wait=5).changed


def test_a_long_list_of_hashes_does_not_hide_what_failed() -> None:
    long = ["failed: markupsafe==3.0.4", "", *(f"sha256:{number}" for number in range(100)), "the end"]
    shown = module.excerpt("\n".join(long))
    assert shown[0] == "failed: markupsafe==3.0.4"
    assert shown[4:7] == ["sha256:3", "…", "sha256:91"]
    assert shown[-1] == "the end"
    assert len(shown) == 16
    assert module.excerpt("one\n\ntwo\n") == ["one", "two"]


def test_an_interpreter_that_is_not_there_is_named() -> None:
    with pytest.raises(EnvironmentFailure, match="/nowhere/python cannot be run"):
        module.identity("/nowhere/python")


def test_a_real_environment_from_nothing(tmp_path: Path) -> None:
    path = tmp_path / "all" / "abc"
    wanted = Wanted(os.path.realpath("/proc/self/exe"))
    assert build(str(path), wanted, "abc").builder == "pip"
    done = subprocess.run([path / "bin/python", "-c", "print(1)"], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
