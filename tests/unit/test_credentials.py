"""Secrets as files of a release: who may read them from which moment on, and what depends on them."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.flaskworks.server.plugins.module_utils.release import hooks
from ansible_collections.flaskworks.server.plugins.module_utils.release.ports import Host
from ansible_collections.flaskworks.server.plugins.module_utils.transaction import Request, Rule, execute

from tests.unit.release_host import Bench
from tests.unit.test_transaction import ME, MINE

KEY = "canary-of-the-session-key-0123456789"
NO_HOOKS: dict[str, Any] = {"migrate": [], "before_activate": [], "after_activate": [], "timeout": 60}
MANAGED = "# Ansible managed\n# JSON below\n"


def with_files(bench: Bench, values: dict[str, Any] | None = None) -> Bench:
    """Switch an app to secrets as files."""
    path = bench.root / "etc" / "hello" / "credentials"
    path.write_text(MANAGED + json.dumps({"SECRET_KEY": KEY} if values is None else values))
    bench.settings["credentials_file"] = str(path)
    return bench


def without_files(bench: Bench) -> Bench:
    """Switch an app to secrets as variables."""
    bench.settings["credentials_file"] = None
    return bench


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, hooks={**NO_HOOKS, "migrate": ["upgrade"]})


def place(bench: Bench) -> Path:
    return bench.root / "srv" / "hello" / "releases" / str(bench.pointer("current"))


def test_each_secret_is_a_file_that_root_alone_may_read(bench: Bench) -> None:
    with_files(bench, {"SECRET_KEY": KEY, "PEM": "a\nb\n", "SECRET_KEY_FALLBACKS": ["x", "y"]})
    assert bench.deploy()["hello"].failure is None
    root = place(bench)
    assert stat.S_IMODE((root / "credentials").stat().st_mode) == 0o700
    found = {
        path.name: (stat.S_IMODE(path.stat().st_mode), path.read_text())
        for path in (root / "credentials").iterdir()
    }
    assert found == {
        "SECRET_KEY": (0o600, KEY),
        "PEM": (0o600, "a\nb\n"),
        "SECRET_KEY_FALLBACKS": (0o600, '["x", "y"]'),
    }
    given = f"/run/credentials/flask-hello@{root.name}.service"
    assert (root / "credentials.environment").read_text().splitlines() == [
        f"PEM_FILE={given}/secret_PEM",
        f"SECRET_KEY_FILE={given}/secret_SECRET_KEY",
        f"SECRET_KEY_FALLBACKS_FILE={given}/secret_SECRET_KEY_FALLBACKS",
    ]
    assert KEY not in (root / "environment").read_text() + (root / "release.json").read_text()


@pytest.fixture
def births(monkeypatch: pytest.MonkeyPatch) -> dict[int, int]:
    """The mode that each file has in the moment in which os.open returns, by its inode."""
    modes: dict[int, int] = {}
    real: Callable[..., int] = os.open

    def opened(path: Any, flags: int, *rest: Any, **options: Any) -> int:
        handle = real(path, flags, *rest, **options)
        if flags & os.O_CREAT:
            found = os.fstat(handle)
            modes[found.st_ino] = stat.S_IMODE(found.st_mode) if found.st_size == 0 else -1
        return handle

    monkeypatch.setattr(os, "open", opened)
    return modes


def holders(root: Path) -> dict[str, int]:
    """The files that hold the secret, with their inodes."""
    return {
        str(path.relative_to(root)): path.stat().st_ino
        for path in root.rglob("*")
        if path.is_file() and KEY in path.read_text(errors="replace")
    }


@pytest.mark.parametrize("way", ["credentials", "environment"])
def test_a_release_never_holds_a_secret_that_others_may_read(
    bench: Bench, births: dict[int, int], way: str
) -> None:
    earlier = os.umask(0)
    try:
        if way == "credentials":
            with_files(bench)
        else:
            bench.set_variables("hello", f'SECRET_KEY="{KEY}"\n')
        assert bench.deploy()["hello"].failure is None
    finally:
        os.umask(earlier)
    found = holders(place(bench))
    assert list(found) == ["credentials/SECRET_KEY" if way == "credentials" else "environment"]
    assert [births[inode] for inode in found.values()] == [0o600]


def test_provisioning_never_writes_a_secret_that_others_may_read(
    tmp_path: Path, births: dict[int, int]
) -> None:
    rule = Rule(path=f"{tmp_path}/{{name}}", owner=ME, group=MINE, mode=0o600, sensitive=True)
    request = Request([{"name": "hello"}], [rule], [KEY], state_directory=str(tmp_path / "state"))
    earlier = os.umask(0)
    try:
        assert execute(request).changed
    finally:
        os.umask(earlier)
    assert [(name, births[inode]) for name, inode in holders(tmp_path).items()] == [("hello", 0o600)]


def test_a_changed_secret_is_a_new_release_and_its_digest_needs_the_key_of_the_host(bench: Bench) -> None:
    with_files(bench).deploy()
    first = place(bench)
    assert not bench.stage()["hello"].changed
    with_files(bench, {"SECRET_KEY": KEY + "2"}).deploy()
    assert place(bench) != first
    digests = [json.loads((one / "release.json").read_text())["parts"] for one in (first, place(bench))]
    assert digests[0]["credentials"] != digests[1]["credentials"]
    assert {**digests[0], "credentials": ""} == {**digests[1], "credentials": ""}
    (bench.root / "etc" / ".digest-key").write_text("another host")
    assert bench.stage()["hello"].changed


def test_the_way_changes_in_both_directions_and_back(bench: Bench) -> None:
    first = bench.deploy()["hello"].release
    second = with_files(bench).deploy()["hello"].release
    third = without_files(bench).deploy()["hello"].release
    assert (first == third, first == second) == (True, False)  # the same again is the same release
    assert not (place(bench) / "credentials").exists()
    assert bench.roll_back(str(second))["hello"].failure is None
    assert bench.pointer("current") == second
    assert bench.roll_back(str(first))["hello"].failure is None
    assert bench.pointer("current") == first


def test_a_release_without_its_secrets_is_refused_in_words(bench: Bench) -> None:
    first = bench.deploy()["hello"].release
    with_files(bench)
    bench.host.blind = True
    failure = str(bench.deploy()["hello"].failure)
    assert failure.startswith(
        "hello: systemd has not given SECRET_KEY to its service, although the unit says so "
        "(LoadCredential=); where the host cannot do that, set secrets_via: environment"
    )
    assert KEY not in failure
    assert bench.pointer("current") == first
    assert bench.releases() == [first]


def test_what_provisioning_has_not_written_is_named(bench: Bench) -> None:
    with_files(bench)
    (bench.root / "etc" / "hello" / "credentials").unlink()
    assert f"{bench.root}/etc/hello/credentials is not there; provision the host first" in str(
        bench.deploy()["hello"].failure
    )


def test_a_hook_finds_the_secrets_where_systemd_puts_them_for_it(bench: Bench) -> None:
    with_files(bench)
    staged = bench.stage()
    name = str(staged["hello"].release)
    releases = f"{bench.root}/srv/hello/releases"
    bench.host.service = (
        "[Service]\n"
        f"EnvironmentFile={releases}/%i/environment\n"
        f"EnvironmentFile=-{releases}/%i/credentials.environment\n"
        f"LoadCredential=secret:{releases}/%i/credentials\n"
        "SetCredential=secret:none\n"
    )
    hooks.run(bench.job(), "migrate", [bench.release("hello")], {"hello": name})
    [text] = bench.host.hooks.values()
    settings = text.partition("[Service]\n")[2].partition("Type=")[0]
    assert settings.splitlines() == [
        f"EnvironmentFile={releases}/{name}/environment",
        f"LoadCredential=secret:{releases}/{name}/credentials",
        "SetCredential=secret:none",
        "Environment=SECRET_KEY_FILE=%d/secret_SECRET_KEY",
    ]


def test_what_a_process_does_not_see_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("x")
    assert Host().seen(os.getpid(), str(tmp_path / "there")) == b"x"
    assert Host().seen(os.getpid(), str(tmp_path / "not-there")) is None
