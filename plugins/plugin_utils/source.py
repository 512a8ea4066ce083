# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a release is made of, gathered on the controller.

A source is a directory, a commit of a git repository, or one wheel. It is read here, digested, and packed
into a bundle only when a host asks for it. Hosts need neither git nor any credential.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import io
import json
import os
import posixpath
import re
import subprocess
import tarfile
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.flaskworks.server.plugins.module_utils.environment import (
    EnvironmentFailure,
    requirement_lines,
    uses_hashes,
)
from ansible_collections.flaskworks.server.plugins.module_utils.tree import (
    Item,
    digest,
    is_bytecode,
    landing,
    link_target,
)
from ansible_collections.flaskworks.server.plugins.plugin_utils.moment import run_mark

LOCKS = ("requirements.lock", "requirements.txt", "pyproject.toml")
BUNDLE_LIFE = 24 * 3600  # seconds for which a bundle is kept after its last use
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


class SourceFailure(Exception):
    """A source that cannot be used; the text is a sentence for the operator."""


@dataclass(frozen=True)
class Entry:
    """One file or link of a tree; ``read`` gives a file's content when it is needed."""

    path: str
    executable: bool = False
    target: str | None = None
    read: Callable[[], bytes] = field(default=lambda: b"", repr=False, compare=False)


@dataclass(frozen=True)
class Source:
    """A digested source: what the release module needs to know, and how to pack it."""

    digest: str
    revision: str
    kind: str
    pythonpath: str | None
    requirements: str
    origin: str
    wheel: str | None
    entries: tuple[Entry, ...] = field(repr=False)

    def describe(self) -> dict[str, Any]:
        """The part that hosts are told."""
        return {
            "digest": self.digest,
            "revision": self.revision,
            "kind": self.kind,
            "pythonpath": self.pythonpath,
            "requirements": self.requirements,
            "origin": self.origin,
            "wheel": self.wheel,
        }

    def bundle(self, cache: Path) -> Path:
        """The packed source, a compressed tar in the cache; packed once, however many hosts ask."""
        path = cache / "bundles" / f"{self.digest}.tar.gz"
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with locked(path.with_suffix(".lock")):
            try:
                os.utime(path)
            except FileNotFoundError:
                _forget_old(path.parent)
                partial = path.with_suffix(f".{os.getpid()}")
                try:
                    _pack(self, partial)
                    with partial.open("rb") as file:
                        os.fsync(file.fileno())
                    partial.rename(path)
                finally:
                    partial.unlink(missing_ok=True)
        return path


Files = tuple[dict[str, "Entry"], str, str]


def gather(release: Mapping[str, Any], cache: Path, memory: dict[str, Files] | None = None) -> Source:
    """Read the source of one release of the plan; ``memory`` is shared by apps of one source."""
    name = str(release["name"])
    wanted = release["source"]
    memory = {} if memory is None else memory
    key = json.dumps(wanted, sort_keys=True, default=str)
    try:
        if key in memory:
            return _tree(release, memory[key])
        if wanted.get("git"):
            memory[key] = _files(*_from_git(wanted, cache))
            return _tree(release, memory[key])
        path = Path(str(wanted.get("path") or "")).expanduser()
        if not wanted.get("path") or not path.exists():
            raise SourceFailure(f"source.path {path} does not exist on the controller; correct the path")
        path = path.joinpath(wanted["subdirectory"]) if wanted.get("subdirectory") else path
        if path.suffix == ".whl" and path.is_file():
            return _wheel(path)
        if not path.is_dir():
            raise SourceFailure(f"source.path {path} is neither a directory nor a wheel")
        memory[key] = _files(*_from_directory(path))
        return _tree(release, memory[key])
    except (SourceFailure, EnvironmentFailure) as error:
        raise SourceFailure(f"{name}: {error}") from error
    except OSError as error:
        raise SourceFailure(f"{name}: the source cannot be read: {error}") from error


# -- the three kinds -------------------------------------------------------------------------------


def _wheel(path: Path) -> Source:
    content = path.read_bytes()
    entry = Entry(path.name, read=lambda: content)
    return Source(
        digest=hashlib.sha256(content).hexdigest(),
        revision="-".join(path.name.split("-")[:2]),
        kind="wheel",
        pythonpath=None,
        requirements="",
        origin=path.name,
        wheel=path.name,
        entries=(entry,),
    )


def _files(entries: list[Entry], revision: str) -> Files:
    files = dict(sorted(_usable(entries), key=lambda pair: pair[0]))
    if not files:
        raise SourceFailure("the source holds no files (is all of it ignored by .gitignore?)")
    return files, digest(_items(files.values())), revision


def _tree(release: Mapping[str, Any], read: Files) -> Source:
    files, content, revision = read
    for static in release.get("static") or ():
        folder = posixpath.normpath(str(static["path"])) + "/"
        if not any(path.startswith(folder) for path in files):
            raise SourceFailure(
                f"static path {static['path']} is not in the source; correct the path, "
                "or see whether .gitignore leaves it out"
            )
        _check_static(folder, files)
    text, origin = _requirements(release["environment"].get("lock"), files)
    uses_hashes(text, origin)
    return Source(
        digest=content,
        revision=revision,
        kind="tree",
        pythonpath=_pythonpath(str(release["wsgi"]), files),
        requirements=text,
        origin=origin,
        wheel=None,
        entries=tuple(files.values()),
    )


def _usable(entries: Sequence[Entry]) -> Iterator[tuple[str, Entry]]:
    links = _links(entries)
    for entry in entries:
        if is_bytecode(entry.path):
            continue
        if entry.target is not None and landing(entry.path, links) is None:
            raise SourceFailure(
                f"the link {entry.path} points to {entry.target}, outside the source; "
                "servers would not have it: replace the link by what it points to"
            )
        yield entry.path, entry


def _links(entries: Iterable[Entry]) -> dict[str, str]:
    return {entry.path: entry.target for entry in entries if entry.target is not None}


def _check_static(folder: str, files: Mapping[str, Entry]) -> None:
    """Static files are copied, so a link among them has to lead to something that is shipped."""
    links = _links(files.values())
    for path in links:
        if not path.startswith(folder):
            continue
        there = landing(path, links) or "."
        if there in links or not (
            there == "." or there in files or any(other.startswith(f"{there}/") for other in files)
        ):
            raise SourceFailure(
                f"the static link {path} points to {links[path]}, which is not in the source; "
                "correct or remove it, or see whether .gitignore leaves it out"
            )


def _items(entries: Iterable[Entry]) -> Iterator[Item]:
    for entry in entries:
        if entry.target is not None:
            yield Item(entry.path, "link", False, entry.target)
        else:
            yield Item(entry.path, "file", entry.executable, hashlib.sha256(entry.read()).hexdigest())


# -- directories ----------------------------------------------------------------------------------


def _from_directory(path: Path) -> tuple[list[Entry], str]:
    """Files that git would commit: tracked ones and those that no .gitignore leaves out."""
    listing, revision = b"", ""
    if _in_work_tree(path):
        listing = _git([*TRUST, "ls-files", "-co", "--exclude-standard", "-z", "--deduplicate"], path) or b""
        commit = _git([*TRUST, "rev-parse", "HEAD"], path, fails=True)
        if commit is not None and listing:
            changed = _git([*TRUST, "status", "--porcelain", "-z", "--", "."], path)
            revision = os.fsdecode(commit).strip() + ("-dirty" if changed else "")
    if not listing:
        with tempfile.TemporaryDirectory(prefix="flaskworks-") as empty:
            _git(["init", "--quiet", "--bare", empty], path)
            where = ["--git-dir", empty, "--work-tree", str(path)]
            listing = _git([*where, "ls-files", "-o", "--exclude-standard", "-z"], path) or b""
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
        _git([*TRUST, "rev-parse", "--show-toplevel"], path, hint=f"git does not read {path}")
    except SourceFailure as error:
        # In full, because the message about a work tree whose repository is gone begins alike.
        if "not a git repository (or any" in str(error) and not os.path.lexists(path / ".git"):
            return False
        raise
    return True


# -- git ------------------------------------------------------------------------------------------


def _from_git(wanted: Mapping[str, Any], cache: Path) -> tuple[list[Entry], str]:
    url, version = str(wanted["git"]), str(wanted.get("version") or "")
    store = cache / "git" / hashlib.sha256(url.encode()).hexdigest()[:20]
    store.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with locked(store.with_suffix(".lock")):
        if not (store / "HEAD").exists():
            _git(["init", "--quiet", "--bare", str(store)], cache)
        commit = _resolve(store, version) if _COMMIT.match(version) else None
        if commit is None and not _fetched_by_this_run(store):
            _fetch(store, url)
        commit = commit or _resolve(store, version)
    if commit is None:
        raise SourceFailure(
            f"{url} has no branch, tag or commit {version!r}; correct source.version"
            if version
            else f"{url} has no default branch; name one in source.version"
        )
    return _committed(store, commit, str(wanted.get("subdirectory") or "")), commit


def _fetch(store: Path, url: str) -> None:
    specs = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*", "+HEAD:refs/flaskworks/default"]
    _git(
        ["fetch", "--quiet", "--prune", "--no-auto-maintenance", "--no-write-fetch-head", url, *specs],
        store,
        hint=f"cannot fetch {url} on the controller; see that its user may read it",
    )
    store.with_suffix(".run").write_text(run_mark(), encoding="utf-8")


def _fetched_by_this_run(store: Path) -> bool:
    mark = run_mark()
    try:
        return bool(mark) and store.with_suffix(".run").read_text(encoding="utf-8") == mark
    except OSError:
        return False


def _resolve(store: Path, version: str) -> str | None:
    names = (
        (f"refs/heads/{version}", f"refs/tags/{version}", version)
        if version
        else ("refs/flaskworks/default",)
    )
    for name in names:
        if name.startswith("-"):
            continue
        found = _git(["rev-parse", "--verify", "--quiet", f"{name}^{{commit}}"], store, fails=True)
        if found is not None:
            return os.fsdecode(found).strip()
    return None


def _committed(store: Path, commit: str, subdirectory: str) -> list[Entry]:
    where = posixpath.normpath(subdirectory).strip("/") if subdirectory else "."
    tree = commit if where == "." else f"{commit}:{where}"
    listing = _git(
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
    stream = io.BytesIO(_git(["cat-file", "--batch"], store, given=asked.encode()) or b"")
    contents = {}
    while header := stream.readline().split():
        contents[header[0].decode()] = stream.read(int(header[2]))
        stream.read(1)
    return contents


def _git(
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


# -- what is in a tree ----------------------------------------------------------------------------


def _requirements(lock: str | None, files: Mapping[str, Entry]) -> tuple[str, str]:
    """The requirements of a tree as one text, and the name of the file they come from."""
    if lock is not None and lock not in files:
        raise SourceFailure(f"environment.lock {lock} is not in the source")
    name = lock or next((known for known in LOCKS if known in files), None)
    if name is None:
        raise SourceFailure(f"the source has none of {', '.join(LOCKS)}; name the lock in environment.lock")
    if posixpath.basename(name) == "pyproject.toml":
        return _project_dependencies(files[name]), name
    return "".join(_inlined(name, files, ())), name


def _project_dependencies(entry: Entry) -> str:
    try:
        project = tomllib.loads(entry.read().decode()).get("project")
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SourceFailure(f"{entry.path} cannot be read: {error}") from error
    if not isinstance(project, dict):
        raise SourceFailure(
            f"{entry.path} has no [project] table; add a requirements.txt or a [project] table"
        )
    if "dependencies" in (project.get("dynamic") or ()):
        raise SourceFailure(
            f"{entry.path} computes its dependencies when it is built (dynamic); "
            "compile them into requirements.lock"
        )
    return "".join(f"{line}\n" for line in project.get("dependencies") or ())


def _inlined(name: str, files: Mapping[str, Entry], above: tuple[str, ...]) -> Iterator[str]:
    """A requirements file with the files it includes (-r) put in their place."""
    if name not in files:
        raise SourceFailure(f"{above[-1]} includes {name}, which is not in the source")
    if name in above:
        raise SourceFailure(f"{name} includes itself")
    for line in requirement_lines(files[name].read().decode(errors="replace")):
        option = re.match(r"^(-r|--requirement|-c|--constraint|-e|--editable)[ =]?\s*(.+)$", line)
        if option is None:
            if re.match(r"^(\.{1,2}(/|$|\[)|/|file:)", line):
                raise SourceFailure(
                    f"{name} installs from a directory ({line}); the code is on the path already"
                )
            yield line + "\n"
        elif option[1] in ("-r", "--requirement"):
            included = posixpath.normpath(posixpath.join(posixpath.dirname(name), option[2]))
            yield from _inlined(included, files, (*above, name))
        elif option[1] in ("-c", "--constraint"):
            raise SourceFailure(f"{name} uses constraints ({line}); compile them into one lock file")
        else:
            raise SourceFailure(
                f"{name} has an editable requirement ({line}); the code is on the path already"
            )


def _pythonpath(wsgi: str, files: Mapping[str, Entry]) -> str:
    top = wsgi.split(":", 1)[0].split(".", 1)[0]
    for folder in (".", "src"):
        prefix = "" if folder == "." else f"{folder}/"
        module, package = f"{prefix}{top}.py", f"{prefix}{top}/"
        if module in files or any(path.startswith(package) and path.endswith(".py") for path in files):
            return folder
    raise SourceFailure(
        f"the module {top!r} of wsgi {wsgi!r} is neither at the top of the source nor under src/; "
        "correct wsgi, or set source.subdirectory to where the project is"
    )


# -- bundles --------------------------------------------------------------------------------------


def _pack(source: Source, path: Path) -> None:
    """Write a compressed tar that depends on the content alone."""
    packed: list[Item] = []
    with (
        path.open("wb") as raw,
        gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=6, filename="", mtime=0) as packer,
        tarfile.open(fileobj=packer, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for entry in source.entries:
            info = tarfile.TarInfo(entry.path)
            info.mode = 0o755 if entry.executable else 0o644
            if entry.target is not None:
                info.type, info.linkname = tarfile.SYMTYPE, entry.target
                tar.addfile(info)
                packed.append(Item(entry.path, "link", False, entry.target))
                continue
            content = entry.read()
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
            packed.append(Item(entry.path, "file", entry.executable, hashlib.sha256(content).hexdigest()))
    if source.kind == "tree" and digest(packed) != source.digest:
        raise SourceFailure("the source changed while it was being packed; run again")


def _forget_old(folder: Path) -> None:
    """Remove bundles that nobody used for a day; this run and others still upload the rest."""
    limit = time.time() - BUNDLE_LIFE
    for path in folder.glob("*.tar.gz"):
        with suppress(FileNotFoundError):  # another worker was faster
            if path.stat().st_mtime < limit:
                path.unlink()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file against the other workers of this and any other run."""
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
