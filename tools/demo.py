"""`make demo`: the sample app over HTTPS on a systemd host in a container, and what to do with it."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import ssl
import time
from pathlib import Path

from tools import engine, environment, images
from tools.steps import ROOT, Runner, Step, Stop, capture, run_logged

CONTAINER = "flaskworks-demo"
DOMAIN = "hello.localhost"
"""The demo's app, as inventories/demo describes it. Names under localhost need no entry in /etc/hosts."""

INVENTORY = ROOT / "inventories" / "demo"
AUTHORITY = INVENTORY / ".tls" / "ca.pem"
PORTS = INVENTORY / "group_vars" / "all" / "ports.yml"
SECRETS = ROOT / ".demo"
PLAY = ["ansible-playbook", "site.yml", "-i", "inventories/demo"]

USUAL = (80, 443)
SPARE = range(8080, 8180), range(8443, 8543)
"""Where free ports are looked for when one of the usual two is taken."""

LABEL = "flaskworks.clone"


def run() -> int:
    """Make everything that is needed, run the play, ask the app for its page, print the receipt."""
    runner = Runner()
    needed = [Step("environment", environment.make), Step("engine and image", _bed)]
    if not runner.together(needed, 2):
        return runner.summary()
    steps = [
        Step("container", _start),
        Step(" ".join(PLAY), PLAY, env=environment.variables(), show=True),
    ]
    for step in steps:
        if not runner.run(step):
            return runner.summary()
    answer: dict[str, str] = {}
    if not runner.run(Step(f"GET https://{DOMAIN}/", lambda _log: answer.update(_ask(_ports()[1])))):
        return runner.summary()
    print(_receipt(answer, _ports()[1]) + f"\n  Ready after {runner.seconds:.0f} s.")
    return 0


def clean() -> int:
    """Remove what `run` made for itself: the container, the CA, the secrets and the file with the ports.

    What the other targets use as well stays. Without an engine nothing is removed: a container whose CA and
    secrets are gone would be half a demo.
    """
    removed = []
    if not engine.answers():
        raise Stop(
            "No Docker engine answers, so nothing was removed; start it and run 'make demo-clean' again"
        )
    if _owner() == str(ROOT) and images.remove_container(CONTAINER):
        removed.append(f"container {CONTAINER}")
    for path in (AUTHORITY.parent, SECRETS):
        if path.is_dir():
            shutil.rmtree(path)
            removed.append(str(path.relative_to(ROOT)))
    if PORTS.exists():
        PORTS.unlink()
        removed.append(str(PORTS.relative_to(ROOT)))
    if PORTS.parent.is_dir() and not any(PORTS.parent.iterdir()):
        PORTS.parent.rmdir()
    print("Removed: " + ", ".join(removed) + "." if removed else "There was nothing to remove.")
    print("Left for later: the Docker engine, its images debian and flaskworks-host, .venv, .bed.")
    return 0


def _bed(log: Path) -> None:
    engine.ensure(log)
    images.ensure(("trixie",), log)


def _start(log: Path) -> None:
    """Start the host unless it runs already."""
    owner = _owner()
    if owner is not None and owner != str(ROOT):
        if Path(owner).is_dir():
            raise Stop(f"The demo of {owner} is there already; run 'make demo-clean' in that clone first")
        images.remove_container(CONTAINER)  # its clone is gone
        owner = None
    if owner is None:
        _write_ports(_free_ports())
        published = [part for port in _ports() for part in ("--publish", f"127.0.0.1:{port}:{port}")]
        # Settings as in molecule/shared/create.yml, where they are explained.
        run_logged(
            [
                *["docker", "run", "--detach", "--name", CONTAINER, "--hostname", "demo"],
                *["--label", f"{LABEL}={ROOT}", *published, "--cgroupns", "private"],
                *["--cap-add", "SYS_ADMIN", "--cap-add", "NET_ADMIN", "--cap-add", "SYS_PTRACE"],
                *["--security-opt", "apparmor=unconfined", "flaskworks-host:trixie"],
            ],
            log,
        )
    else:
        _write_ports(_ports())
        run_logged(["docker", "start", CONTAINER], log)
    wait = "until systemctl is-system-running 2>&1 | grep -Eqx 'running|degraded'; do sleep 0.1; done"
    run_logged(["docker", "exec", CONTAINER, "timeout", "30", "sh", "-c", wait], log)


def _owner() -> str | None:
    """Return the clone that the demo's container belongs to; None when there is no container."""
    form = f'{{{{index .Config.Labels "{LABEL}"}}}}'
    code, output = capture(["docker", "container", "inspect", "--format", form, CONTAINER])
    return output if code == 0 else None


def _ports() -> tuple[int, int]:
    """Return the ports that the container publishes; before it exists, those written for it."""
    form = "{{json .HostConfig.PortBindings}}"
    code, output = capture(["docker", "container", "inspect", "--format", form, CONTAINER])
    if code == 0:
        numbers = sorted(int(port.split("/")[0]) for port in json.loads(output))
        return numbers[0], numbers[1]
    if PORTS.exists():
        words = PORTS.read_text().replace("}", ",").split()
        return int(words[words.index("{http:") + 1].strip(",")), int(
            words[words.index("https:") + 1].strip(",")
        )
    return USUAL


def _free_ports() -> tuple[int, int]:
    if all(_free(port) for port in USUAL):
        return USUAL
    found = [next((port for port in spare if _free(port)), None) for spare in SPARE]
    if found[0] is None or found[1] is None:
        raise Stop(
            "Ports 80 and 443 are taken and none is free from 8080 or 8443 on; stop what listens there"
        )
    return found[0], found[1]


def _free(port: int) -> bool:
    """Whether nothing on this machine listens there."""
    with socket.socket() as probe:
        probe.settimeout(1)
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            return False
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except PermissionError:
            return True  # a port below 1024: this user may not listen there, the engine may
        except OSError:
            return False
    return True


def _write_ports(ports: tuple[int, int]) -> None:
    """Tell the inventory the ports, where they are not the usual ones."""
    if ports == USUAL:
        PORTS.unlink(missing_ok=True)
        return
    PORTS.parent.mkdir(parents=True, exist_ok=True)
    PORTS.write_text(
        "---\n# Written by `make demo`: 80 or 443 was taken on this machine.\n"
        f"demo_ports: {{http: {ports[0]}, https: {ports[1]}}}\n"
    )


def _ask(port: int) -> dict[str, str]:
    """Ask for the page as a browser on this machine would, certificate verified; what the receipt says."""
    if not AUTHORITY.exists():
        raise Stop(f"The play left no CA at {AUTHORITY.relative_to(ROOT)}")
    context = ssl.create_default_context(cafile=str(AUTHORITY))
    try:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname=DOMAIN) as secure,
        ):
            connection = http.client.HTTPConnection(DOMAIN, port)
            connection.sock = secure
            connection.request("GET", "/", headers={"Host": _authority_part(port)})
            status = connection.getresponse().status
            certificate = secure.getpeercert() or {}
    except (OSError, http.client.HTTPException) as error:
        raise Stop(f"No answer on 127.0.0.1:{port}: {error}; look inside: {_inside('hello')}") from error
    if status != 200:
        raise Stop(f"The page answered {status} instead of 200; look inside: {_inside('hello')}")
    ends = ssl.cert_time_to_seconds(str(certificate["notAfter"]))
    link = capture(["docker", "exec", CONTAINER, "readlink", "/srv/hello/current"])[1]
    return {"release": Path(link).name, "days": str(int((ends - time.time()) // 86400))}


def _authority_part(port: int) -> str:
    return DOMAIN if port == 443 else f"{DOMAIN}:{port}"


def _inside(app: str) -> str:
    return f"docker exec {CONTAINER} journalctl -u 'flask-{app}@*'"


def _receipt(answer: dict[str, str], port: int) -> str:
    url = f"https://{_authority_part(port)}/"
    authority = AUTHORITY.relative_to(ROOT)
    return f"""
  {url} answers 200.

  Release       {answer["release"]}
  Certificate   {answer["days"]} days left
  Ask           curl --cacert {authority} {url}
  Trust the CA  browser: import {authority} as an authority for web sites
                system:  cp {authority} /usr/local/share/ca-certificates/flaskworks-demo.crt
                         update-ca-certificates
  Deploy again  . .venv/bin/activate && {" ".join(PLAY)}
                (change something in sample_app/src first and the release is a new one)
  Look inside   {_inside("hello")}
                docker exec -it {CONTAINER} bash
  Clean up      make demo-clean
"""
