# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether a release will fit on the disk, asked before anything is built."""

from __future__ import annotations

import errno
import os
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from .. import environment as environments
from .ports import Host
from .request import Release, ReleaseFailure

BLOCK = 4096  # bytes that the smallest file takes
MARGIN = 1.2
STATIC = 1.4  # a static file and its compressed copy
WHEEL = 4  # a wheel unpacks to about so much of its size
ENVIRONMENT = 64_000_000  # bytes that a first environment takes, at least
ENVIRONMENT_FILES = 4000


@dataclass(frozen=True)
class Room:
    """Bytes and files, needed or free; ``files`` is None where a file system does not count them."""

    bytes: int
    files: int | None


def full(error: BaseException) -> bool:
    """Whether something failed because the disk, or what the account may use of it, is full."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def require(
    host: Host, release: Release, bundle: str | None, code: str | None, environment: str | None
) -> None:
    """Refuse a release that will not fit.

    ``bundle`` or ``code`` is what its code is made of (the latter is shared, only what is made of it counts);
    ``environment`` the virtual environment, when that is to be built.
    """
    needs = Room(0, 0)
    if bundle is not None and release.source.kind == "wheel":
        needs = Room(WHEEL * os.path.getsize(bundle), 0)
    elif bundle is not None:
        needs = of_code(_in_bundle(bundle), release, shared=False)
    elif code is not None:
        needs = of_code(_in_tree(code), release, shared=True)
    packages = of_environment(release.environments) if environment else Room(0, 0)
    total = Room(int(needs.bytes * MARGIN) + packages.bytes, int(needs.files or 0) + int(packages.files or 0))
    has = Room(*host.room(release.home))
    if total.bytes > has.bytes:
        wants, there = f"needs {_mb(total.bytes)} (code {_mb(needs.bytes)}", _mb(has.bytes)
        wants += f", environment {_mb(packages.bytes)})" if environment else ")"
    elif has.files is not None and int(total.files or 0) > has.files:
        wants, there = f"needs {total.files} files", f"{has.files} files"
    else:
        return
    raise ReleaseFailure(
        f"the disk of {release.home} has no room for another release, which {wants}; {there} are free. "
        f"Free some, or keep fewer releases (keep_releases is {release.keep_releases}), and deploy again; "
        "nothing was changed"
    )


def of_code(files: Iterable[tuple[str, int]], release: Release, *, shared: bool) -> Room:
    """What a release takes of the files (path, size) of its source."""
    folders = tuple(os.path.normpath(static.path) + os.sep for static in release.static)
    total, count = 0.0, 0
    for path, size in files:
        compiled, served = path.endswith(".py"), path.startswith(folders)
        times = (0 if shared else 1) + compiled + (STATIC if served else 0)
        total += (size // BLOCK + 1) * BLOCK * times
        count += (not shared) + compiled + 2 * served
    return Room(int(total), count)


def of_environment(folder: str) -> Room:
    """What another environment will take: as much as the newest, and without one a guess."""
    try:
        known = [entry.path for entry in os.scandir(folder) if environments.is_complete(entry.path)]
    except FileNotFoundError:
        known = []
    if not known:
        return Room(ENVIRONMENT, ENVIRONMENT_FILES)
    newest = max(known, key=lambda path: os.stat(os.path.join(path, environments.MARKER)).st_mtime)
    sizes = [(size // BLOCK + 1) * BLOCK for _path, size in _in_tree(newest)]
    return Room(sum(sizes), len(sizes))


def _in_bundle(path: str) -> Iterator[tuple[str, int]]:
    try:
        with tarfile.open(path, "r:gz") as tar:
            for member in tar:
                yield os.path.normpath(member.name), member.size
    except (tarfile.TarError, EOFError, OSError, zlib.error):
        return  # whoever unpacks it says what is wrong


def _in_tree(root: str) -> Iterator[tuple[str, int]]:
    for above, _folders, names in os.walk(root):
        for name in names:
            path = os.path.join(above, name)
            yield os.path.relpath(path, root), os.lstat(path).st_size


def _mb(size: int) -> str:
    return f"{size / 1_000_000:.0f} MB" if size >= 10_000_000 else f"{size / 1_000_000:.1f} MB"
