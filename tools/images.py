"""Images of the test hosts: Debian's base image (pulled, or made here), and a host with systemd on top."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tools.steps import ROOT, Stop, apt_install, capture, is_root, run_logged

SUITES = ("trixie", "bookworm")
CONTEXT = ROOT / "molecule" / "shared" / "image"
AUTHORITIES = Path("/usr/local/share/ca-certificates")
"""Extra authorities of this machine: without them a test host cannot download behind a TLS proxy."""

LABEL = "flaskworks.inputs"


def ensure(suites: tuple[str, ...], log: Path) -> None:
    """Make the test-host images of these suites, all at once, where they are missing or out of date."""
    _bases([suite for suite in suites if not _identity(f"debian:{suite}")], log)
    with ThreadPoolExecutor(max_workers=len(suites)) as pool:
        list(pool.map(lambda suite: _host(suite, log), suites))


def _bases(suites: list[str], log: Path) -> None:
    if not suites:
        return
    with ThreadPoolExecutor(max_workers=len(suites)) as pool:
        pulled = dict(zip(suites, pool.map(lambda suite: _pull(suite, log), suites), strict=True))
        missing = [suite for suite in suites if not pulled[suite]]
        if not missing:
            return
        if not shutil.which("mmdebstrap"):
            if not (is_root() and shutil.which("apt-get")):
                raise Stop(
                    f"No registry gives debian:{missing[0]} and mmdebstrap is missing to make it; "
                    "connect to a registry, or install mmdebstrap"
                )
            apt_install(["mmdebstrap"], log)
        list(pool.map(lambda suite: _bootstrap(suite, log), missing))


def _pull(suite: str, log: Path) -> bool:
    if not _registry_answers():
        return False
    code, output = capture(["docker", "pull", "--quiet", f"debian:{suite}"], timeout=300)
    with log.open("a") as note:
        note.write(f"$ docker pull debian:{suite}\n{output}\n")
    return code == 0


def _registry_answers() -> bool:
    """Ask before pulling: without a network a pull hangs for minutes. A mirror is the engine's own affair."""
    mirrors = capture(["docker", "info", "--format", "{{json .RegistryConfig.Mirrors}}"])[1]
    if mirrors not in ("", "null", "[]"):
        return True
    try:
        with urllib.request.urlopen("https://registry-1.docker.io/v2/", timeout=3) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError as error:
        return error.code == 401  # "who are you" is what a registry answers first
    except OSError:
        return False


def _bootstrap(suite: str, log: Path) -> None:
    """Make Debian's base image from Debian's own archive."""
    with tempfile.TemporaryDirectory(prefix="flaskworks-") as directory:
        archive = Path(directory) / f"{suite}.tar"
        # Without a mirror argument mmdebstrap adds updates and security by itself.
        run_logged(["mmdebstrap", "--variant=minbase", suite, str(archive)], log)
        run_logged(["docker", "import", "--change", 'CMD ["bash"]', str(archive), f"debian:{suite}"], log)


def _host(suite: str, log: Path) -> None:
    base, image = f"debian:{suite}", f"flaskworks-host:{suite}"
    authorities = sorted(AUTHORITIES.glob("**/*.crt")) if AUTHORITIES.is_dir() else []
    inputs = hashlib.sha256(_identity(base).encode())
    for source in [*sorted(CONTEXT.iterdir()), *authorities]:
        inputs.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")
    wanted = inputs.hexdigest()
    if _label(image) == wanted:
        return
    with tempfile.TemporaryDirectory(prefix="flaskworks-") as directory:
        context = Path(directory)
        shutil.copytree(CONTEXT, context, dirs_exist_ok=True)
        (context / "ca-certificates").mkdir()
        for authority in authorities:
            shutil.copy(authority, context / "ca-certificates")
        _build(context, base, image, wanted, log)


def _build(context: Path, base: str, image: str, wanted: str, log: Path) -> None:
    run_logged(
        [
            *["docker", "build", "--tag", image, "--label", f"{LABEL}={wanted}"],
            *["--build-arg", f"BASE={base}", str(context)],
        ],
        log,
    )


def _identity(image: str) -> str:
    """Return the image's id, or nothing when it is not here."""
    code, output = capture(["docker", "image", "inspect", "--format", "{{.Id}}", image])
    return output if code == 0 else ""


def _label(image: str) -> str | None:
    code, output = capture(["docker", "image", "inspect", "--format", "{{json .Config.Labels}}", image])
    if code != 0:
        return None
    labels = json.loads(output) or {}
    value = labels.get(LABEL)
    return str(value) if value is not None else None


def remove_container(name: str) -> bool:
    """Remove a container if there is one; whether there was."""
    if capture(["docker", "container", "inspect", name])[0] != 0:
        return False
    subprocess.run(["docker", "rm", "--force", name], stdout=subprocess.DEVNULL, check=True)
    return True
