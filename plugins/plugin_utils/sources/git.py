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
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.flaskworks.server.plugins.module_utils.tree import link_target
from ansible_collections.flaskworks.server.plugins.plugin_utils.sources.base import (
    Entry,
    SourceFailure,
    locked,
)
from ansible_collections.flaskworks.server.plugins.plugin_utils.sources.runs import once

GIT_TIME = 600  # seconds that one git command may take
# Read a clone that belongs to another user too, without running what its configuration names.
TRUST = ("-c", "safe.directory=*", "-c", "core.fsmonitor=false")
# What `git rev-parse --local-env-vars` names, set when a hook runs this. GIT_CONFIG_COUNT stays: it belongs
# to no repository, and is how credentials are handed to the git of a pipeline.
GIT_LOCAL = frozenset(
    {
        "GIT_ALTERNATE_OBJECT_DIRECTORIES",
        "GIT_COMMON_DIR",
        "GIT_CONFIG",
        "GIT_CONFIG_PARAMETERS",
        "GIT_DIR",
        "GIT_GRAFT_FILE",
        "GIT_IMPLICIT_WORK_TREE",
        "GIT_INDEX_FILE",
        "GIT_INTERNAL_SUPER_PREFIX",
        "GIT_NO_REPLACE_OBJECTS",
        "GIT_OBJECT_DIRECTORY",
        "GIT_PREFIX",
        "GIT_REPLACE_REF_BASE",
        "GIT_SHALLOW_FILE",
        "GIT_WORK_TREE",
    }
)
_COMMIT = re.compile(r"^[0-9a-f]{40}([0-9a-f]{24})?$")


def read_git(wanted: Mapping[str, Any], cache: Path) -> tuple[list[Entry], str]:
    """The entries of a commit, and its name."""
    url, version = str(wanted["git"]), str(wanted.get("version") or "")
    store = cache / "git" / hashlib.sha256(url.encode()).hexdigest()[:20]
    store.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = json.dumps(["commit", url, version])
    commit = once(cache, key, lambda: _commit(store, url, version, cache))
    return _committed(store, commit, str(wanted.get("subdirectory") or "")), commit


def _commit(store: Path, url: str, version: str, cache: Path) -> str:
    """The commit that a version means now, after fetching it when that is needed."""
    with locked(store.with_suffix(".lock")):
        if not (store / "HEAD").exists():
            run_git(["init", "--quiet", "--bare", str(store)], cache)
        commit = _resolve(store, version) if _COMMIT.match(version) else None
        if commit is None:
            once(cache, json.dumps(["fetch", url]), lambda: _fetch(store, url))
            commit = _resolve(store, version)
    if commit is None:
        raise SourceFailure(
            f"{url} has no branch, tag or commit {version!r}; correct source.version"
            if version
            else f"{url} has no default branch; name one in source.version"
        )
    return commit


def _fetch(store: Path, url: str) -> str:
    specs = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*", "+HEAD:refs/flaskworks/default"]
    run_git(
        ["fetch", "--quiet", "--prune", "--no-auto-maintenance", "--no-write-fetch-head", url, *specs],
        store,
        hint=f"cannot fetch {url} on the controller; see that its user may read it",
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
            entries.append(Entry(path, executable=mode == "100755", read=_constant(content)))
    return entries


def _constant(content: bytes) -> Callable[[], bytes]:
    return lambda: content


def _blobs(store: Path, identifiers: Sequence[str]) -> dict[str, bytes]:
    asked = "".join(f"{identifier}\n" for identifier in dict.fromkeys(identifiers))
    stream = io.BytesIO(run_git(["cat-file", "--batch"], store, given=asked.encode()) or b"")
    contents = {}
    while header := stream.readline().split():
        contents[header[0].decode()] = stream.read(int(header[2]))
        stream.read(1)
    return contents


def run_git(
    arguments: Sequence[str], where: Path, *, fails: bool = False, given: bytes | None = None, hint: str = ""
) -> bytes | None:
    """Run git without prompts; None instead of an error when ``fails`` says that is an answer too."""
    settings = {key: value for key, value in os.environ.items() if key not in GIT_LOCAL}
    settings.update(GIT_TERMINAL_PROMPT="0", LC_ALL="C.UTF-8", GIT_OPTIONAL_LOCKS="0")
    settings.setdefault("GIT_SSH_COMMAND", "ssh -o BatchMode=yes")
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=where,
            env=settings,
            input=given,
            capture_output=True,
            timeout=GIT_TIME,
            check=False,
        )
    except FileNotFoundError:
        raise SourceFailure(
            "git is missing on the controller; sources are read with it: install git"
        ) from None
    except subprocess.TimeoutExpired:
        raise SourceFailure(f"git {arguments[0]} had not finished after {GIT_TIME} s") from None
    if done.returncode == 0:
        return done.stdout
    if fails:
        return None
    told = done.stderr.decode(errors="replace").strip()
    raise SourceFailure(f"{hint or 'git could not read the source'}: {told}")
