# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who has signed a tag or a commit: only the keys of one file count, whatever else the controller trusts."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from pathlib import Path

from ansible_collections.flaskworks.server.plugins.plugin_utils.sources.base import SourceFailure
from ansible_collections.flaskworks.server.plugins.plugin_utils.sources.git_command import run_git

_SSH_KEY = re.compile(r"(ssh|ecdsa|sk)-\S+ [A-Za-z0-9+/]")
GPG_TIME = 60  # seconds that gpg may take to read a file of keys


def refuse_unsigned(store: Path, name: str, commit: str, keys: Path) -> None:
    """Refuse a version that no key of the file has signed.

    Args:
        store: the repository.
        name: the tag, when the version is one; empty for a branch or a commit.
        commit: what the version means. Its own signature counts when the tag has none.
        keys: OpenPGP public keys, armored or not; or SSH public keys, as in an allowed_signers file or a
            ``.pub`` file.
    """
    try:
        content = keys.read_bytes()
    except OSError as error:
        raise SourceFailure(
            f"source.verify {keys} cannot be read on the controller: {error.strerror}"
        ) from error
    tag = _annotated(store, name) if name else None
    told = f"tag {name}" if tag else f"commit {commit[:12]}"
    with tempfile.TemporaryDirectory(prefix="flaskworks-") as work:
        # No setting of the user's holds: only the keys of the file are trusted, and for nothing else.
        environment = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "GNUPGHOME": work}
        options = ["-c", "gpg.x509.program=false", "-c", f"gpg.ssh.revocationFile={os.devnull}"]
        if _is_openpgp(content):
            _import(keys, content, Path(work))
            signers = Path(os.devnull)
        else:
            signers = Path(work) / "signers"
            signers.write_text(_allowed(keys, content), encoding="utf-8")
            options += ["-c", "gpg.minTrustLevel=fully"]  # the trust that a listed SSH key has
        options += ["-c", f"gpg.ssh.allowedSignersFile={signers}"]
        run_git(
            [*options, "verify-tag" if tag else "verify-commit", tag or commit],
            store,
            hint=(
                f"{told} is not signed by a key of source.verify {keys}; "
                "sign it, or add the signer's public key if you trust it"
            ),
            environment=environment,
        )


def _annotated(store: Path, name: str) -> str | None:
    """The object of a signed tag; None when the tag has no signature of its own.

    Raises:
        SourceFailure: when it was signed under another name: an old signature must not pass for a new one.
    """
    found = run_git(["rev-parse", "--verify", "--quiet", f"refs/tags/{name}^{{tag}}"], store, fails=True)
    if found is None:
        return None
    tag = os.fsdecode(found).strip()
    text = (run_git(["cat-file", "tag", tag], store) or b"").decode(errors="replace")
    if not re.search(r"^-----BEGIN (PGP|SSH) (SIGNATURE|MESSAGE)-----$", text, re.MULTILINE):
        return None
    header = text.partition("\n\n")[0]
    own = next((line[4:] for line in header.splitlines() if line.startswith("tag ")), "")
    if own != name:
        raise SourceFailure(
            f"tag {name} was signed as {own!r}; somebody has renamed it: look into that first"
        )
    if "\ntype commit\n" not in f"\n{header}\n":
        raise SourceFailure(f"tag {name} is a tag of another tag; sign one of the commit")
    return tag


def _is_openpgp(content: bytes) -> bool:
    return b"-----BEGIN PGP PUBLIC KEY BLOCK-----" in content or content[:1] >= b"\x80"


def _allowed(keys: Path, content: bytes) -> str:
    """A file of allowed signers; a bare public key becomes one for any name."""
    lines = []
    for line in content.decode(errors="replace").splitlines():
        text = line.strip()
        if text and not text.startswith("#"):
            lines.append(f'* namespaces="git" {text}\n' if _SSH_KEY.match(text) else f"{text}\n")
    if not any(re.search(r"(^|\s)(ssh|ecdsa|sk)-\S+ [A-Za-z0-9+/]", line) for line in lines):
        raise SourceFailure(f"source.verify {keys} holds no public key; give OpenPGP or SSH public keys")
    return "".join(lines)


def _import(keys: Path, content: bytes, home: Path) -> None:
    home.chmod(0o700)
    try:
        done = subprocess.run(
            ["gpg", "--homedir", str(home), "--batch", "--quiet", "--no-autostart", "--import"],
            input=content,
            capture_output=True,
            timeout=GPG_TIME,
            check=False,
        )
    except FileNotFoundError:
        raise SourceFailure(
            "gpg is missing on the controller; OpenPGP signatures are verified with it: install gnupg"
        ) from None
    except subprocess.TimeoutExpired:
        raise SourceFailure(f"gpg had not read {keys} after {GPG_TIME} s") from None
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip()
        raise SourceFailure(f"source.verify {keys} holds keys that gpg cannot read: {words}")
