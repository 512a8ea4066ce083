"""Sources on the controller: what is shipped is what git would commit."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.flaskworks.server.plugins.module_utils.release.building import unpack
from ansible_collections.flaskworks.server.plugins.module_utils.tree import digest, walk
from ansible_collections.flaskworks.server.plugins.plugin_utils.sources import git as git_module
from ansible_collections.flaskworks.server.plugins.plugin_utils.sources.base import (
    Entry,
    Source,
    SourceFailure,
)
from ansible_collections.flaskworks.server.plugins.plugin_utils.sources.directory import _entry
from ansible_collections.flaskworks.server.plugins.plugin_utils.sources.gathering import gather
from ansible_collections.flaskworks.server.plugins.plugin_utils.sources.git_command import GIT_LOCAL
from ansible_collections.flaskworks.server.plugins.plugin_utils.sources.trees import make_files

HASHED = "flask==3.1.3 \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n"


@pytest.fixture(autouse=True)
def _own_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    (tmp_path / "gitconfig").write_text(
        "[user]\n  name = me\n  email = me@example.org\n[init]\n  defaultBranch = main\n"
    )


@pytest.fixture
def app(tmp_path: Path) -> Path:
    root = tmp_path / "app"
    for path, text in {
        "src/hello/__init__.py": "app = None\n",
        "src/hello/static/style.css": "body {}\n",
        "requirements.txt": "flask\n",
        ".gitignore": "*.log\n/instance/\n",
        "debug.log": "noise\n",
        "instance/db.sqlite": "data\n",
        "src/hello/__pycache__/x.cpython-313.pyc": "bytecode",
    }.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


def git(where: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=where, check=True, capture_output=True, text=True
    ).stdout.strip()


def commit(root: Path) -> str:
    if not (root / ".git").exists():
        git(root, "init", "-q")
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "change")
    return git(root, "rev-parse", "HEAD")


def read(where: dict[str, Any] | Path, tmp_path: Path, **changes: Any) -> Source:
    release = {
        "name": "hello",
        "source": where if isinstance(where, dict) else {"path": str(where), "git": None, "subdirectory": ""},
        "wsgi": "hello:app",
        "static": [{"url": "/static/", "path": "src/hello/static"}],
        "environment": {"lock": None},
    }
    cache = tmp_path / "cache"
    cache.mkdir(exist_ok=True)
    return gather({**release, **changes}, cache)


def shipped(source: Source) -> list[str]:
    return [entry.path for entry in source.entries]


WANTED = [".gitignore", "requirements.txt", "src/hello/__init__.py", "src/hello/static/style.css"]


def test_a_directory_without_git_honours_gitignore(app: Path, tmp_path: Path) -> None:
    source = read(app, tmp_path)
    assert shipped(source) == WANTED
    assert source.revision == ""
    assert source.pythonpath == "src"


def test_a_work_tree_gives_the_same_source_and_its_revision(app: Path, tmp_path: Path) -> None:
    before = read(app, tmp_path)
    revision = commit(app)
    source = read(app, tmp_path)
    assert shipped(source) == WANTED
    assert source.digest == before.digest
    assert source.revision == revision
    (app / "src/hello/new.py").write_text("")
    assert read(app, tmp_path).revision == f"{revision}-dirty"
    assert "src/hello/new.py" in shipped(read(app, tmp_path))


def test_a_subdirectory_of_a_work_tree(app: Path, tmp_path: Path) -> None:
    outer = tmp_path / "outer"
    outer.mkdir()
    app.rename(outer / "app")
    (outer / ".gitignore").write_text("*.css\n")
    (outer / "app/src/hello/static/other.txt").write_text("x")
    commit(outer)
    where = {"path": str(outer), "git": None, "subdirectory": "app"}
    assert "src/hello/static/style.css" not in shipped(read(where, tmp_path))


def test_a_directory_that_the_work_tree_ignores_is_a_source_of_its_own(app: Path, tmp_path: Path) -> None:
    outer = tmp_path / "outer"
    outer.mkdir()
    app.rename(outer / "build")
    (outer / ".gitignore").write_text("/build/\n")
    commit(outer)
    assert shipped(read(outer / "build", tmp_path)) == WANTED


def test_the_digest_is_of_content_and_executability(app: Path, tmp_path: Path) -> None:
    first = read(app, tmp_path).digest
    os.utime(app / "requirements.txt", (0, 0))
    (app / "requirements.txt").chmod(0o600)
    assert read(app, tmp_path).digest == first
    (app / "requirements.txt").chmod(0o755)
    second = read(app, tmp_path).digest
    assert second != first
    (app / "src/hello/__init__.py").write_text("app = 1\n")
    assert read(app, tmp_path).digest != second


def test_bundles_depend_on_content_alone_and_arrive_whole(app: Path, tmp_path: Path) -> None:
    (app / "src/hello/run.sh").write_text("#!/bin/sh\n")
    (app / "src/hello/run.sh").chmod(0o755)
    (app / "src/hello/link.py").symlink_to("__init__.py")
    source = read(app, tmp_path)
    bundle = source.bundle(tmp_path / "cache")
    content = bundle.read_bytes()
    bundle.unlink()
    os.utime(app / "requirements.txt", (1, 1))
    assert read(app, tmp_path).bundle(tmp_path / "cache").read_bytes() == content
    with tarfile.open(bundle) as tar:
        assert {member.uid for member in tar} == {0}
    unpack(str(bundle), str(tmp_path / "there"))
    assert digest(walk(str(tmp_path / "there"))) == source.digest


def test_a_commit_of_a_repository(app: Path, tmp_path: Path) -> None:
    plain = read(app, tmp_path)
    first = commit(app)
    git(app, "tag", "v1")
    git(app, "checkout", "-q", "-b", "next/branch")
    (app / "src/hello/__init__.py").write_text("app = 2\n")
    second = commit(app)

    def at(version: str | None) -> Source:
        shutil.rmtree(tmp_path / "cache/answers", ignore_errors=True)  # as another run of the controller
        return read({"path": None, "git": str(app), "version": version, "subdirectory": ""}, tmp_path)

    assert at("v1").revision == at(first).revision == at("main").revision == first
    assert at("v1").digest == plain.digest
    assert at("next/branch").revision == second
    assert at(None).revision == second
    (app / "src/hello/__init__.py").write_text("app = 3\n")
    third = commit(app)
    assert at("next/branch").revision == third
    with pytest.raises(SourceFailure, match=r"hello: .* has no branch, tag or commit 'v9'"):
        at("v9")


def test_one_run_fetches_once(app: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit(app)
    fetches: list[str] = []
    original = git_module._fetch

    def counted(store: Path, url: str) -> str:
        fetches.append(url)
        return original(store, url)

    monkeypatch.setattr(git_module, "_fetch", counted)
    where = {"path": None, "git": str(app), "version": "main", "subdirectory": ""}
    assert read(where, tmp_path).digest == read(where, tmp_path).digest
    assert len(fetches) == 1


def test_a_repository_that_cannot_be_read(tmp_path: Path) -> None:
    where = {"path": None, "git": str(tmp_path / "nowhere"), "version": None, "subdirectory": ""}
    with pytest.raises(SourceFailure, match=r"hello: cannot fetch .*nowhere on the controller"):
        read(where, tmp_path)


def test_a_token_in_the_address_is_not_shown(tmp_path: Path) -> None:
    where = {
        "git": "https://me:s3cret@127.0.0.1:1/app.git",
        "path": None,
        "version": None,
        "subdirectory": "",
    }
    with pytest.raises(SourceFailure, match=r"cannot fetch https://127\.0\.0\.1:1/app\.git on") as caught:
        read(where, tmp_path)
    assert "s3cret" not in str(caught.value)


def test_a_wheel(tmp_path: Path) -> None:
    wheel = tmp_path / "hello-1.2-py3-none-any.whl"
    wheel.write_bytes(b"wheel")
    source = read(wheel, tmp_path)
    assert (source.kind, source.pythonpath, source.revision) == ("wheel", None, "hello-1.2")
    unpack(str(source.bundle(tmp_path / "cache")), str(tmp_path / "there"))
    assert (tmp_path / "there" / wheel.name).read_bytes() == b"wheel"


def test_the_lock_is_found_in_order(app: Path, tmp_path: Path) -> None:
    (app / "pyproject.toml").write_text('[project]\nname = "hello"\ndependencies = ["flask>=3", "click"]\n')
    assert read(app, tmp_path).origin == "requirements.txt"
    (app / "requirements.lock").write_text(HASHED)
    assert read(app, tmp_path).origin == "requirements.lock"
    assert read(app, tmp_path, environment={"lock": "pyproject.toml"}).requirements == "flask>=3\nclick\n"
    for name in ("requirements.lock", "requirements.txt", "pyproject.toml"):
        (app / name).unlink()
    with pytest.raises(SourceFailure, match=r"has none of requirements\.lock"):
        read(app, tmp_path)


def test_included_requirements_are_put_in_their_place(app: Path, tmp_path: Path) -> None:
    (app / "requirements").mkdir()
    (app / "requirements/base.txt").write_text("flask  # the framework\n")
    (app / "requirements.txt").write_text("-r requirements/base.txt\nclick\n")
    assert read(app, tmp_path).requirements == "flask\nclick\n"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("-e .", "editable"),
        ("./vendor/thing", "installs from a directory"),
        ("-c constraints.txt", "constraints"),
        ("-r missing.txt", "includes missing.txt, which is not in the source"),
        ("-r requirements.txt", "includes itself"),
        (HASHED + "click", "hashes for some requirements but not for click"),
    ],
)
def test_requirements_that_cannot_be_honoured_are_refused(
    app: Path, tmp_path: Path, line: str, told: str
) -> None:
    (app / "requirements.txt").write_text(line + "\n")
    with pytest.raises(SourceFailure, match=f"hello: .*{told}"):
        read(app, tmp_path)


def test_links_that_leave_the_source_are_refused(app: Path, tmp_path: Path) -> None:
    (app / "src/inside").symlink_to("hello")
    assert "src/inside" in shipped(read(app, tmp_path))
    (app / "src/outside").symlink_to("../../secret")
    with pytest.raises(
        SourceFailure, match=r"the link src/outside points to \.\./\.\./secret, outside the source"
    ):
        read(app, tmp_path)


def test_repositories_within_a_source_are_refused(app: Path, tmp_path: Path) -> None:
    (app / "vendor").mkdir()
    (app / "vendor/file").write_text("x")
    commit(app / "vendor")
    with pytest.raises(SourceFailure, match="vendor is a git repository of its own"):
        read(app, tmp_path)


def test_modules_and_static_files_are_looked_for(app: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceFailure, match=r"the module 'hallo' of wsgi 'hallo:app' is neither"):
        read(app, tmp_path, wsgi="hallo:app")
    with pytest.raises(SourceFailure, match="static path src/static is not in the source"):
        read(app, tmp_path, static=[{"url": "/static/", "path": "src/static"}])
    (app / "flat.py").write_text("")
    assert read(app, tmp_path, wsgi="flat:app").pythonpath == "."


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        SourceFailure, match=r"hello: source\.path .*nothing does not exist on the controller"
    ):
        read(tmp_path / "nothing", tmp_path)


def test_git_is_asked_for_when_it_is_missing(
    app: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SourceFailure, match="install git"):
        read(app, tmp_path)


def test_bundles_in_use_are_kept_however_many_there_are(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    sources = [
        Source(f"{number:064x}", "", "wheel", None, "", "hello.whl", "hello.whl", ()) for number in range(26)
    ]
    forgotten = sources.pop().bundle(cache)
    os.utime(forgotten, (0, 0))
    bundles = [source.bundle(cache) for source in sources]
    assert all(bundle.exists() for bundle in bundles)
    assert not forgotten.exists()
    os.utime(bundles[0], (0, 0))
    assert sources[0].bundle(cache).stat().st_mtime > 0


def test_links_have_one_spelling_from_the_source_to_the_disk(app: Path, tmp_path: Path) -> None:
    (app / "src/hello/static/same.css").symlink_to("./style.css")
    (app / "src/hello/static/up.css").symlink_to("..//static/./style.css")
    source = read(app, tmp_path)
    commit(app)
    where = {"path": None, "git": str(app), "version": "main", "subdirectory": ""}
    assert read(where, tmp_path).digest == source.digest
    unpack(str(source.bundle(tmp_path / "cache")), str(tmp_path / "there"))
    assert digest(walk(str(tmp_path / "there"))) == source.digest
    assert (tmp_path / "there/src/hello/static/same.css").read_text() == "body {}\n"
    (tmp_path / "there/src/hello/static/same.css").unlink()
    (tmp_path / "there/src/hello/static/same.css").symlink_to("./style.css")
    assert digest(walk(str(tmp_path / "there"))) == source.digest


def test_links_that_leave_the_source_through_others_are_refused(app: Path, tmp_path: Path) -> None:
    (app / "a/b/c").mkdir(parents=True)
    (app / "a/b/c/up").symlink_to("../../..")
    (app / "src/hello/static/leak").symlink_to("../../../a/b/c/up/../../etc/hostname")
    with pytest.raises(SourceFailure, match=r"the link src/hello/static/leak points to .*outside the source"):
        make_files([*_entry(app, "a/b/c/up"), *_raw(app, "src/hello/static/leak")], "")


def _raw(root: Path, name: str) -> list[Entry]:
    return [Entry(name, target=os.readlink(root / name))]


@pytest.mark.parametrize("target", ["gone.css", "loop.css"])
def test_static_links_to_nothing_are_named(app: Path, tmp_path: Path, target: str) -> None:
    (app / "src/dangling").symlink_to("gone")
    read(app, tmp_path)
    (app / "src/hello/static/loop.css").symlink_to(target)
    with pytest.raises(SourceFailure, match=r"the static link src/hello/static/loop\.css points to"):
        read(app, tmp_path)


def test_a_clone_of_another_user_is_read_as_git_sees_it(
    app: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(app, "init", "-q")
    git(app, "add", "-f", "debug.log")
    revision = commit(app)
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    source = read(app, tmp_path)
    assert "debug.log" in shipped(source)
    assert source.revision == revision


def test_a_work_tree_that_git_refuses_is_no_plain_directory(app: Path, tmp_path: Path) -> None:
    (app / ".git").write_text(f"gitdir: {tmp_path}/gone\n")
    with pytest.raises(SourceFailure, match=r"hello: git does not read .*app: .*not a git repository"):
        read(app, tmp_path)


def test_the_repository_of_a_hook_is_not_the_one_that_is_read(
    app: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    revision = commit(app)
    for name in ("GIT_INDEX_FILE", "GIT_WORK_TREE", "GIT_OBJECT_DIRECTORY", "GIT_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "elsewhere"))
    source = read(app, tmp_path)
    assert (shipped(source), source.revision) == (WANTED, revision)
    named = subprocess.run(
        ["git", "rev-parse", "--local-env-vars"], capture_output=True, text=True, check=True
    )
    assert set(named.stdout.split()) - GIT_LOCAL == {"GIT_CONFIG_COUNT"}
