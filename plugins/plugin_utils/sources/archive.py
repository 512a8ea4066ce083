# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""An archive (tar, plain or compressed by gzip, bzip2 or xz, or zip), read without writing any of it.

When all of an archive is below one directory, as archives of a version usually are, that directory counts
as the top of the source. What is in an archive is taken as it is: no .gitignore leaves anything out.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import posixpath
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ansible_collections.flaskworks.server.plugins.module_utils.tree import link_target
from ansible_collections.flaskworks.server.plugins.plugin_utils.sources.base import (
    Entry,
    SourceFailure,
    constant,
)
from ansible_collections.flaskworks.server.plugins.plugin_utils.sources.download import obtain, shown

UNPACKED_LIMIT = 512 * 1024 * 1024  # bytes
FILES_LIMIT = 100_000
_STEP = 1024 * 1024
_BLOCK = 512  # bytes; a tar ends with two blocks of zeros
_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_OPENERS: dict[bytes, Any] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}
_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError, zlib.error, lzma.LZMAError, ValueError)


def read_archive(wanted: Mapping[str, Any], cache: Path) -> tuple[list[Entry], str]:
    """The entries of an archive, and its revision: the commit that `git archive` notes, or its name."""
    where = str(wanted["archive"])
    path = obtain(where, wanted.get("checksum"), "source.archive", cache)
    what = f"source.archive {shown(where)}"
    found, revision = _read(path, what)
    entries = _below(found, str(wanted.get("subdirectory") or ""), what)
    return entries, revision or path.name


def _read(path: Path, what: str) -> tuple[dict[str, Entry], str]:
    try:
        with path.open("rb") as file:
            start = file.read(2)
        if start == b"PK":
            with zipfile.ZipFile(path) as packed:
                found = dict(_zip_entries(packed, what))
                revision = packed.comment.decode("ascii", "replace").strip()
        else:
            content = _tar_content(path, what)
            with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as tar:
                found = _tar_entries(tar, what)
                revision = tar.pax_headers.get("comment", "")
                if not content[tar.offset : tar.offset + _BLOCK].startswith(bytes(_BLOCK)):
                    raise SourceFailure(f"{what} is cut off or damaged; get it again")
    except NotImplementedError as error:
        raise SourceFailure(f"{what} cannot be read: {error}; pack it as tar.gz") from error
    except _DAMAGE as error:
        raise SourceFailure(
            f"{what} is no whole tar, tar.gz, tar.bz2, tar.xz or zip ({error}); get it again"
        ) from error
    _refuse_tangles(found, what)
    return found, revision if _COMMIT.fullmatch(revision) else ""


def _tar_content(path: Path, what: str) -> bytes:
    """The plain tar, read to its end, so that a cut or damaged archive is noticed."""
    with path.open("rb") as file:
        start = file.read(6)
    opener = next((one for magic, one in _OPENERS.items() if start.startswith(magic)), open)
    content = io.BytesIO()
    with opener(path, "rb") as file:
        while piece := file.read(_STEP):
            content.write(piece)
            if content.tell() > UNPACKED_LIMIT:
                raise SourceFailure(_too_large(what))
    return content.getvalue()


def _tar_entries(tar: tarfile.TarFile, what: str) -> dict[str, Entry]:
    found: dict[str, Entry] = {}
    size = 0
    for count, member in enumerate(tar):
        if count >= FILES_LIMIT:
            raise SourceFailure(_too_many(what))
        name = _name(member.name, what)
        if not name or member.isdir():
            continue
        if member.issym():
            found[name] = Entry(name, target=link_target(member.linkname))
        elif member.islnk():
            first = found.get(_name(member.linkname, what))
            if first is None:
                raise SourceFailure(f"{what}: {name} is a hard link to {member.linkname}, which is not in it")
            found[name] = Entry(name, first.executable, first.target, first.read)
        elif member.isfile():
            size += member.size
            if size > UNPACKED_LIMIT:
                raise SourceFailure(_too_large(what))
            file = tar.extractfile(member)
            content = file.read() if file else b""
            found[name] = Entry(name, bool(member.mode & 0o100), read=constant(content))
        else:
            raise SourceFailure(f"{what}: {name} is a device or a pipe, which a source cannot hold")
    return found


def _zip_entries(packed: zipfile.ZipFile, what: str) -> Iterator[tuple[str, Entry]]:
    members = packed.infolist()
    if len(members) > FILES_LIMIT:
        raise SourceFailure(_too_many(what))
    if sum(member.file_size for member in members) > UNPACKED_LIMIT:
        raise SourceFailure(_too_large(what))
    for member in members:
        name, mode = _name(member.filename, what), member.external_attr >> 16
        if not name or member.is_dir():
            continue
        if member.flag_bits & 1:
            raise SourceFailure(f"{what}: {name} is encrypted; pack it without a password")
        if "\\" in name:
            raise SourceFailure(f"{what}: the path {name!r} has backslashes; pack it with slashes")
        with packed.open(member) as file:  # never more than was promised, whatever it unpacks to
            content = file.read(member.file_size + 1)
        if stat.S_ISLNK(mode):
            yield name, Entry(name, target=link_target(content.decode(errors="surrogateescape")))
        else:
            yield name, Entry(name, bool(mode & 0o100), read=constant(content))


def _name(path: str, what: str) -> str:
    """A member's path in one spelling; empty for the top of the archive."""
    if path.startswith("/") or ".." in path.split("/") or "\0" in path:
        raise SourceFailure(f"{what}: the path {path!r} leads out of it; pack it with relative paths")
    name = posixpath.normpath(path)
    return "" if name == "." else name


def _refuse_tangles(found: Mapping[str, Entry], what: str) -> None:
    """No file lies below another file or below a link."""
    for name in found:
        above = posixpath.dirname(name)
        while above:
            if above in found:
                raise SourceFailure(f"{what}: {name} lies below {above}, which is no directory")
            above = posixpath.dirname(above)


def _below(found: Mapping[str, Entry], subdirectory: str, what: str) -> list[Entry]:
    tops = {name.split("/", 1)[0] for name in found}
    top = f"{tops.pop()}/" if len(tops) == 1 and all("/" in name for name in found) else ""
    inner = posixpath.normpath(subdirectory).strip("/") if subdirectory else "."
    prefix = top if inner == "." else f"{top}{inner}/"
    kept = [
        Entry(name.removeprefix(prefix), entry.executable, entry.target, entry.read)
        for name, entry in found.items()
        if name.startswith(prefix)
    ]
    if found and not kept:
        raise SourceFailure(f"source.subdirectory {subdirectory} is not in {what}")
    return kept


def _too_large(what: str) -> str:
    return f"{what} unpacks to more than {UNPACKED_LIMIT // 1024**2} MiB; a source holds code, not data"


def _too_many(what: str) -> str:
    return f"{what} holds more than {FILES_LIMIT} files; a source holds code, not data"
