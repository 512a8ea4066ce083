# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A digested source, and its packed form.

Hosts need neither git nor any credential: they are sent a bundle, and only when they lack it.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import io
import os
import shutil
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.flaskworks.server.plugins.module_utils.tree import (
    Item,
    digest,
)

BUNDLE_LIFE = 24 * 3600  # seconds for which a bundle is kept after its last use


class SourceFailure(Exception):
    """A source that cannot be used; the text is a sentence for the operator."""


@dataclass(frozen=True)
class Entry:
    """One file or link of a tree; ``read`` gives a file's content when it is needed."""

    path: str
    executable: bool = False
    target: str | None = None
    read: Callable[[], bytes] = field(default=lambda: b"", repr=False, compare=False)


def constant(content: bytes) -> Callable[[], bytes]:
    """How to read a file whose content is known already."""
    return lambda: content


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
                forget(path.parent, "*.tar.gz", BUNDLE_LIFE)  # the rest is still uploaded
                partial = path.with_suffix(f".{os.getpid()}")
                try:
                    _pack(self, partial)
                    with partial.open("rb") as file:
                        os.fsync(file.fileno())
                    partial.rename(path)
                finally:
                    partial.unlink(missing_ok=True)
        return path


def items(entries: Iterable[Entry]) -> Iterator[Item]:
    for entry in entries:
        if entry.target is not None:
            yield Item(entry.path, "link", False, entry.target)
        else:
            yield Item(entry.path, "file", entry.executable, hashlib.sha256(entry.read()).hexdigest())


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


def forget(folder: Path, pattern: str, life: float) -> None:
    """Remove what nobody used for ``life`` seconds, a file or a directory and all below it."""
    limit = time.time() - life
    for path in folder.glob(pattern):
        with suppress(OSError):  # another worker was faster
            if path.stat().st_mtime >= limit:
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file against the other workers of this and any other run."""
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
