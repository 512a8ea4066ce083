"""What every role says to a host that it does not support. The hosts of this inventory do not exist."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
ROLES = ["apache", "app", "deploy", "gunicorn", "hardening", "logrotate", "nginx", "python", "tls"]
PLATFORMS = {
    "noble.example.org": ("Ubuntu", "24"),
    "bullseye.example.org": ("Debian", "11"),
    "duke.example.org": ("Debian", "130"),
    "rocky.example.org": ("Rocky", "9"),
}
POLICY = {
    "tls": {
        "protocols": ["TLSv1.3"],
        "ciphers": ["ECDHE-RSA-AES128-GCM-SHA256"],
        "curves": ["X25519"],
        "prefer_server_ciphers": False,
        "session_cache": 1048576,
        "session_timeout": 300,
        "session_tickets": False,
    },
    "static": {"hashed": "x", "hashed_cache": "immutable", "other_cache": "no-cache"},
    "proxy_group": "flask-proxy",
    "acme_webroot": "/var/lib/flask/acme",
    "logs": "/var/log/flask-proxy",
    "default_ports": {"http": 80, "https": 443},
}
INPUTS = {
    "app_accounts": [],
    "deploy_releases": [],
    "gunicorn_services": [],
    "logrotate_logs": [],
    "nginx_sites": [],
    "nginx_policy": POLICY,
    "apache_sites": [],
    "apache_policy": POLICY,
    "tls_certificates": [],
    "tls_authority": "/nowhere",
}

Refusals = dict[str, dict[str, str]]


def test_all_roles_are_asked() -> None:
    assert sorted(path.name for path in (ROOT / "roles").iterdir() if path.is_dir()) == ROLES


@pytest.fixture(scope="module")
def refusals(tmp_path_factory: pytest.TempPathFactory) -> Refusals:
    """Return the message of the task that failed, by host and role: all roles in one run."""
    directory = tmp_path_factory.mktemp("platforms")
    asked = [
        {
            "block": [{"ansible.builtin.include_role": {"name": f"flaskworks.server.{role}"}}],
            "rescue": [
                {"ansible.builtin.set_fact": {"refusals": "{{ refusals | default({}) | combine(refusal) }}"}}
            ],
            "vars": {"refusal": {role: "{{ ansible_failed_result.msg }}"}},
        }
        for role in ROLES
    ]
    keep = {
        "ansible.builtin.copy": {
            "content": "{{ dict(groups.all | zip(told)) | to_json }}",
            "dest": f"{directory}/refusals.json",
            "mode": "0600",
        },
        "check_mode": False,
        "run_once": True,
        "vars": {"told": "{{ groups.all | map('extract', hostvars, 'refusals') }}"},
    }
    facts = {"distribution": "{{ platform[0] }}", "distribution_major_version": "{{ platform[1] }}"}
    play = {
        "hosts": "all",
        "gather_facts": False,
        "vars": {"ansible_facts": facts, **INPUTS},
        "tasks": [*asked, keep],
    }
    hosts = {name: {"platform": list(platform)} for name, platform in PLATFORMS.items()}
    (directory / "play.yml").write_text(json.dumps([play]))
    (directory / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": hosts}}))
    local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    program = Path(sys.executable).parent / "ansible-playbook"
    done = subprocess.run(
        # In check mode: a role that refused nothing would change this machine.
        [program, "-i", directory / "hosts.yml", "-e", json.dumps(local), "--check", directory / "play.yml"],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_HOME": str(directory / ".ansible"), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told: Refusals = json.loads((directory / "refusals.json").read_text())
    return told


@pytest.mark.parametrize("role", ROLES)
def test_a_role_refuses_other_platforms_in_a_sentence(refusals: Refusals, role: str) -> None:
    assert {host: refusals[host][role] for host in refusals} == {
        "noble.example.org": (
            f"noble.example.org runs Ubuntu 24; the role {role} supports Debian 12 and Debian 13."
        ),
        "bullseye.example.org": (
            f"bullseye.example.org runs Debian 11; the role {role} supports Debian 12 and Debian 13."
        ),
        "duke.example.org": (
            f"duke.example.org runs Debian 130; the role {role} supports Debian 12 and Debian 13."
        ),
        "rocky.example.org": (
            f"rocky.example.org runs Rocky 9; the role {role} supports Debian 12 and Debian 13."
        ),
    }
