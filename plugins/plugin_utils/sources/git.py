# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A commit of a git repository, fetched on the controller once in a run."""

from __future__ import annotations

import hashlib
import io
import json
import os
import posixpath
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.flaskworks.server.plugins.module_utils.tree import link_target
from ansible_collections.flaskworks.server.plugins.plugin_utils.runs import once
from ansible_collections.flaskworks.server.plugins.plugin_utils.sources.base import (
    Entry,
    SourceFailure,
    constant,
    locked,
)
from ansible_collections.flaskworks.server.plugins.plugin_utils.sources.download import is_url, shown
from ansible_collections.flaskworks.server.plugins.plugin_utils.sources.git_command import run_git
from ansible_collections.flaskworks.server.plugins.plugin_utils.sources.signatures import refuse_unsigned

_COMMIT = re.compile(r"^[0-9a-f]{40}([0-9a-f]{24})?$")


def read_git(wanted: Mapping[str, Any], cache: Path) -> tuple[list[Entry], str]:
    """The entries of a commit, and its name."""
    url, version = str(wanted["git"]), str(wanted.get("version") or "")
    store = cache / "git" / hashlib.sha256(url.encode()).hexdigest()[:20]
    store.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    keys = str(wanted.get("verify") or "")
    key = json.dumps(["commit", url, version, keys])
    commit = once(cache, key, lambda: _commit(store, url, version, keys, cache))
    return _committed(store, commit, str(wanted.get("subdirectory") or "")), commit


def _commit(store: Path, url: str, version: str, keys: str, cache: Path) -> str:
    """The commit that a version means now: fetched when that is needed, signed when that is demanded."""
    with locked(store.with_suffix(".lock")):
        if not (store / "HEAD").exists():
            run_git(["init", "--quiet", "--bare", str(store)], cache)
        commit = _resolve(store, version) if _COMMIT.match(version) else None
        if commit is None:
            once(cache, json.dumps(["fetch", url]), lambda: _fetch(store, url))
            commit = _resolve(store, version)
    if commit is None:
        raise SourceFailure(
            f"{_told(url)} has no branch, tag or commit {version!r}; correct source.version"
            if version
            else f"{_told(url)} has no default branch; name one in source.version"
        )
    if keys:
        refuse_unsigned(store, _tag(store, version), commit, Path(keys).expanduser())
    return commit


def _tag(store: Path, version: str) -> str:
    """The version when it names a tag, and nothing when it names a branch or a commit."""
    known = [
        kind
        for kind in ("heads", "tags")
        if version
        and run_git(["rev-parse", "--verify", "--quiet", f"refs/{kind}/{version}"], store, fails=True)
    ]
    return version if known == ["tags"] else ""


def _told(url: str) -> str:
    """The address as messages show it: a token may stand in it."""
    return shown(url) if is_url(url) else url


def _fetch(store: Path, url: str) -> str:
    specs = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*", "+HEAD:refs/flaskworks/default"]
    run_git(
        ["fetch", "--quiet", "--prune", "--no-auto-maintenance", "--no-write-fetch-head", url, *specs],
        store,
        hint=f"cannot fetch {_told(url)} on the controller; see that its user may read it",
    )
    return url


def _resolve(store: Path, version: str) -> str | None:
    names = (
        (f"refs/heads/{version}", f"refs/tags/{version}", version)
        if version
        else ("refs/flaskworks/default",)
    )
    for name in names:
        if name.startswith("-"):
            continue
        found = run_git(["rev-parse", "--verify", "--quiet", f"{name}^{{commit}}"], store, fails=True)
        if found is not None:
            return os.fsdecode(found).strip()
    return None


def _committed(store: Path, commit: str, subdirectory: str) -> list[Entry]:
    where = posixpath.normpath(subdirectory).strip("/") if subdirectory else "."
    tree = commit if where == "." else f"{commit}:{where}"
    listing = run_git(
        ["ls-tree", "-r", "-z", "--full-tree", tree],
        store,
        hint=f"source.subdirectory {subdirectory} is not in commit {commit[:12]}",
    )
    rows = []
    for line in (listing or b"").split(b"\0"):
        if line:
            meta, _, name = line.partition(b"\t")
            mode, kind, identifier = os.fsdecode(meta).split()
            if kind == "commit":
                raise SourceFailure(f"{os.fsdecode(name)} is a submodule, which a source cannot hold")
            rows.append((mode, identifier, os.fsdecode(name)))
    contents = _blobs(store, [identifier for _mode, identifier, _name in rows])
    entries = []
    for mode, identifier, path in rows:
        content = contents[identifier]
        if mode == "120000":
            entries.append(Entry(path, target=link_target(os.fsdecode(content))))
        else:
            entries.append(Entry(path, executable=mode == "100755", read=constant(content)))
    return entries


def _blobs(store: Path, identifiers: Sequence[str]) -> dict[str, bytes]:
    asked = "".join(f"{identifier}\n" for identifier in dict.fromkeys(identifiers))
    stream = io.BytesIO(run_git(["cat-file", "--batch"], store, given=asked.encode()) or b"")
    contents = {}
    while header := stream.readline().split():
        contents[header[0].decode()] = stream.read(int(header[2]))
        stream.read(1)
    return contents
