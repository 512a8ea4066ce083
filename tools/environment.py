"""The controller's virtual environment, .venv: made by uv from requirements.txt, remade when that changes."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tools.steps import ROOT, STATE, Stop, apt_install, capture, is_root, run_logged

VENV = ROOT / ".venv"
REQUIREMENTS = ROOT / "requirements.txt"
AUDITORS = STATE / "auditors"
"""The auditors of `make audit` have an environment of their own: nobody else needs what they bring."""

AUDITORS_PINS = ROOT / "tools" / "auditors.txt"
SYSTEM_AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
UV_PIN = ROOT / "roles" / "python" / "files" / "uv.txt"
"""The pin of the role python, which installs the same uv on the hosts."""

NEWEST = 14
"""Newest minor version of Python 3 that ansible-core 2.21 runs on; the oldest is 11 (ansible-core 2.19)."""

_NAME = re.compile(r"python3\.(\d+)$")

_SETTINGS = """
# Written by `make env`: state of Ansible and Molecule stays inside this clone.
ANSIBLE_HOME='{root}/.ansible'
MOLECULE_GLOB='molecule/*/molecule.yml'
export ANSIBLE_HOME MOLECULE_GLOB
"""


def variables() -> dict[str, str]:
    """Return what a program of the environment needs, the same that bin/activate sets."""
    return {
        "PATH": f"{VENV / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "VIRTUAL_ENV": str(VENV),
        "ANSIBLE_HOME": str(ROOT / ".ansible"),
        "MOLECULE_GLOB": "molecule/*/molecule.yml",
        "MOLECULE_COMMAND_BORDERS": "0",
    }


def _trust() -> dict[str, str]:
    """Let uv and pip trust what this machine trusts: their own lists know nothing of a company's proxy."""
    if not SYSTEM_AUTHORITIES.exists():
        return {}
    wanted = {"UV_SYSTEM_CERTS": "1", "UV_NATIVE_TLS": "1", "PIP_CERT": str(SYSTEM_AUTHORITIES)}
    return {name: os.environ.get(name, value) for name, value in wanted.items()}


def ready(venv: Path = VENV, requirements: Path = REQUIREMENTS) -> bool:
    """Whether the environment is complete and made from the present pins."""
    stamp = venv / ".made-from"
    return stamp.is_file() and stamp.read_text() == _wanted(requirements) and (venv / "bin/python").exists()


def make(log: Path, venv: Path = VENV, requirements: Path = REQUIREMENTS) -> None:
    """Make the environment if it is missing, incomplete or made from other pins."""
    if ready(venv, requirements):
        return
    with _locked():
        if ready(venv, requirements):
            return
        uv = _uv(log)
        python = interpreter()
        run_logged([uv, "venv", "--quiet", "--no-project", "--clear", "--python", python, str(venv)], log)
        # One file for every Python: the markers in it choose between ansible-core 2.19 and 2.21.
        run_logged(
            [
                *[uv, "pip", "install", "--quiet", "--python", str(venv / "bin" / "python")],
                *["--require-hashes", "--requirement", str(requirements)],
            ],
            log,
            env=_trust(),
        )
        # uv compiles nothing, and where PYTHONDONTWRITEBYTECODE is set nothing else does: then each run of
        # ansible-playbook begins 0.9 s later. Ansible loads collections without bytecode in any case.
        compiled = [
            str(venv / "bin" / "python"),
            "-m",
            "compileall",
            "-q",
            "-j",
            "0",
            "-x",
            "ansible_collections",
        ]
        run_logged([*compiled, str(venv / "lib")], log)
        with (venv / "bin" / "activate").open("a") as activate:
            activate.write(_SETTINGS.format(root=ROOT))
        (venv / ".made-from").write_text(_wanted(requirements))


def auditors(log: Path) -> None:
    """Make the environment of the auditors that are Python packages."""
    make(log, AUDITORS, AUDITORS_PINS)


def pins(log: Path) -> None:
    """Compile what is pinned anew: requirements.in, the auditors and uv. No index address is written."""
    uv = _uv(log)
    common = [
        *[uv, "pip", "compile", "--quiet", "--upgrade", "--universal", "--python-version", "3.11"],
        *["--generate-hashes", "--no-emit-index-url", "--no-emit-find-links", "--no-header"],
    ]
    for pinned in (REQUIREMENTS, AUDITORS_PINS):
        wishes, into = (str(path.relative_to(ROOT)) for path in (pinned.with_suffix(".in"), pinned))
        run_logged([*common, wishes, "--output-file", into], log, env=_trust())
    wish = STATE / "uv.in"
    wish.write_text("uv\n")
    run_logged([*common, "--no-annotate", str(wish), "--output-file", str(UV_PIN)], log, env=_trust())
    for pinned in (REQUIREMENTS, AUDITORS_PINS, UV_PIN):
        if re.search(r"^--|://", pinned.read_text(), re.MULTILINE):
            raise Stop(
                f"{pinned.name} names an index or a link; unset the package index settings and try again"
            )


def interpreter() -> str:
    """Return the path of the newest usable Python: 3.11 at least, 3.12 and newer preferred."""
    found: dict[int, str] = {sys.version_info.minor: sys.executable}
    for directory in _directories():
        if not directory.is_dir():
            continue
        for entry in sorted(directory.glob("python3.*")):
            match = _NAME.search(entry.name)
            if match and int(match[1]) not in found:
                found[int(match[1])] = str(entry)
    for minor in sorted(found, reverse=True):
        # A shim of a version manager may be there and yet refuse; one without ssl or venv is of no use.
        if 11 <= minor <= NEWEST and capture([found[minor], "-c", "import ssl, sqlite3, venv"])[0] == 0:
            return found[minor]
    raise Stop("No Python between 3.11 and 3.14 was found; install one (Debian 12: apt-get install python3)")


def _directories() -> list[Path]:
    home = Path.home()
    pyenv = Path(os.environ.get("PYENV_ROOT", home / ".pyenv"))
    managed = [
        *sorted(pyenv.glob("versions/3.*/bin"), reverse=True),
        *sorted(home.glob(".local/share/uv/python/cpython-3.*/bin"), reverse=True),
    ]
    searched = [Path(part) for part in os.environ.get("PATH", os.defpath).split(os.pathsep) if part]
    return [*managed, *[part for part in searched if part.name != "shims" and VENV not in part.parents]]


def _wanted(requirements: Path) -> str:
    """Describe what the environment must have been made from."""
    return hashlib.sha256(requirements.read_bytes()).hexdigest() + f" {ROOT}\n"


def _uv(log: Path) -> str:
    """Return uv: the machine's own, or a pinned one in a small environment of its own."""
    found = shutil.which("uv")
    if found and capture([found, "--version"])[0] == 0:
        return found
    home = STATE / "uv"
    program = home / "bin" / "uv"
    if not program.exists():
        python = sys.executable
        if capture([python, "-c", "import ensurepip, venv"])[0] != 0:
            if not (is_root() and shutil.which("apt-get")):
                raise Stop(
                    "Python's venv module is missing; install it (Debian: apt-get install python3-venv)"
                )
            apt_install(["python3-venv", "ca-certificates"], log)
        run_logged([python, "-m", "venv", "--clear", str(home)], log)
        run_logged(
            [
                *[str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", "--require-hashes"],
                *["--disable-pip-version-check", "--requirement", str(UV_PIN)],
            ],
            log,
            env=_trust(),
        )
    return str(program)


@contextmanager
def _locked() -> Iterator[None]:
    """Keep a second `make` in this clone waiting while the environment is being made."""
    STATE.mkdir(exist_ok=True)
    with (STATE / "env.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def program(name: str) -> str:
    """Return the path of a program of the environment."""
    return str(VENV / "bin" / name)


def replace_process(argv: list[str]) -> int:
    """Run a program of the environment in the foreground, with the reader's terminal."""
    return subprocess.run(argv, cwd=ROOT, env={**os.environ, **variables()}, check=False).returncode
