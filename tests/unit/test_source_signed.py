"""Signed tags and commits, with real keys of both kinds, and a repository behind an SSH agent."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.flaskworks.server.plugins.plugin_utils.sources.base import Source, SourceFailure
from ansible_collections.flaskworks.server.plugins.plugin_utils.sources.gathering import gather

FILES = {"hello.py": "app = None\n", "requirements.txt": "flask\n"}


@dataclass
class Signer:
    """Somebody with a key: ``public`` is the file that others get, ``options`` make git sign with it."""

    public: Path
    options: list[str]


def run(*command: str | Path, where: Path | None = None, **variables: str) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        cwd=where,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(autouse=True)
def _own_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    (tmp_path / "gitconfig").write_text(
        "[user]\n  name = me\n  email = me@example.org\n[init]\n  defaultBranch = main\n"
    )


def ssh_signer(folder: Path, name: str) -> Signer:
    key = folder / name
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", key)
    public = key.with_suffix(".pub")
    return Signer(public, ["-c", "gpg.format=ssh", "-c", f"user.signingKey={public}"])


@pytest.fixture
def gpg_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    # Below /tmp itself: the path of the agent's socket has to be short.
    home = Path(run("mktemp", "-d", "/tmp/signed-XXXXXX"))
    yield home
    subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False, capture_output=True)
    shutil.rmtree(home, ignore_errors=True)


def gpg_signer(home: Path, folder: Path, name: str, expires: str = "never", at: str = "") -> Signer:
    mail = f"{name}@example.org"
    gpg = ["gpg", "--homedir", str(home), "--batch", "--quiet"]
    gpg += ["--faked-system-time", at] if at else []
    run(*gpg, "--passphrase", "", "--quick-generate-key", mail, "ed25519", "sign", expires)
    public = folder / f"{name}.asc"
    run(*gpg, "--armor", "--output", public, "--export", mail)
    program = folder / f"gpg-{name}"
    program.write_text(f'#!/bin/sh\nexec {" ".join(gpg)} "$@"\n')
    program.chmod(0o755)
    return Signer(
        public, ["-c", "gpg.format=openpgp", "-c", f"gpg.program={program}", "-c", f"user.signingKey={mail}"]
    )


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "app"
    root.mkdir()
    for path, text in FILES.items():
        (root / path).write_text(text)
    run("git", "init", "-q", where=root)
    run("git", "add", "-A", where=root)
    run("git", "commit", "-q", "-m", "first", where=root)
    return root


def git(root: Path, *arguments: str, signer: Signer | None = None) -> str:
    return run("git", *(signer.options if signer else []), *arguments, where=root)


def read(root: Path | str, tmp_path: Path, version: str | None, verify: Path | None) -> Source:
    shutil.rmtree(tmp_path / "cache/answers", ignore_errors=True)  # as another run of the controller
    release: dict[str, Any] = {
        "name": "hello",
        "source": {"git": str(root), "version": version, "verify": verify and str(verify)},
        "wsgi": "hello:app",
        "static": [],
        "environment": {"lock": None},
    }
    (tmp_path / "cache").mkdir(exist_ok=True)
    return gather(release, tmp_path / "cache")


Make = Callable[[str], Signer]


@pytest.fixture(params=["ssh", "openpgp"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    if request.param == "ssh":
        return lambda name: ssh_signer(tmp_path, name)
    home = request.getfixturevalue("gpg_home")
    return lambda name: gpg_signer(home, tmp_path, name)


def test_a_signature_by_a_listed_key_is_demanded(repository: Path, tmp_path: Path, make: Make) -> None:
    known, strange = make("known"), make("strange")
    git(repository, "commit", "-q", "--allow-empty", "-S", "-m", "signed", signer=known)
    signed = git(repository, "rev-parse", "HEAD")
    git(repository, "tag", "-s", "v1", "-m", "one", signer=known)
    git(repository, "tag", "light")
    git(repository, "tag", "-a", "noted", "-m", "unsigned tag of a signed commit")
    for version in ("main", "v1", "light", "noted", signed, None):
        assert read(repository, tmp_path, version, known.public).revision == signed
        with pytest.raises(SourceFailure, match=r"hello: (tag|commit) \S+ is not signed by a key of source"):
            read(repository, tmp_path, version, strange.public)

    git(repository, "commit", "-q", "--allow-empty", "-m", "unsigned")
    git(repository, "tag", "-s", "v2", "-m", "two", signer=known)
    git(repository, "tag", "-s", "v3", "-m", "three", signer=strange)
    unsigned = git(repository, "rev-parse", "HEAD")
    assert read(repository, tmp_path, "v2", known.public).revision == unsigned
    for version, subject in (("main", "commit"), (unsigned, "commit"), ("v3", "tag v3")):
        with pytest.raises(SourceFailure, match=f"hello: {subject} .*not signed by a key of source.verify"):
            read(repository, tmp_path, version, known.public)

    # An old signature under a new name, which whoever holds the server could make of it.
    git(repository, "update-ref", "refs/tags/v9", git(repository, "rev-parse", "refs/tags/v1"))
    with pytest.raises(SourceFailure, match="tag v9 was signed as 'v1'; somebody has renamed it"):
        read(repository, tmp_path, "v9", known.public)


def test_what_the_controller_trusts_otherwise_does_not_count(
    repository: Path, tmp_path: Path, gpg_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ssh, pgp = ssh_signer(tmp_path, "ssh"), gpg_signer(gpg_home, tmp_path, "pgp")
    (tmp_path / "trusted").write_text(f'me@example.org namespaces="git" {ssh.public.read_text()}')
    git(repository, "config", "--global", "gpg.ssh.allowedSignersFile", str(tmp_path / "trusted"))
    monkeypatch.setenv("GNUPGHOME", str(gpg_home))
    for signer, other in ((ssh, pgp), (pgp, ssh)):
        git(repository, "commit", "-q", "--allow-empty", "-S", "-m", "signed", signer=signer)
        with pytest.raises(SourceFailure, match=r"is not signed by a key of source\.verify"):
            read(repository, tmp_path, "main", other.public)
        assert read(repository, tmp_path, "main", signer.public)


def test_an_expired_key_does_not_count(repository: Path, tmp_path: Path, gpg_home: Path) -> None:
    old = gpg_signer(gpg_home, tmp_path, "old", "1y", "20200101T000000")
    git(repository, "commit", "-q", "--allow-empty", "-S", "-m", "signed", signer=old)
    with pytest.raises(SourceFailure, match=r"is not signed by a key of source\.verify"):
        read(repository, tmp_path, "main", old.public)


def test_several_signers_may_be_listed(repository: Path, tmp_path: Path) -> None:
    one, two = ssh_signer(tmp_path, "one"), ssh_signer(tmp_path, "two")
    listed = tmp_path / "allowed_signers"
    listed.write_text(
        f"# who may release\none@example.org {one.public.read_text()}\n"
        f'two@example.org namespaces="git" {two.public.read_text()}'
    )
    for signer in (one, two):
        git(repository, "commit", "-q", "--allow-empty", "-S", "-m", "signed", signer=signer)
        assert read(repository, tmp_path, "main", listed)
    listed.write_text(f'two@example.org namespaces="file" {two.public.read_text()}')
    with pytest.raises(SourceFailure, match="is not signed by a key"):
        read(repository, tmp_path, "main", listed)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, r"source\.verify .*keys cannot be read on the controller: No such file"),
        ("", r"source\.verify .*keys holds no public key"),
        ("hello\n", r"source\.verify .*keys holds no public key"),
        (
            "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nxxx\n",
            r"source\.verify .*keys holds keys that gpg cannot",
        ),
    ],
)
def test_a_file_without_keys_is_refused(
    repository: Path, tmp_path: Path, content: str | None, told: str
) -> None:
    if content is not None:
        (tmp_path / "keys").write_text(content)
    with pytest.raises(SourceFailure, match=f"hello: {told}"):
        read(repository, tmp_path, "main", tmp_path / "keys")


def test_a_private_repository_is_read_with_the_agent_of_the_controller(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client of SSH that lets in only who has the key in the agent, and then serves as sshd would."""
    key = ssh_signer(tmp_path, "deploy").public.with_suffix("")
    client = tmp_path / "ssh"
    client.write_text(
        "#!/bin/sh\n"
        f'echo "$@" >> {tmp_path}/asked\n'
        f"ssh-add -L | grep -q ' deploy$' || {{ echo 'Permission denied (publickey).' >&2; exit 255; }}\n"
        'for command; do :; done\nexec sh -c "$command"\n'
    )
    client.chmod(0o755)
    monkeypatch.setenv("GIT_SSH_COMMAND", str(client))
    started = run("ssh-agent", "-s", "-a", tmp_path / "agent")
    pid = started.split("SSH_AGENT_PID=")[1].split(";")[0]
    try:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
        address = f"ssh://git@git.example.org{repository}"
        with pytest.raises(SourceFailure, match=r"cannot fetch ssh://.*its user may read it: .*denied"):
            read(address, tmp_path, "main", None)
        run("ssh-add", "-q", key)
        source = read(address, tmp_path, "main", None)
        assert source.revision == git(repository, "rev-parse", "HEAD")
        assert "git.example.org" not in str(source.describe())
        assert [entry.path for entry in source.entries] == sorted(FILES)
    finally:
        run("kill", pid)
    assert "git@git.example.org git-upload-pack" in (tmp_path / "asked").read_text()
