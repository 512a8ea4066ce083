# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Build a virtual environment under the hash of what goes into it.

An environment is built in its final place, because the scripts of a virtual environment carry its path.
A marker written last says that it is whole; a directory without the marker is what an interrupted build
left behind, and is built again. A whole environment is never changed.

The lock of a build is inherited by the tool that installs: when the module is killed, the orphaned tool
keeps the lock until it ends, so the next build cannot remove the directory under its feet.
"""

from __future__ import annotations

import fcntl
import glob
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

FORMAT = 1  # raise it when the same inputs must lead to a new environment
MARKER = ".complete"
UV = "/usr/local/lib/flaskworks/uv/bin/uv"
UV_CACHE = "/var/cache/flaskworks/uv"
BUILD_LIMIT = 1800  # seconds that one step of a build may take
HEAD, TAIL = 5, 10  # lines of a tool's output that an error shows, from its beginning and its end

_IDENTITY = (
    "import json,platform,sys,sysconfig;print(json.dumps({"
    "'implementation':sys.implementation.name,"
    "'version':platform.python_version(),"
    "'abi':sysconfig.get_config_var('SOABI') or sys.implementation.cache_tag,"
    "'platform':sysconfig.get_platform(),"
    "'libc':'-'.join(platform.libc_ver())}))"
)
_CONTINUED = re.compile(r"[ \t]*\\\r?\n[ \t]*")
_COMMENT = re.compile(r"(^|\s)#.*$")
_SERVER = re.compile(r"^\s*(?P<name>[A-Za-z0-9._-]+)\s*(\[(?P<extras>[^\]]*)\])?")


class EnvironmentFailure(Exception):
    """A build that cannot go on; the text is a sentence for the operator."""


@dataclass(frozen=True)
class Wheel:
    """A wheel that is installed besides the requirements; ``file`` is its path on this host."""

    name: str
    sha256: str
    file: str | None = None


@dataclass(frozen=True)
class Wanted:
    """What an environment shall hold.

    ``requirements`` is the text of a requirements file, ``origin`` what the operator calls that file,
    ``server`` a requirement installed when the rest does not bring it.
    """

    interpreter: str
    requirements: str = ""
    origin: str = "the requirements"
    wheels: tuple[Wheel, ...] = ()
    server: str | None = None
    group: str | None = None


@dataclass(frozen=True)
class Result:
    """Where an environment is, and what it took to have it there."""

    path: str
    hash: str
    changed: bool
    builder: str
    seconds: float


Run = Callable[..., "subprocess.CompletedProcess[str]"]


def run_command(argv: Sequence[str], **options: object) -> subprocess.CompletedProcess[str]:
    """Run a command without a shell; output and errors come back together."""
    settings: dict[str, object] = {
        "stdin": subprocess.DEVNULL,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.STDOUT,
        "text": True,
        "errors": "replace",
    }
    settings.update(options)
    # mypy cannot match a dictionary of settings with the overloads of run(); text=True makes the answer str.
    return subprocess.run(list(argv), check=False, **settings)  # type: ignore[call-overload,no-any-return]


def requirement_lines(text: str) -> list[str]:
    """The logical lines of a requirements file: comments gone, continued lines joined."""
    joined = _CONTINUED.sub(" ", text.replace("\r\n", "\n"))
    stripped = (_COMMENT.sub("", line).strip() for line in joined.split("\n"))
    return [re.sub(r"[ \t]+", " ", line) for line in stripped if line]


def uses_hashes(text: str, origin: str = "the requirements") -> bool:
    """Whether every requirement is pinned by hashes; refuses a file where only some are."""
    lines = [line for line in requirement_lines(text) if not line.startswith("-")]
    without = [line for line in lines if "--hash=" not in line]
    if not without:
        return bool(lines)
    if len(without) == len(lines):
        return "--require-hashes" in requirement_lines(text)
    shown = ", ".join(line.split(" ")[0] for line in without[:5])
    raise EnvironmentFailure(
        f"{origin} has hashes for some requirements but not for {shown}"
        f"{' and others' if len(without) > 5 else ''}; "
        "compile it again so that all of them have hashes, or none"
    )


def identity(interpreter: str, run: Run = run_command) -> dict[str, str]:
    """Real version, ABI and platform of an interpreter."""
    if os.path.realpath(interpreter) == os.path.realpath(sys.executable) and sys.prefix == sys.base_prefix:
        return _own_identity()
    try:
        done = run([interpreter, "-I", "-c", _IDENTITY], env=_environment())
    except OSError as error:
        raise EnvironmentFailure(
            f"the interpreter {interpreter} cannot be run ({error.strerror}); "
            "run the role flaskworks.server.python first, or name another interpreter"
        ) from error
    try:
        found: dict[str, str] = json.loads(done.stdout)
    except ValueError:
        raise EnvironmentFailure(
            f"{interpreter} is not a usable Python interpreter; it answered: {done.stdout.strip()[-300:]}"
        ) from None
    return found


def _own_identity() -> dict[str, str]:
    import platform
    import sysconfig

    return {
        "implementation": sys.implementation.name,
        "version": platform.python_version(),
        "abi": str(sysconfig.get_config_var("SOABI") or sys.implementation.cache_tag),
        "platform": sysconfig.get_platform(),
        "libc": "-".join(platform.libc_ver()),
    }


def content_hash(wanted: Wanted, interpreter: Mapping[str, str]) -> str:
    """The name of an environment: a hash of everything that decides what is in it."""
    inputs = {
        "format": FORMAT,
        "interpreter": {"path": wanted.interpreter, **interpreter},
        "requirements": requirement_lines(wanted.requirements),
        "wheels": sorted(wheel.sha256 for wheel in wanted.wheels),
        "server": wanted.server or "",
    }
    text = json.dumps(inputs, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def marker(path: str) -> dict[str, object] | None:
    """What the marker of a whole environment says; None when there is no whole environment."""
    try:
        with open(os.path.join(path, MARKER), encoding="utf-8") as handle:
            found = json.load(handle)
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def is_complete(path: str) -> bool:
    """Whether a whole environment is there."""
    return marker(path) is not None and os.path.exists(os.path.join(path, "bin", "python"))


def find_uv() -> str | None:
    """The uv of role python, else one on PATH, else None."""
    return UV if os.access(UV, os.X_OK) else shutil.which("uv")


def build(
    path: str,
    wanted: Wanted,
    name: str,
    *,
    run: Run = run_command,
    uv: str | None = None,
    lock_wait: float = 900,
    gid: int = -1,
) -> Result:
    """Build the environment ``name`` (its hash) at ``path`` unless it is whole already."""
    begin = time.monotonic()
    hashes = uses_hashes(wanted.requirements, wanted.origin)
    folder = os.path.dirname(path)
    os.makedirs(folder, mode=0o755, exist_ok=True)
    lock = _lock(os.path.join(folder, f".{os.path.basename(path)}.lock"), lock_wait, path)
    try:
        known = marker(path)
        if known is not None and is_complete(path):
            return Result(path, name, False, str(known.get("builder", "")), 0.0)
        if os.path.lexists(path):
            shutil.rmtree(path)
        os.mkdir(path, 0o750)
        try:
            builder = _install(path, wanted, hashes, run, uv or find_uv(), lock)
            os.chown(path, -1, gid)
            os.chmod(path, 0o750)
            seconds = round(time.monotonic() - begin, 2)
            _write_marker(
                path, {"hash": name, "origin": wanted.origin, "builder": builder, "seconds": seconds}
            )
        except (EnvironmentFailure, OSError):
            shutil.rmtree(path, ignore_errors=True)
            raise
        return Result(path, name, True, builder, seconds)
    finally:
        os.close(lock)


def remove(path: str) -> None:
    """Remove an environment that nothing uses; what is left of it can never pass for a whole one."""
    os.unlink(os.path.join(path, MARKER))
    shutil.rmtree(path, ignore_errors=True)


def _install(path: str, wanted: Wanted, hashes: bool, run: Run, uv: str | None, lock: int) -> str:
    python = os.path.join(path, "bin", "python")
    settings = _environment()
    if uv:
        builder = "uv"
        settings.update(
            UV_PYTHON_DOWNLOADS="never",
            UV_CACHE_DIR=UV_CACHE,
            UV_LINK_MODE="hardlink",
            UV_NATIVE_TLS="1",  # trust what the system trusts
            UV_SYSTEM_CERTS="1",  # the same, as newer versions spell it
            UV_NO_PROGRESS="1",
        )
        os.makedirs(UV_CACHE, exist_ok=True)
        os.chmod(UV_CACHE, 0o700)  # it may hold a private wheel; environments share its files all the same
        create = [
            uv,
            "venv",
            "--quiet",
            "--no-project",
            "--allow-existing",
            "--python",
            wanted.interpreter,
            path,
        ]
        install = [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", python]
    else:
        builder = "pip"
        create = [wanted.interpreter, "-m", "venv", path]
        install = [python, "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"]

    def step(argv: Sequence[str], what: str) -> None:
        try:
            done = run(argv, env=settings, cwd=path, umask=0o022, pass_fds=(lock,), timeout=BUILD_LIMIT)
        except OSError as error:
            raise EnvironmentFailure(
                f"{what}: {argv[0]} cannot be run ({error.strerror}); "
                "run the role flaskworks.server.python first"
            ) from error
        except subprocess.TimeoutExpired as error:
            raise EnvironmentFailure(f"{what}: {argv[0]} had not finished after {BUILD_LIMIT} s") from error
        if done.returncode:
            told = "\n".join(f"    {line}" for line in excerpt(done.stdout)) or "    (it said nothing)"
            raise EnvironmentFailure(
                f"{what}: {builder} ended with {done.returncode}:\n{told}\n{_way_out(done.stdout)}"
            )

    step(create, f"cannot create a virtual environment with {wanted.interpreter}")
    lines = requirement_lines(wanted.requirements)
    if lines:
        listing = os.path.join(path, "requirements.txt")
        _write_private(listing, "\n".join(lines) + "\n")
        extra = ["--require-hashes"] if hashes else []
        step([*install, *extra, "-r", listing], f"cannot install {wanted.origin}")
    for wheel in wanted.wheels:
        step([*install, str(wheel.file)], f"cannot install {wheel.name}")
    if wanted.server and not _has_server(path, wanted.server):
        step(
            [*install, wanted.server], f"cannot install {wanted.server}, which {wanted.origin} does not bring"
        )
    lock_file = os.path.join(path, ".lock")
    if os.path.exists(lock_file):
        os.unlink(lock_file)  # uv's own, for changes in place, and writable for everybody
    return builder


def excerpt(output: str) -> list[str]:
    """The beginning and the end of a tool's output: what failed often stands above a long list of hashes."""
    lines = [line for line in output.splitlines() if line.strip()]
    if len(lines) <= HEAD + TAIL:
        return lines
    return [*lines[:HEAD], "…", *lines[-TAIL:]]


def _way_out(output: str) -> str:
    if re.search(r"no space left|quota exceeded", output, re.IGNORECASE):
        return "The disk is full: free some room and run again; nothing that runs was touched."
    if "hash" in output.lower() and ("mismatch" in output.lower() or "--require-hashes" in output):
        return "Compile the lock again with hashes for every requirement and its dependencies."
    if re.search(r"dns|connect|timed out|temporary failure|unreachable|certificate", output, re.IGNORECASE):
        return "This host could not reach the package index: check its network, proxy and certificates."
    if re.search(r"gcc|build|compil|Python\.h|metadata-generation", output):
        return (
            "A package had to be built from source: pin a version that has a wheel for this interpreter, "
            "or add what it needs to python_packages."
        )
    if "ensurepip" in output:
        return "Run the role flaskworks.server.python first: it installs what virtual environments need."
    return "Correct the requirement that is named above; nothing that runs was touched."


def _has_server(path: str, requirement: str) -> bool:
    match = _SERVER.match(requirement)
    if match is None:
        return False
    names = [match["name"], *(extra.strip() for extra in (match["extras"] or "").split(",") if extra.strip())]
    return all(installed(path, name) for name in names)


def installed(path: str, name: str) -> bool:
    """Whether a distribution of that name is installed in an environment."""
    wanted = re.sub(r"[-_.]+", "_", name).lower()
    for found in glob.glob(
        os.path.join(glob.escape(path), "lib", "python3*", "site-packages", "*.dist-info")
    ):
        distribution = os.path.basename(found).split("-")[0]
        if re.sub(r"[-_.]+", "_", distribution).lower() == wanted:
            return True
    return False


def _environment() -> dict[str, str]:
    dropped = (
        "VIRTUAL_ENV",
        "PYTHONPATH",
        "PYTHONHOME",
        "PYTHONSTARTUP",
        "PIP_TARGET",
        "PIP_PREFIX",
        "PIP_USER",
    )
    kept = {key: value for key, value in os.environ.items() if key not in dropped}
    kept.update(LC_ALL="C.UTF-8", PIP_NO_INPUT="1", PIP_CACHE_DIR="/var/cache/flaskworks/pip", NO_COLOR="1")
    return kept


def _lock(path: str, wait: float, subject: str) -> int:
    """Hold a lock file; a lock whose holder is gone is free at once."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    limit = time.monotonic() + wait
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return handle
        except BlockingIOError:
            if time.monotonic() >= limit:
                os.close(handle)
                raise EnvironmentFailure(
                    f"another build of {subject} runs for more than {wait:.0f} s; wait for it to end"
                ) from None
            time.sleep(0.1)


def _write_private(path: str, text: str) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)


def _write_marker(path: str, content: Mapping[str, object]) -> None:
    """Say that the environment is whole, after everything in it has reached the disk."""
    os.sync()
    partial = os.path.join(path, MARKER + ".partial")
    with open(partial, "w", encoding="utf-8") as handle:
        json.dump(content, handle, sort_keys=True)
        handle.flush()
        os.fsync(handle.fileno())
    os.rename(partial, os.path.join(path, MARKER))
