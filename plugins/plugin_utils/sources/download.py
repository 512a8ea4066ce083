# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Files with a known digest: from the controller's disk, from its cache, or from a web server."""

from __future__ import annotations

import base64
import hashlib
import http.client
import netrc
import os
import posixpath
import re
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import IO, Any

from ansible_collections.flaskworks.server.plugins.plugin_utils.sources.base import (
    SourceFailure,
    forget,
    locked,
)

FILE_LIMIT = 512 * 1024 * 1024  # bytes that an archive or a wheel may have
SILENCE = 30  # seconds for which a server may be silent
FILE_LIFE = 30 * 24 * 3600  # seconds for which a downloaded file is kept after its last use
_STEP = 256 * 1024


def is_url(text: str) -> bool:
    """Whether a text is the address of a file on a web server."""
    return bool(re.match(r"(?i)https?://", text))


def obtain(where: str, checksum: str | None, key: str, cache: Path) -> Path:
    """The path of a file whose content is what ``checksum`` says.

    Args:
        where: a path, or an address, which needs a checksum.
        checksum: ``sha256:`` and 64 hexadecimal digits, or None.
        key: what the operator calls this, as in ``source.archive``.
        cache: a file that was downloaded is kept there by its digest, and not asked for again.
    """
    wanted = checksum.partition(":")[2].lower() if checksum else ""
    if is_url(where):
        if not wanted:
            raise SourceFailure(f"{key} {where} has no checksum; give it in source.checksum (sha256:…)")
        return _downloaded(where, wanted, key, cache)
    path = Path(where).expanduser()
    if not path.is_file():
        raise SourceFailure(f"{key} {path} is no file on the controller; correct the path")
    if path.stat().st_size > FILE_LIMIT:
        raise SourceFailure(_too_large(f"{key} {path}"))
    if wanted:
        compare(file_sha256(path), wanted, f"{key} {path}")
    return path


def file_sha256(path: Path) -> str:
    """SHA-256 (hexadecimal) of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def shown(address: str) -> str:
    """An address without what may be secret in it: name and password, and what follows the path."""
    parts = urllib.parse.urlsplit(address)
    return urllib.parse.urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _downloaded(address: str, wanted: str, key: str, cache: Path) -> Path:
    folder = cache / "files"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    name = urllib.parse.unquote(posixpath.basename(urllib.parse.urlsplit(address).path))
    path = folder / wanted / (re.sub(r"[^A-Za-z0-9._+!-]", "_", name).lstrip(".") or "file")
    with locked(folder / f"{wanted}.lock"):
        if path.is_file() and file_sha256(path) == wanted:
            os.utime(path)
            return path
        forget(folder, "*/*", FILE_LIFE)
        path.parent.mkdir(exist_ok=True, mode=0o700)
        partial = path.with_name(".partial")
        try:
            compare(_fetch(address, key, partial), wanted, f"{key} {shown(address)}")
            partial.rename(path)
        finally:
            partial.unlink(missing_ok=True)
    return path


def _fetch(address: str, key: str, target: Path) -> str:
    """Write what a server sends, and return its SHA-256."""
    request = urllib.request.Request(address, headers={"User-Agent": "flaskworks.server"})
    login = _login(urllib.parse.urlsplit(address).hostname or "")
    if login:
        request.add_unredirected_header("Authorization", login)
    hint = f"{key} {shown(address)} cannot be fetched by the controller"
    try:
        with urllib.request.urlopen(request, timeout=SILENCE) as answer, target.open("wb") as file:
            return _copy(answer, file, f"{key} {shown(address)}")
    except urllib.error.HTTPError as error:
        raise SourceFailure(f"{hint}: the server answered {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        raise SourceFailure(f"{hint}: {error.reason}; see its network, proxy and certificates") from error
    except (http.client.HTTPException, ConnectionError, TimeoutError) as error:
        raise SourceFailure(f"{hint}: it ended early ({str(error) or type(error).__name__})") from error


def _copy(answer: Any, file: IO[bytes], what: str) -> str:
    total, received = hashlib.sha256(), 0
    while piece := answer.read(_STEP):
        received += len(piece)
        if received > FILE_LIMIT:
            raise SourceFailure(_too_large(what))
        total.update(piece)
        file.write(piece)
    promised = answer.headers.get("Content-Length", "")
    if promised.isdecimal() and int(promised) != received:
        raise SourceFailure(f"{what} ended after {received} of {promised} bytes; run again")
    return total.hexdigest()


def _login(host: str) -> str:
    """What the controller's .netrc has for a server, as a header; empty when it has nothing."""
    try:
        known = netrc.netrc(os.environ.get("NETRC")).authenticators(host)
    except (OSError, netrc.NetrcParseError):
        return ""
    if known is None:
        return ""
    return "Basic " + base64.b64encode(f"{known[0]}:{known[2]}".encode()).decode()


def compare(found: str, wanted: str, what: str) -> None:
    """Refuse a file with another SHA-256 than the one that was given."""
    if found != wanted:
        raise SourceFailure(
            f"{what} is not the file that source.checksum means: it has sha256:{found}, not sha256:{wanted}; "
            "find out why before you correct the checksum"
        )


def _too_large(what: str) -> str:
    return f"{what} is larger than {FILE_LIMIT // 1024**2} MiB; a source holds code, not data"
