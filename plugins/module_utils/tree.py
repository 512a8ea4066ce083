# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The digest of a source tree, computed the same way on the controller and on the host.

What counts: the path of every file and link, whether a file is executable, its content, and where a
link points. What does not: owners, times, other mode bits, empty directories and Python's own bytecode.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

BYTECODE_DIRECTORY = "__pycache__"
BYTECODE_SUFFIXES = (".pyc", ".pyo")


@dataclass(frozen=True)
class Item:
    """One file (``content`` is its SHA-256) or one link (``content`` is its target)."""

    path: str
    kind: str
    executable: bool
    content: str


def is_bytecode(path: str) -> bool:
    """Whether Python writes this file by itself; such files are compiled on the host instead."""
    return path.endswith(BYTECODE_SUFFIXES) or BYTECODE_DIRECTORY in path.split("/")


def digest(items: Iterable[Item]) -> str:
    """SHA-256 (hexadecimal) over all items, whatever order they come in."""
    total = hashlib.sha256()
    for item in sorted(items, key=lambda one: os.fsencode(one.path)):
        line = f"{item.kind}\0{'x' if item.executable else '-'}\0{item.path}\0{item.content}\n"
        total.update(os.fsencode(line))
    return total.hexdigest()


def file_digest(path: str) -> str:
    """SHA-256 (hexadecimal) of one file's content."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def walk(root: str) -> Iterator[Item]:
    """Yield every file and link below a directory, bytecode left out."""
    for folder, names, files in os.walk(root):
        names[:] = [name for name in names if name != BYTECODE_DIRECTORY]
        links = [name for name in names if os.path.islink(os.path.join(folder, name))]
        for name in files + links:
            path = os.path.join(folder, name)
            relative = os.path.relpath(path, root)
            if is_bytecode(relative):
                continue
            if os.path.islink(path):
                yield Item(relative, "link", False, link_target(os.readlink(path)))
            else:
                executable = bool(os.stat(path).st_mode & 0o100)
                yield Item(relative, "file", executable, file_digest(path))


def link_target(target: str) -> str:
    """Where a link points, as tarfile writes it: newer ones leave out what a path does not need."""
    return os.path.normpath(target)


def landing(path: str, links: Mapping[str, str]) -> str | None:
    """Where a path of a tree leads when every link on the way is followed; None when it leaves the tree.

    A path that goes in circles lands on one of the links.
    """
    done: list[str] = []
    todo = path.split("/")[::-1]
    left = 40  # links that the kernel follows, too
    while todo:
        part = todo.pop()
        if part == "..":
            if not done:
                return None
            done.pop()
        elif part not in ("", "."):
            done.append(part)
            target = links.get("/".join(done))
            if target is not None and target.startswith("/"):
                return None
            if target is not None and left:
                left -= 1
                done.pop()
                todo += target.split("/")[::-1]
    return "/".join(done)


def escape(folder: str, root: str) -> str | None:
    """The first link on the disk below ``folder`` that leads out of ``root``, if there is one."""
    inside = os.path.realpath(root) + os.sep
    for above, names, files in os.walk(folder):
        for name in (*names, *files):
            path = os.path.join(above, name)
            if os.path.islink(path) and not (os.path.realpath(path) + os.sep).startswith(inside):
                return os.path.relpath(path, folder)
    return None
