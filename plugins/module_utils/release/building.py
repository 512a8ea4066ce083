# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Write a release: code, static files, configuration and a link to its environment.

Everything is written into a hidden directory and renamed into place when it is complete.
"""

from __future__ import annotations

import compileall
import filecmp
import glob
import json
import os
import py_compile
import shutil
import subprocess
import sys
import tarfile
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from .. import tree
from . import assets, credentials, places, room, seal
from .locking import utc
from .ports import Host
from .request import Release, ReleaseFailure

PARTIAL = ".partial-"
FLUSHED = ".flushed"  # the last file of a release: all others have reached the disk


@dataclass(frozen=True)
class Code:
    """Where a release's code comes from: a bundle, or the tree of another release."""

    bundle: str | None = None
    tree: str | None = None


def code_on_host(release: Release) -> str | None:
    """The tree of a release with the same code, if it still is what it was."""
    if release.source.kind != "tree":
        return None
    for name in reversed(places.names(release)):
        known = places.record(release, name)
        if known and known.get("parts", {}).get("source") == release.source.digest:
            path = os.path.join(release.releases, name, "src")
            if intact(release, path):
                return path
    return None


def intact(release: Release, path: str) -> bool:
    """Whether a tree holds exactly the code that was asked for."""
    return release.source.kind != "tree" or (
        os.path.isdir(path) and tree.digest(tree.walk(path)) == release.source.digest
    )


def write_release(
    host: Host,
    release: Release,
    name: str,
    code: Code,
    environment: str,
    found: Mapping[str, str],
    who: str,
    identity: Mapping[str, str],
    unchanged: Callable[[], bool],
) -> None:
    """Make the release ``name``: complete when this returns, not there when it fails.

    ``unchanged`` says whether the configuration still is the one that was digested.
    """
    gid = places.require_group(host, release)
    final = os.path.join(release.releases, name)
    partial = os.path.join(release.releases, PARTIAL + name)
    host.step("partial release")
    os.mkdir(partial, 0o700)
    source = os.path.join(partial, "src")
    if release.source.kind == "wheel":
        os.mkdir(source)
    elif code.tree is not None:
        shutil.copytree(code.tree, source, symlinks=True, copy_function=_link)
    else:
        unpack(str(code.bundle), source)
        if not intact(release, source):
            raise ReleaseFailure("the code arrived damaged: its digest is not that of the source; run again")
    _refuse_escapes(source, source)
    _compile(source, os.path.join(final, "src"), os.path.join(environment, "bin", "python"), identity)
    host.step("own code")
    _own_tree(host, source, gid, 0o750, 0o640)
    compressed = _copy_static(host, release, partial, environment)
    os.symlink(os.path.relpath(environment, final), os.path.join(partial, "venv"))
    for path in release.files:
        with open(path, "rb") as file:
            places.write(host, os.path.join(partial, os.path.basename(path)), file.read(), 0o640, gid)
    places.write(host, os.path.join(partial, "environment"), _variables(release, name), 0o600, 0)
    credentials.write(host, release, name, partial)
    record = {
        "release": name,
        "app": release.name,
        "digest": places.total(dict(found)),
        "parts": dict(found),
        "revision": release.source.revision,
        "environment": os.path.basename(environment),
        "interpreter": dict(identity),
        "compressed": compressed,
        "created": utc(host.now()),
        "by": who,
    }
    places.write(
        host, os.path.join(partial, "release.json"), json.dumps(record, indent=2).encode() + b"\n", 0o640, gid
    )
    host.own(partial, gid)
    os.chmod(partial, 0o711)  # the proxy passes through it to the socket and the static files
    seal.seal(host, partial)
    if not unchanged():
        raise ReleaseFailure("its configuration was written anew while it was copied; run again")
    host.step("complete release")
    os.rename(partial, final)
    places.sync_directory(release.releases)


def unpack(bundle: str, target: str) -> None:
    """Unpack a bundle; nothing in it can leave the target."""
    os.mkdir(target, 0o700)
    try:
        with tarfile.open(bundle, "r:gz") as tar:
            if hasattr(tarfile, "data_filter"):
                tar.extractall(target, filter="data")
            else:  # Python before 3.11.4; our own bundles hold no link that leaves the tree
                tar.extractall(target)
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        if room.full(error):
            raise
        raise ReleaseFailure(f"the code cannot be unpacked ({error}); run again") from error


def _refuse_escapes(folder: str, root: str) -> None:
    """Static files are copied through links, by root, to where everybody may read them."""
    link = tree.escape(folder, root)
    if link is not None:
        raise ReleaseFailure(
            f"the link {link} leads out of the source; servers would not have what it points to: "
            "replace the link by that"
        )


def _link(source: str, target: str) -> str:
    """Share the file of another release (both are root's and never change), or copy it."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)
    return target


def _compile(source: str, final: str, python: str, identity: Mapping[str, str]) -> None:
    """Compile the code, since the app cannot; a file that does not compile fails when it is imported."""
    here = (sys.implementation.name, sys.version.split()[0])
    if (identity.get("implementation"), identity.get("version")) == here:
        compileall.compile_dir(
            source,
            quiet=2,
            stripdir=source,
            prependdir=final,
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )
        return
    options = ["-q", "-q", "-s", source, "-p", final, "--invalidation-mode", "unchecked-hash", source]
    subprocess.run(
        [python, "-I", "-m", "compileall", *options],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )


def _entries(root: str) -> Iterator[tuple[str, bool]]:
    yield root, True
    for folder, names, files in os.walk(root):
        for name in names:
            path = os.path.join(folder, name)
            yield path, not os.path.islink(path)
        for name in files:
            yield os.path.join(folder, name), False


def _own_tree(host: Host, root: str, gid: int, folders: int, files: int) -> None:
    for path, is_folder in _entries(root):
        host.own(path, gid)
        if is_folder:
            os.chmod(path, folders)
        elif not os.path.islink(path):
            runs = os.stat(path).st_mode & 0o100
            os.chmod(path, files | (0o110 if runs else 0))


def _copy_static(host: Host, release: Release, partial: str, environment: str) -> list[str]:
    """Copy what proxies serve below the address it has, where they may read it, and compress it.

    Returns the kinds of compressed copies.
    """
    root = os.path.join(partial, "static")
    os.mkdir(root)
    for static in release.static:
        target = os.path.join(root, static.url.strip("/"))
        os.makedirs(os.path.dirname(target), exist_ok=True)
        root_of_origin, origin = _static_origin(release, partial, environment, static.path)
        _refuse_escapes(origin, root_of_origin)
        shutil.copytree(origin, target, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    host.step("own static")
    live = places.pointer(release, "current")
    place = os.path.join(release.releases, live) if live else None
    served = place and os.path.join(place, "static")
    for path, is_folder in _entries(root):
        host.own(path, 0)
        os.chmod(path, 0o755 if is_folder else 0o644)
        if not is_folder:
            moment = _first_served(host, path, served and os.path.join(served, os.path.relpath(path, root)))
            os.utime(path, ns=(moment, moment))
    host.step("compress static")
    alike = (places.record(release, live) or {}).get("compressed") == assets.kinds() if live else False
    whole = place is not None and alike and seal.damage(place) is None
    return assets.compress(root, served if whole else None)


def _first_served(host: Host, path: str, served: str | None) -> int:
    """When this content came under this address, in nanoseconds.

    Proxies make validators (ETag, Last-Modified) of a file's time and size: another content needs another
    time, and the same content keeps its time, or browsers would fetch it again after each deploy.
    """
    if served and os.path.isfile(served) and filecmp.cmp(path, served, shallow=False):
        return os.stat(served).st_mtime_ns
    return int(host.now() * 1_000_000_000)


def _static_origin(release: Release, partial: str, environment: str, path: str) -> tuple[str, str]:
    """The directory of static files, and the tree that nothing in it may leave."""
    if release.source.kind == "tree":
        roots = [os.path.join(partial, "src")]
    else:
        roots = glob.glob(os.path.join(glob.escape(environment), "lib", "python3*", "site-packages"))
    for root in roots:
        found = os.path.realpath(os.path.join(root, path))
        if os.path.isdir(found) and found.startswith(os.path.realpath(root) + os.sep):
            return root, found
    raise ReleaseFailure(
        f"static path {path} is not in {release.source.wheel or 'the source'}; correct the path"
    )


def _variables(release: Release, name: str) -> bytes:
    """The environment of the service: what was provisioned, then what only the release knows."""
    with open(release.environment_file, "rb") as file:
        content = file.read()
    if content and not content.endswith(b"\n"):
        content += b"\n"
    lines = [f"FLASK_RELEASE={name}"]
    if release.source.pythonpath is not None:
        path = os.path.normpath(os.path.join(release.releases, name, "src", release.source.pythonpath))
        lines.append(f"PYTHONPATH={path}")
    return content + "".join(f"{line}\n" for line in lines).encode()


def flush(path: str) -> None:
    """Bring a release to the disk, then mark it; done while its service starts, so nobody waits for it."""
    for entry, is_folder in _entries(path):
        if os.path.islink(entry) or entry.endswith(".sock"):
            continue
        try:
            handle = os.open(entry, os.O_RDONLY | os.O_NONBLOCK | (os.O_DIRECTORY if is_folder else 0))
        except OSError:
            continue  # what systemd put beside the release is not ours to keep
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    with suppress(FileNotFoundError):  # it was unhealthy and is gone by now
        open(os.path.join(path, FLUSHED), "w", encoding="utf-8").close()


class Flusher(threading.Thread):
    """Brings a release to the disk while its service starts."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path
        self._error: OSError | None = None

    def run(self) -> None:
        """Flush the release; called by the thread."""
        try:
            flush(self._path)
        except OSError as error:
            self._error = error

    def finish(self) -> None:
        """Wait for the end; OSError when not everything reached the disk."""
        self.join()
        if self._error is not None:
            raise self._error


def flushed(release: Release, name: str) -> bool:
    """Whether a release is whole even if the power went away just after it got its name."""
    return os.path.exists(os.path.join(release.releases, name, FLUSHED))


def summary(known: Mapping[str, Any] | None) -> dict[str, str]:
    """What a diff shows of a release: digests, nothing of any content."""
    if known is None:
        return {}
    shown = {key: str(value)[:12] for key, value in known.get("parts", {}).items() if value}
    shown["source"] = f"{shown.get('source', '')} ({known.get('revision') or 'no revision'})"
    return shown
