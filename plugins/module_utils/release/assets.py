# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Compress static files once, when a release is made, and not for each request.

Beside a file lie ``<file>.gz`` and, where the host has a program for it, ``<file>.br``. They carry the time
of the file, of which proxies make validators. What did not change since the live release is shared with it.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import zlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

GZIP, BROTLI = ".gz", ".br"
SMALLEST = 1024  # bytes; below it, the answer fits one packet anyway
LARGEST = 64 * 1024 * 1024  # bytes that are held in memory
WORTH = 0.95  # of the size; what stays above it is served as it is
AT_ONCE = 200  # files that one call of brotli takes
BROTLI_LIMIT = 120  # seconds for such a call
BROTLI_LEVEL = 9  # above it, time grows tenfold for a few percent
COMPRESSIBLE = (
    ".atom",
    ".css",
    ".csv",
    ".geojson",
    ".htm",
    ".html",
    ".ico",
    ".js",
    ".json",
    ".map",
    ".md",
    ".mjs",
    ".otf",
    ".rss",
    ".svg",
    ".ttf",
    ".txt",
    ".wasm",
    ".webmanifest",
    ".xml",
)


def compress(root: str, served: str | None) -> list[str]:
    """Write compressed copies of the files below a directory that are worth it; say which kinds there are.

    ``served`` is the same directory of the live release, when that is whole and has the same kinds.
    """
    tool = shutil.which("brotli")
    new = [path for path in _candidates(root) if not (served and _share(root, served, path))]
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        list(pool.map(_gzip, new))
    if tool:
        for begin in range(0, len(new), AT_ONCE):
            _brotli(tool, new[begin : begin + AT_ONCE])
    return kinds()


def kinds() -> list[str]:
    """The kinds of copies that this host can make."""
    return [GZIP, BROTLI] if shutil.which("brotli") else [GZIP]


def _candidates(root: str) -> Iterator[str]:
    for folder, _folders, names in os.walk(root):
        there = set(names)
        for name in names:
            path = os.path.join(folder, name)
            if not name.lower().endswith(COMPRESSIBLE) or {name + GZIP, name + BROTLI} & there:
                continue
            if SMALLEST <= os.lstat(path).st_size <= LARGEST:
                yield path


def _share(root: str, served: str, path: str) -> bool:
    """Take the copies of the live release if it has the same file, which keeps its time with its content."""
    known = os.path.join(served, os.path.relpath(path, root))
    try:
        mine, other = os.stat(path), os.stat(known)
    except FileNotFoundError:
        return False
    if (mine.st_mtime_ns, mine.st_size) != (other.st_mtime_ns, other.st_size):
        return False
    if os.path.exists(known + GZIP) and not _holds(known + GZIP, path):
        return False  # that came with the source, and holds something else
    for suffix in (GZIP, BROTLI):
        if os.path.exists(known + suffix):
            try:
                os.link(known + suffix, path + suffix)
            except OSError:
                shutil.copy2(known + suffix, path + suffix)
    return True


def _holds(packed: str, path: str) -> bool:
    """Whether a gzip file ends with the checksum and the size of a file."""
    with open(path, "rb") as file:
        content = file.read()
    with open(packed, "rb") as file:
        end = file.read()[-8:]
    return end == struct.pack("<LL", zlib.crc32(content), len(content))


def _gzip(path: str) -> None:
    with open(path, "rb") as file:
        content = file.read()
    packed = zlib.compress(content, 9, wbits=31)  # with a header of gzip, in which there is no time
    if len(packed) <= WORTH * len(content):
        with open(path + GZIP, "wb") as file:
            file.write(packed)
        _finish([path], GZIP)


def _brotli(tool: str, paths: Sequence[str]) -> None:
    """A file without such a copy is served as .gz, so nothing fails here."""
    command = [tool, f"--quality={BROTLI_LEVEL}", "--keep", "--no-copy-stat", "--", *paths]
    try:
        subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=BROTLI_LIMIT
        )
    except (OSError, subprocess.SubprocessError):
        for path in paths:
            if os.path.exists(path + BROTLI):
                os.unlink(path + BROTLI)
        return
    _finish(paths, BROTLI)


def _finish(paths: Iterable[str], suffix: str) -> None:
    for path in paths:
        if os.path.getsize(path + suffix) > WORTH * os.path.getsize(path):
            os.unlink(path + suffix)
            continue
        os.chmod(path + suffix, 0o644)
        moment = os.stat(path).st_mtime_ns
        os.utime(path + suffix, ns=(moment, moment))
