"""The README's example, asked from outside over TLS, and what must hold on the hosts."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from testinfra.host import Host

PROJECT = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"])
INVENTORY = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "inventory"
PASSWORD = PROJECT / "molecule/default/vault-password.sh"
CANARY = "canary-7h3XqLz0aVf9KpWm2sYbN8dRtGcEuJ5o"

Outside = Callable[..., httpx.Client]


@pytest.fixture
def client(outside: Outside, platform: Any) -> httpx.Client:
    return outside(platform, ca=INVENTORY / ".tls/ca.pem")


def run(
    command: list[str], directory: Path = PROJECT, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command as a user in the clone would."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    inherited = {
        key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "MOLECULE_"))
    }
    return subprocess.run(
        command,
        cwd=directory,
        env={**inherited, "PATH": path, "ANSIBLE_HOME": str(PROJECT / ".ansible"), **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_page_of_the_sample_app(client: httpx.Client) -> None:
    answer = client.get("https://hello.example.org/")
    assert answer.status_code == 200
    assert answer.http_version == "HTTP/2"
    assert "text/html" in answer.headers["content-type"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "gunicorn" not in answer.headers.get("server", "")


def test_app_sees_the_request_as_it_was_made(client: httpx.Client, host: Host) -> None:
    deployment = client.get(
        "https://hello.example.org/api/deployment",
        headers={
            "X-Forwarded-For": "198.51.100.7",
            "X-Forwarded-Proto": "http",
            "X-Forwarded-Host": "evil.example",
        },
    ).json()
    current = host.check_output("basename $(readlink /srv/hello/current)")
    assert deployment["release"] == current
    assert deployment["scheme"] == "https"
    assert deployment["host"] == "hello.example.org"
    assert deployment["client"] != "198.51.100.7"


def test_database_was_migrated_by_the_release(client: httpx.Client) -> None:
    assert client.get("https://hello.example.org/readyz").status_code == 200


def test_second_app_of_another_shape(outside: Outside, platform: Any) -> None:
    # HTTP/1.1: over HTTP/2 this client waits to send the rest of a body that the proxy has refused already.
    client = outside(platform, ca=INVENTORY / ".tls/ca.pem", http2=False)
    assert client.get("https://notes.example.org/").status_code == 200
    assert client.get("https://notes.example.org/health/live").status_code == 200
    assert client.post("https://notes.example.org/", content=b"x" * 1_100_000).status_code == 413


@pytest.mark.parametrize(
    ("url", "location"),
    [
        ("http://hello.example.org/a/b?c=d", "https://hello.example.org/a/b?c=d"),
        ("http://www.hello.example.org/a", "https://hello.example.org/a"),
        ("https://www.hello.example.org/a?b=c", "https://hello.example.org/a?b=c"),
        ("http://notes.example.org/", "https://notes.example.org/"),
    ],
)
def test_one_canonical_address(client: httpx.Client, url: str, location: str) -> None:
    answer = client.get(url)
    assert answer.status_code in (301, 308)
    assert answer.headers["location"] == location


def test_static_files_come_from_the_proxy(client: httpx.Client) -> None:
    answer = client.get("https://hello.example.org/static/hello.css")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/css")
    assert "x-served-by-app" not in answer.headers


def test_app_can_write_its_data_and_nothing_else(host: Host) -> None:
    def may_write(path: str) -> bool:
        return bool(host.run(f"runuser -u hello -- sh -c 'touch {path}/probe && rm {path}/probe'").rc == 0)

    assert may_write("/srv/hello/shared")
    assert may_write("/var/log/flask/hello")
    for path in (
        "/srv/hello",
        "/srv/hello/current/src",
        "/srv/hello/current/static",
        "/srv/hello/current/venv/bin",
        "/etc/flask/hello",
        "/srv/notes/shared",
    ):
        assert not may_write(path), path


def test_secret_is_in_the_environment_of_the_app_and_nowhere_else(host: Host) -> None:
    assert (INVENTORY / "group_vars/flask/secrets.vault").read_text().startswith("$ANSIBLE_VAULT;")
    files = set(host.check_output(f"grep -rslF -- {CANARY} /etc /srv /var/log /run /var/lib || true").split())
    release = host.check_output("readlink -f /srv/hello/current")
    assert {path for path in files if "/releases/" not in path} == {"/etc/flask/hello/environment"}
    assert f"{release}/environment" in files
    for path in sorted(files):
        assert (host.file(path).user, host.file(path).mode) == ("root", 0o600), path
    assert CANARY not in host.check_output("systemctl show 'flask-hello@*' && journalctl --no-pager -q")


def test_release_comes_back_after_a_boot(host: Host) -> None:
    release = host.check_output("basename $(readlink /srv/hello/current)")
    assert host.check_output(f"systemctl is-enabled flask-hello@{release}.socket") == "enabled"


def test_units_are_clean(host: Host) -> None:
    release = host.check_output("basename $(readlink /srv/hello/current)")
    verified = host.run(f"systemd-analyze verify flask-hello@{release}.service flask-hello@{release}.socket")
    assert [line for line in verified.stderr.splitlines() if "flask-" in line] == []


@pytest.fixture(scope="module")
def readme() -> list[str]:
    """Return the ansible-playbook commands of the README."""
    lines = (PROJECT / "README.md").read_text().splitlines()
    return [line.split(" #")[0].strip() for line in lines if line.startswith("ansible-playbook ")]


def changed(output: str) -> int:
    """Return the sum over the hosts of a play's recap."""
    recap = output.split("PLAY RECAP", 1)[1]
    return sum(int(word.split("=")[1]) for word in recap.split() if word.startswith("changed="))


def test_commands_of_the_readme_run_and_change_nothing(readme: list[str]) -> None:
    assert len(readme) == 3
    for command in readme:
        words = shlex.split(command.replace("--ask-vault-pass", f"--vault-password-file {PASSWORD}"))
        done = run([str(INVENTORY) if word == "inventories/prod" else word for word in words])
        assert done.returncode == 0, done.stdout + done.stderr
        assert changed(done.stdout) == 0, done.stdout


def test_check_mode_foresees_nothing_and_shows_no_secret() -> None:
    command = ["ansible-playbook", "site.yml", "-i", str(INVENTORY), "--vault-password-file", str(PASSWORD)]
    done = run([*command, "--check", "--diff", "-vvv"], ANSIBLE_NOCOLOR="1", ANSIBLE_INJECT_INVOCATION="1")
    output = done.stdout + done.stderr
    assert done.returncode == 0, output.replace(CANARY, "<the secret>")
    assert changed(done.stdout) == 0, [line for line in output.splitlines() if line.startswith("changed: ")]
    # Arguments are shown, as older versions of ansible-core do unasked.
    assert "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER" in output.split(), "no arguments are shown"
    assert [line.replace(CANARY, "<the secret>") for line in output.splitlines() if CANARY in line] == []


def test_status_tells_how_every_app_is(hosts: dict[str, Host]) -> None:
    done = run(["ansible-playbook", "playbooks/status.yml", "-i", str(INVENTORY)])
    assert done.returncode == 0, done.stdout + done.stderr
    table = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert "app host release age service health days issuer names" in table
    for name, host in hosts.items():
        for app, names in (
            ("hello", "hello.example.org, www.hello.example.org"),
            ("notes", "notes.example.org"),
        ):
            release = host.check_output(f"basename $(readlink /srv/{app}/current)").partition("-")[0]
            row = rf"{app} {name} {release} \d+ \w+ active good 89 \w+ authority \w+ {names}"
            assert [line for line in table if re.fullmatch(row, line)], done.stdout
    assert not [line for line in table if line.startswith(("hello: ", "notes: "))], done.stdout


def test_key_generator_of_the_readme_makes_keys() -> None:
    (command,) = set(re.findall(r"python3 -c '[^']+'", (PROJECT / "README.md").read_text()))
    keys = [run(shlex.split(command)).stdout.strip() for _ in range(2)]
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{40,}", key) for key in keys)
    assert keys[0] != keys[1]


def test_installed_collection_does_the_same(tmp_path: Path) -> None:
    built = run(["ansible-galaxy", "collection", "build", "--output-path", str(tmp_path)])
    assert built.returncode == 0, built.stderr
    tarball = next(tmp_path.glob("flaskworks-server-*.tar.gz"))
    install = [
        "ansible-galaxy",
        "collection",
        "install",
        str(tarball),
        "--offline",
        "-p",
        str(tmp_path / "installed"),
    ]
    installed = run(install, tmp_path)
    assert installed.returncode == 0, installed.stdout + installed.stderr

    command = [
        "ansible-playbook",
        "flaskworks.server.site",
        "-i",
        str(INVENTORY),
        "--vault-password-file",
        str(PASSWORD),
    ]
    done = run(
        command, tmp_path, ANSIBLE_COLLECTIONS_PATH=str(tmp_path / "installed"), ANSIBLE_PIPELINING="1"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert changed(done.stdout) == 0, done.stdout


def test_release_says_what_went_in(host: Host) -> None:
    release = json.loads(host.file("/srv/hello/current/release.json").content_string)
    assert CANARY not in json.dumps(release)
