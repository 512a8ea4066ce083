"""What is published: the collection as it is built from a clone in which somebody works."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

LEFT_IN_THE_CLONE = (
    ".bed/logs/environment.log",
    ".demo/secret_key",
    ".env",
    ".venv/bin/python",
    ".vault-password",
    "benchmarks/__pycache__/apps.cpython-313.pyc",
    "examples/notes/.env",
    "examples/notes/instance/notes.sqlite",
    "inventories/demo/.tls/ca.key",
    "inventories/demo/group_vars/all/ports.yml",
    "inventories/prod/.tls/.gitignore",
    "inventories/prod/.tls/ca.key",
    "inventories/prod/.tls/ca.pem",
    "inventories/prod/files/privkey.pem",
    "inventories/prod/group_vars/flask/secrets.vault",
    "inventories/prod/group_vars/flask/secrets.yml",
    "inventories/prod/vault-password",
    "inventories/staging/group_vars/flask/vault.yml",
    "roles/nginx/templates/site.conf.j2~",
    "sample_app/.mypy_cache/CACHEDIR.TAG",
    "sample_app/.venv/bin/activate",
    "sample_app/hello.db",
    "sample_app/instance/hello.db",
    "sample_app/src/hello.egg-info/PKG-INFO",
    "sample_app/src/hello/__pycache__/pages.cpython-313.pyc",
)


@pytest.fixture(scope="module")
def tracked() -> set[str]:
    """Return the files of the clone that Git knows."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return {name for name in done.stdout.split("\0") if name and (ROOT / name).exists()}


@pytest.fixture(scope="module")
def published(tracked: set[str], tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Return the files of the collection that is built in a copy where LEFT_IN_THE_CLONE lie about."""
    clone = tmp_path_factory.mktemp("clone")
    for name in (*tracked, *LEFT_IN_THE_CLONE):
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        if name in tracked:
            shutil.copy(ROOT / name, clone / name, follow_symlinks=False)
        else:
            (clone / name).write_text("of no concern to others\n")
    output = tmp_path_factory.mktemp("output")
    program = Path(sys.executable).parent / "ansible-galaxy"
    done = subprocess.run(
        [program, "collection", "build", "--output-path", output],
        cwd=clone,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    with tarfile.open(next(output.glob("flaskworks-server-*.tar.gz"))) as archive:
        return {member.name for member in archive.getmembers() if not member.isdir()}


def test_nothing_is_published_that_git_does_not_know(published: set[str], tracked: set[str]) -> None:
    assert published - tracked == {"MANIFEST.json", "FILES.json"}


def test_what_users_need_is_published(published: set[str], tracked: set[str]) -> None:
    needed = ("plugins/", "roles/", "playbooks/", "docs/", "meta/", "examples/", "sample_app/")
    assert {name for name in tracked if name.startswith(needed)} <= published
    assert {"site.yml", "README.md", "LICENSE", "inventories/prod/group_vars/flask/apps.yml"} <= published


def test_what_needs_the_clone_is_not_published(published: set[str]) -> None:
    assert {name.split("/")[0] for name in published} == {
        *("CHANGELOG.md", "CONTRIBUTING.md", "FILES.json", "LICENSE", "MANIFEST.json", "README.md"),
        *("ansible.cfg", "benchmarks", "changelogs", "docs", "examples", "inventories", "meta"),
        *("playbooks", "plugins", "roles", "sample_app", "site.yml"),
    }
    figures = ("benchmarks/README.md", "benchmarks/results/")
    assert [
        name for name in published if name.startswith("benchmarks/") and not name.startswith(figures)
    ] == []
