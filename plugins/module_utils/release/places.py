# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What lies on the disk of a host: releases, pointers, digests. Reading is free of side effects."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from . import ids
from .ports import Host
from .request import Release, ReleaseFailure

FORMAT = 1  # raise it when the same inputs must lead to a new release
DIGEST_KEY = "/etc/flask/.digest-key"
UNITS = "/etc/systemd/system"
SERVED = ".served"  # a file in a release
ABSENT = "absent"
UNKEYED = "not digested before there is a key"
_WANTED_BY = re.compile(r"^WantedBy\s*=\s*(.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Places:
    """Paths that belong to the host and not to an app; tests put them elsewhere."""

    digest_key: str = DIGEST_KEY
    units: str = UNITS


# -- digests --------------------------------------------------------------------------------------


def digest_key(host: Host, places: Places, create: bool) -> bytes:
    """The key that whatever depends on a secret is digested with; it never leaves the host."""
    try:
        with open(places.digest_key, "rb") as file:
            return file.read()
    except FileNotFoundError:
        if not create:
            return b""
    host.step("digest key")
    partial = f"{places.digest_key}.{secrets.token_hex(8)}"
    handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(secrets.token_hex(32).encode())
        file.flush()
        os.fsync(handle)
    try:
        os.link(partial, places.digest_key)  # the first of two deploys wins
    except FileExistsError:
        pass
    finally:
        os.unlink(partial)
    with open(places.digest_key, "rb") as file:
        return file.read()


def parts(release: Release, environment: str, key: bytes) -> dict[str, str]:
    """Everything a release is made of, each as a digest that gives nothing secret away."""
    found = {
        "source": release.source.digest,
        "environment": environment,
        "python path": release.source.pythonpath or "",
        "static": _sha(json.dumps([(one.url, one.path) for one in release.static]).encode()),
    }
    for path in (*release.files, *release.unit_files):
        found[os.path.basename(path)] = _of_file(path)
    found["variables"] = _of_file(release.environment_file, key)
    if release.credentials_file:
        found["credentials"] = _of_file(release.credentials_file, key)
    return found


def total(found: dict[str, str]) -> str:
    """The digest of a release."""
    return _sha(json.dumps({"format": FORMAT, **found}, sort_keys=True).encode())


def missing_files(release: Release) -> list[str]:
    """Files that provisioning has not written yet."""
    wanted = (*release.files, release.environment_file, release.credentials_file, *release.unit_files)
    return [path for path in wanted if path and not os.path.exists(path)]


def _of_file(path: str, key: bytes | None = None) -> str:
    try:
        with open(path, "rb") as file:
            content = file.read()
    except FileNotFoundError:
        return ABSENT
    if key == b"":
        return UNKEYED
    return _sha(content) if key is None else hmac.new(key, content, hashlib.sha256).hexdigest()


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


# -- releases and pointers ------------------------------------------------------------------------


def names(release: Release) -> list[str]:
    """All complete releases, oldest first. A release gets its name when it is complete."""
    try:
        found = os.listdir(release.releases)
    except FileNotFoundError:
        return []
    return sorted(name for name in found if ids.is_id(name))


def record(release: Release, name: str) -> dict[str, Any] | None:
    """What release.json says."""
    try:
        with open(os.path.join(release.releases, name, "release.json"), encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def pointer(release: Release, name: str) -> str | None:
    """The release that ``current`` or ``previous`` names."""
    try:
        target = os.path.basename(os.readlink(os.path.join(release.home, name)))
    except OSError:
        return None
    return target if os.path.isdir(os.path.join(release.releases, target)) else None


def point(host: Host, release: Release, name: str, target: str) -> None:
    """Let ``current`` or ``previous`` name a release, atomically. The caller syncs the directory."""
    partial = os.path.join(release.home, f".{name}.partial")
    if os.path.lexists(partial):
        os.unlink(partial)
    os.symlink(f"releases/{target}", partial)
    host.step(f"point {name}")
    os.rename(partial, os.path.join(release.home, name))


def candidate(release: Release) -> dict[str, Any] | None:
    """The release that was staged last and waits for its activation; who staged it, and when."""
    try:
        with open(os.path.join(release.home, ".staged"), encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and "release" in found else None


def nominate(host: Host, release: Release, name: str | None, who: str, verb: str = "", why: str = "") -> None:
    """Remember, or forget, the release that waits for its activation; what that will be, and why."""
    path = os.path.join(release.home, ".staged")
    if name is None:
        if os.path.lexists(path):
            host.step("forget candidate")
            os.unlink(path)
        return
    waiting = {"release": name, "who": who, "at": host.now(), "verb": verb, "why": why}
    write(host, path, json.dumps(waiting).encode(), 0o600, 0)


def note_served(host: Host, release: Release, name: str) -> None:
    """Let a release be one that can be gone back to."""
    if not served(release, name):
        host.step("note served")
        open(os.path.join(release.releases, name, SERVED), "w", encoding="utf-8").close()


def served(release: Release, name: str) -> bool:
    """Whether a release has served, or was about to. Others were only ever staged."""
    return os.path.exists(os.path.join(release.releases, name, SERVED))


def discard(host: Host, release: Release, name: str) -> None:
    """Remove a release; first its name, so that what is left can never pass for a release."""
    trash = os.path.join(release.releases, f".trash-{name}")
    host.step("discard")
    os.rename(os.path.join(release.releases, name), trash)
    shutil.rmtree(trash, ignore_errors=True)


def leftovers(release: Release) -> list[str]:
    """Half-written and half-removed releases."""
    try:
        found = os.listdir(release.releases)
    except FileNotFoundError:
        return []
    return [
        os.path.join(release.releases, name) for name in found if name.startswith((".partial-", ".trash-"))
    ]


# -- start at boot --------------------------------------------------------------------------------


def boot_links(release: Release, places: Places, name: str) -> dict[str, str]:
    """The links (path → target) by which the units of a release start at boot, as their [Install] says."""
    links = {}
    for unit in release.units(name):
        template = _template(release, unit)
        try:
            with open(template, encoding="utf-8") as file:
                install = file.read().partition("[Install]")[2]
        except OSError:
            continue
        for target in " ".join(_WANTED_BY.findall(install)).split():
            links[os.path.join(places.units, f"{target}.wants", unit)] = template
    return links


def _template(release: Release, unit: str) -> str:
    suffix = unit.rpartition(".")[2]
    name = f"{release.unit}@.{suffix}"
    return next((path for path in release.unit_files if os.path.basename(path) == name), name)


def enable(host: Host, release: Release, places: Places, name: str) -> None:
    """Start a release at boot. The service manager reads these links at boot only: no reload is due."""
    for link, target in boot_links(release, places, name).items():
        if not os.path.lexists(link):
            os.makedirs(os.path.dirname(link), mode=0o755, exist_ok=True)
            host.step("enable")
            os.symlink(target, link)
            sync_directory(os.path.dirname(link))


def disable_others(host: Host, release: Release, places: Places, kept: Iterable[str]) -> None:
    """Start no release at boot but those kept."""
    stay = {unit for name in kept for unit in release.units(name)}
    folders = {os.path.dirname(link) for link in boot_links(release, places, "x")}
    for folder in folders:
        try:
            found = os.listdir(folder)
        except FileNotFoundError:
            continue
        for unit in found:
            if unit.startswith(f"{release.unit}@") and unit not in stay:
                host.step("disable")
                os.unlink(os.path.join(folder, unit))


# -- writing --------------------------------------------------------------------------------------


def write(host: Host, path: str, content: bytes, mode: int, gid: int, *, sync: bool = False) -> None:
    """Replace a file atomically; it has its final owner and mode from the start.

    With ``sync``, it is on the disk before it gets its name; the caller syncs the directory.
    """
    partial = f"{path}.partial"
    if os.path.lexists(partial):
        os.unlink(partial)
    handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            host.own(handle, gid)
            os.fchmod(handle, mode)
            if sync:
                file.flush()
                os.fsync(handle)
        host.step(f"write {os.path.basename(path)}")
        os.rename(partial, path)
    except OSError:
        os.unlink(partial)
        raise


def sync_directory(path: str) -> None:
    """Make a rename in a directory survive a loss of power."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def require_group(host: Host, release: Release) -> int:
    """The number of the app's group."""
    try:
        return host.group(release.account)
    except KeyError:
        raise ReleaseFailure(
            f"the account {release.account} does not exist; "
            "provision the host first (the role flaskworks.server.app makes it)"
        ) from None
