# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One wheel: a file, or a version of a package that pip finds in an index.

An index is asked by the controller's pip, so its settings, certificates and logins hold here, too. A version
that was fetched is not asked for again: indexes do not replace what they have published. Only a directory of
packages is looked at in every run, since files there are replaced freely.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from email.parser import HeaderParser
from pathlib import Path
from typing import Any

from ansible_collections.flaskworks.server.plugins.plugin_utils.runs import once
from ansible_collections.flaskworks.server.plugins.plugin_utils.sources.base import (
    SourceFailure,
    forget,
    locked,
)
from ansible_collections.flaskworks.server.plugins.plugin_utils.sources.download import (
    FILE_LIFE,
    compare,
    file_sha256,
    is_url,
    obtain,
    shown,
)

PIP_TIME = 600  # seconds that one command of pip may take
TAIL = 12  # lines of pip's output that an error shows
# A wheel for any platform, since the controller's need not be that of the hosts.
_ANY_PLATFORM = [
    *["--only-binary", ":all:", "--platform", "any", "--abi", "none", "--implementation", "py"],
    *["--python-version", "3.13", "--ignore-requires-python"],  # the host's tool knows the host's version
]
_UNREACHABLE = re.compile(
    r"Retrying \(|NewConnectionError|ConnectTimeout|ProxyError|CERTIFICATE_VERIFY|Max retries exceeded|"
    r"\b(401|403|407|5\d\d) (Client|Server) Error|HTTP error (401|403|407|5\d\d)",
    re.IGNORECASE,
)


def read_package(wanted: Mapping[str, Any], cache: Path) -> tuple[Path, str]:
    """The path of the wheel on the controller, and the digest that names its content.

    A wheel that was built here is named by the digest of what it was built from: two builds of one source
    may differ in a few bytes, and that is no reason for a new release.
    """
    package, checksum = str(wanted["package"]), wanted.get("checksum")
    if package.endswith(".whl"):
        path = obtain(package, checksum, "source.package", cache)
        _check(path, None)
        return path, file_sha256(path)
    name, _, version = package.partition("==")
    index = str(wanted.get("index") or "")
    key = json.dumps(["package", index, _normal(name), version])
    found = json.loads(once(cache, key, lambda: _from_index(key, package, index, cache)))
    if checksum:
        compare(found["digest"], checksum.partition(":")[2].lower(), f"source.package {package}")
    return Path(found["wheel"]), str(found["digest"])


def _from_index(key: str, package: str, index: str, cache: Path) -> str:
    """Where the wheel is and what names it, as JSON."""
    store = cache / "packages"
    store.mkdir(parents=True, exist_ok=True, mode=0o700)
    name = re.sub(r"[^a-z0-9.]+", "-", package.lower())
    folder = store / f"{name}-{_short(key)}"
    with locked(store / f"{folder.name}.lock"):
        known = _known(folder)
        if known and (is_url(index) or not index):
            return json.dumps(known)
        for unused in ("*/", "*/*/"):  # a package, and what a directory of packages had before
            forget(store, unused, FILE_LIFE)
        with tempfile.TemporaryDirectory(dir=store, prefix=".") as work:
            file = _download(package, index, Path(work), cache)
            digest = file_sha256(file)
            if known and known["digest"] == digest:
                return json.dumps(known)
            wheel = file if file.suffix == ".whl" else _build(file, package, index, Path(work), cache)
            _check(wheel, package.partition("==")[0])
            (folder / digest).mkdir(parents=True, exist_ok=True)
            kept = wheel.replace(folder / digest / wheel.name)
        record = {"digest": digest, "wheel": str(kept), "sha256": file_sha256(kept)}
        partial = folder / ".partial"
        partial.write_text(json.dumps(record), encoding="utf-8")
        partial.rename(folder / "record.json")
    return json.dumps(record)


def _known(folder: Path) -> dict[str, str] | None:
    """What was fetched before, when it still is what it was."""
    try:
        record: dict[str, str] = json.loads((folder / "record.json").read_text(encoding="utf-8"))
        if file_sha256(Path(record["wheel"])) != record["sha256"]:
            return None
        for used in (folder, Path(record["wheel"]).parent):
            os.utime(used)
    except (OSError, ValueError, KeyError):
        return None
    return record


def _download(package: str, index: str, work: Path, cache: Path) -> Path:
    """The wheel that fits everywhere or, without one, the source distribution."""
    target = work / "found"
    common = ["download", "--no-deps", "--dest", str(target), package]
    code, told = _pip([*common, *_ANY_PLATFORM], index, work, cache)
    if code and not _UNREACHABLE.search(told):
        sources = ["--no-binary", package.partition("==")[0], "--ignore-requires-python"]
        code, told = _pip([*common, *sources], index, work, cache)
    if code:
        where = shown(index) if is_url(index) else index or "the index of the controller's pip"
        if _UNREACHABLE.search(told):
            way_out = "The controller cannot reach it: see its network, proxy, certificates and login."
        elif "No matching distribution" in told:
            way_out = (
                "Correct source.package. A package that has only wheels for single platforms "
                "is deployed by its path: give the wheel that fits the hosts."
            )
        else:
            way_out = "Correct the package, or give a wheel of it."
        raise SourceFailure(f"cannot get {package} from {where}:\n{_tail(told)}\n{way_out}")
    return next(target.iterdir())


def _build(source: Path, package: str, index: str, work: Path, cache: Path) -> Path:
    """The wheel of a source distribution, which runs the code that the distribution builds itself with."""
    target = work / "built"
    arguments = ["wheel", "--no-deps", "--ignore-requires-python", "--wheel-dir", str(target), str(source)]
    code, told = _pip(arguments, index, work, cache)
    if code:
        raise SourceFailure(
            f"{package} has no wheel and cannot be built from {source.name} on the controller:\n"
            f"{_tail(told)}\nBuild a wheel of it yourself and give its path."
        )
    wheel = next(target.iterdir())
    if not wheel.name.endswith("-none-any.whl"):
        raise SourceFailure(
            f"{package} has no wheel and builds into one for the controller's platform ({wheel.name}); "
            "build it where it fits the hosts and give its path"
        )
    return wheel


def _pip(arguments: Sequence[str], index: str, work: Path, cache: Path) -> tuple[int, str]:
    """Run pip; its status and its words."""
    empty = work / "empty"
    empty.mkdir(exist_ok=True)
    settings = {
        **os.environ,
        "LC_ALL": "C.UTF-8",
        "NO_COLOR": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_INPUT": "1",
        "PIP_QUIET": "1",
        "PIP_REQUIRE_VIRTUALENV": "0",  # nothing is installed
        "SOURCE_DATE_EPOCH": "315532800",  # the first moment that a zip can hold: builds come out alike
    }
    # An index that was named is the only one, whatever pip is set to: another could have the same name.
    if is_url(index):
        settings.update(
            PIP_INDEX_URL=index, PIP_EXTRA_INDEX_URL=index, PIP_FIND_LINKS=str(empty), PIP_NO_INDEX="0"
        )
    elif index:
        settings.update(PIP_FIND_LINKS=str(Path(index).expanduser()), PIP_NO_INDEX="1")
    try:
        done = subprocess.run(
            [*_pip_command(cache), *arguments],
            cwd=work,
            env=settings,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=PIP_TIME,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise SourceFailure(f"pip {arguments[0]} had not finished after {PIP_TIME} s") from None
    return done.returncode, done.stdout.decode(errors="replace")


def _pip_command(cache: Path) -> list[str]:
    """The controller's pip: Ansible's own, the one on PATH, or one in an environment made for this."""
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    found = shutil.which("pip3") or shutil.which("pip")
    if found:
        return [found]
    own = cache / "pip" / f"{sys.version_info.major}.{sys.version_info.minor}"
    own.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with locked(own.with_suffix(".lock")):
        python = own / "bin" / "python"
        complete = own / ".complete"
        if not (complete.exists() and python.exists()):
            done = subprocess.run(
                [sys.executable, "-m", "venv", "--clear", str(own)], capture_output=True, check=False
            )
            if done.returncode:
                raise SourceFailure(
                    "pip is missing on the controller; packages are fetched with it: install pip"
                )
            complete.touch()
    return [str(python), "-m", "pip"]


def _check(path: Path, name: str | None) -> None:
    """Refuse what is no wheel, or the wheel of another package."""
    try:
        with zipfile.ZipFile(path) as wheel:
            listed = [one for one in wheel.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", one)]
            text = wheel.read(listed[0]).decode(errors="replace") if listed else ""
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        raise SourceFailure(f"{path.name} is no wheel: {error}") from error
    found = HeaderParser().parsestr(text)["Name"] or ""
    for wanted in (path.name.split("-")[0], name):
        if wanted is not None and _normal(found) != _normal(wanted):
            raise SourceFailure(
                f"{path.name} holds {f'the package {found}' if found else 'no package'}, not {wanted}; "
                "correct source.package"
            )


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def _tail(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip() and "[notice]" not in line][-TAIL:]
    return "\n".join(f"    {line}" for line in lines) or "    (pip said nothing)"
