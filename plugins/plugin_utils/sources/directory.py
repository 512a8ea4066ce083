# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A directory on the controller: the files that git would commit."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ansible_collections.flaskworks.server.plugins.module_utils.tree import link_target
from ansible_collections.flaskworks.server.plugins.plugin_utils.sources.base import Entry, SourceFailure
from ansible_collections.flaskworks.server.plugins.plugin_utils.sources.git_command import TRUST, run_git


def read_directory(path: Path) -> tuple[list[Entry], str]:
    """Files that git would commit: tracked ones and those that no .gitignore leaves out."""
    listing, revision = b"", ""
    if _in_work_tree(path):
        listing = (
            run_git([*TRUST, "ls-files", "-co", "--exclude-standard", "-z", "--deduplicate"], path) or b""
        )
        commit = run_git([*TRUST, "rev-parse", "HEAD"], path, fails=True)
        if commit is not None and listing:
            changed = run_git([*TRUST, "status", "--porcelain", "-z", "--", "."], path)
            revision = os.fsdecode(commit).strip() + ("-dirty" if changed else "")
    if not listing:
        with tempfile.TemporaryDirectory(prefix="flaskworks-") as empty:
            run_git(["init", "--quiet", "--bare", empty], path)
            where = ["--git-dir", empty, "--work-tree", str(path)]
            listing = run_git([*where, "ls-files", "-o", "--exclude-standard", "-z"], path) or b""
    names = [os.fsdecode(name) for name in listing.split(b"\0") if name]
    return [entry for name in names for entry in _entry(path, name)], revision


def _entry(root: Path, name: str) -> Iterator[Entry]:
    path = root / name
    if path.is_symlink():
        yield Entry(name, target=link_target(os.readlink(path)))
    elif path.is_dir():
        raise SourceFailure(
            f"{name.rstrip('/')} is a git repository of its own (a submodule?), which a source cannot hold; "
            "make its files part of the source or install it through the lock"
        )
    elif path.is_file():
        yield Entry(name, executable=bool(path.stat().st_mode & 0o100), read=path.read_bytes)


def _in_work_tree(path: Path) -> bool:
    """Whether git knows the directory; when git refuses, its files are not what git would commit."""
    try:
        run_git([*TRUST, "rev-parse", "--show-toplevel"], path, hint=f"git does not read {path}")
    except SourceFailure as error:
        # In full, because the message about a work tree whose repository is gone begins alike.
        if "not a git repository (or any" in str(error) and not os.path.lexists(path / ".git"):
            return False
        raise
    return True
