"""What an operator sees before any host is touched. The hosts of these inventories do not exist."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jinja2
import pytest
import yaml

ROOT = Path(__file__).parents[2]

HOSTS = """
flask:
  hosts:
    web1.example.org: {ansible_host: 192.0.2.1}
    web2.example.org: {ansible_host: 192.0.2.2}
"""

APPS = """
flask_apps:
  - name: hello
    domains: [hello.example.org]
    source: {path: "{{ inventory_dir }}/app"}
    wsgi: hello:app
"""

MISTAKES = """
flask_apps:
  - name: hello
    domains: [hello.example.org]
    source: {path: "{{ inventory_dir }}/app"}
    wsgi: hello:app
    wokers: 3
    helth: /healthz
    worker_class: gthraed
  - name: reports
    domains: [reports.example.org, hello.example.org]
    source: {path: "{{ inventory_dir }}/app", git: https://git.example.org/reports.git}
    wsgi: reports:app
    worker_class: sync
    threads: 4
"""

KEY = "a-key-that-is-only-used-in-this-test-0123456789"


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    """Return an inventory with one app and no vault file."""
    directory = tmp_path / "inventory"
    (directory / "group_vars/flask").mkdir(parents=True)
    (directory / "hosts.yml").write_text(HOSTS)
    (directory / "group_vars/flask/apps.yml").write_text(APPS)
    return directory


def ansible(program: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a program of Ansible in the clone, as a user would."""
    return subprocess.run(
        [Path(sys.executable).parent / program, *arguments],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_HOME": str(ROOT / ".ansible"), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def sentences(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Return the lines of the error that Ansible shows first."""
    text = (done.stdout + done.stderr).split("Task failed: ", 1)[1].removeprefix("Action failed: ")
    return text.split("\nOrigin:", 1)[0].split("\n")


def write_secrets(inventory: Path, text: str) -> Path:
    """Write an encrypted vault file; return the file of its password."""
    password = inventory.parent / "password"
    password.write_text("open sesame\n")
    vault = inventory / "group_vars/flask/secrets.vault"
    vault.write_text(text)
    done = ansible("ansible-vault", "encrypt", "--vault-password-file", password, vault)
    assert done.returncode == 0, done.stderr
    return password


@pytest.mark.parametrize("playbook", ["site.yml", "playbooks/deploy.yml", "playbooks/plan.yml"])
def test_three_typos_and_three_contradictions_are_told_together(inventory: Path, playbook: str) -> None:
    (inventory / "group_vars/flask/apps.yml").write_text(MISTAKES)
    done = ansible("ansible-playbook", playbook, "-i", inventory)
    assert done.returncode != 0
    assert sentences(done) == [
        "flask_apps.hello: unknown key 'wokers', did you mean 'workers'?",
        "flask_apps.hello: unknown key 'helth', did you mean 'health'?",
        "flask_apps.hello.worker_class: 'gthraed' is not known, did you mean 'gthread'?",
        "flask_apps.reports.source: has both path and git; give exactly one of them",
        (
            "flask_apps.reports: threads are for worker_class gthread, not "
            "sync; leave threads away or choose gthread"
        ),
        (
            "flask_apps.reports: domain hello.example.org already belongs "
            "to 'hello'; each domain serves one app"
        ),
    ]
    assert "UNREACHABLE" not in done.stdout


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("flask_proxy=apach", "flask_proxy: 'apach' is not known, did you mean 'apache'?"),
        ("flask_proxy=caddy", "flask_proxy: 'caddy' is not known; it is one of nginx, apache"),
        (
            "flask_ports_conflict=stop",
            "flask_ports_conflict: 'stop' is not known; it is one of fail, take_over",
        ),
    ],
)
def test_another_proxy_than_ours_is_refused_in_a_sentence(inventory: Path, given: str, told: str) -> None:
    done = ansible("ansible-playbook", "playbooks/provision.yml", "-i", inventory, "-e", given)
    assert done.returncode != 0
    assert sentences(done) == [told]
    assert "UNREACHABLE" not in done.stdout


def test_a_description_may_read_what_is_known_of_other_hosts(inventory: Path) -> None:
    apps = APPS + "    config: {PEER: \"{{ hostvars['web2.example.org'].ansible_host }}\"}\n"
    (inventory / "group_vars/flask/apps.yml").write_text(apps)
    done = ansible("ansible-playbook", "playbooks/plan.yml", "-i", inventory)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PEER: 192.0.2.2" in done.stdout


def test_plan_is_printed_without_hosts_and_without_the_password(inventory: Path) -> None:
    write_secrets(inventory, f"flask_secrets: {{hello: {{SECRET_KEY: {KEY}}}}}\n")
    done = ansible("ansible-playbook", "flaskworks.server.plan", "-i", inventory)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "socket: /srv/hello/current/gunicorn.sock" in done.stdout


def test_plan_of_the_production_example() -> None:
    done = ansible("ansible-playbook", "flaskworks.server.plan", "-i", ROOT / "inventories/prod")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "origin: https://hello.example.org" in done.stdout


def test_a_host_that_was_lost_on_the_way_stops_the_deploy(inventory: Path, tmp_path: Path) -> None:
    """Nothing is deployed to the others; neither of the two hosts exists."""
    site = tmp_path / "site.yml"
    site.write_text(
        "- hosts: flask\n"
        "  gather_facts: false\n"
        "  tasks:\n"
        "    - ansible.builtin.fail:\n"
        "      when: inventory_hostname == 'web2.example.org'\n"
        "- ansible.builtin.import_playbook: flaskworks.server.deploy\n"
    )
    done = ansible("ansible-playbook", site, "-i", inventory)
    assert done.returncode != 0
    assert (
        "web2.example.org failed before the deploy, so no host is deployed to and each serves what it "
        "served before; correct that and run again, or leave the host out with "
        "--limit 'all:!web2.example.org'\n"
    ) in done.stderr + done.stdout
    assert "UNREACHABLE" not in done.stdout


def test_missing_vault_file(inventory: Path) -> None:
    done = ansible("ansible-playbook", "site.yml", "-i", inventory)
    vault = inventory / "group_vars/flask/secrets.vault"
    assert done.returncode != 0
    assert sentences(done) == [
        (
            f'flask_secrets: hello cannot start without secrets and "{vault}" does not exist; '
            f"create it with 'ansible-vault create \"{vault}\"' and write "
            'flask_secrets: {hello: {SECRET_KEY: "…"}} with a key from '
            "python3 -c 'import secrets; print(secrets.token_hex(32))'"
        )
    ]


def test_apps_without_secrets_need_no_vault_file(inventory: Path) -> None:
    apps = inventory / "group_vars/flask/apps.yml"
    apps.write_text(APPS + "    secrets: []\n")
    checks = inventory / "checks.yml"
    checks.write_text(
        "- hosts: flask\n"
        "  gather_facts: false\n"
        f"  tasks: [{{ansible.builtin.import_tasks: {ROOT}/playbooks/tasks/check_secrets.yml}}]\n"
    )
    done = ansible("ansible-playbook", checks, "-i", inventory)
    assert done.returncode == 0, done.stdout


def test_vault_file_in_plain_text(inventory: Path) -> None:
    vault = inventory / "group_vars/flask/secrets.vault"
    vault.write_text(f"flask_secrets: {{hello: {{SECRET_KEY: {KEY}}}}}\n")
    done = ansible("ansible-playbook", "site.yml", "-i", inventory)
    assert done.returncode != 0
    assert sentences(done) == [
        (
            f'flask_secrets: "{vault}" is not encrypted; run \'ansible-vault encrypt "{vault}"\', '
            "and replace the secrets if others have seen the file"
        )
    ]
    assert KEY not in done.stdout + done.stderr


def test_locked_vault_file(inventory: Path) -> None:
    write_secrets(inventory, f"flask_secrets: {{hello: {{SECRET_KEY: {KEY}}}}}\n")
    done = ansible("ansible-playbook", "site.yml", "-i", inventory)
    assert done.returncode != 0
    assert sentences(done) == [
        (
            f'flask_secrets: no password opens "{inventory}/group_vars/flask/secrets.vault"; '
            "run the same command again with --ask-vault-pass or --vault-password-file FILE"
        )
    ]


def test_secret_without_a_value(inventory: Path) -> None:
    password = write_secrets(inventory, "flask_secrets: {hello: {DATABASE_URL: x}}\n")
    done = ansible("ansible-playbook", "site.yml", "-i", inventory, "--vault-password-file", password)
    assert done.returncode != 0
    assert sentences(done) == [
        (
            "flask_apps.hello: secret SECRET_KEY has no value; "
            "add it to flask_secrets.hello in the vault file (ansible-vault edit), "
            "make one with python3 -c 'import secrets; print(secrets.token_hex(32))'"
        )
    ]


def test_status_tells_of_an_app_that_is_mounted_in_the_site_of_another(inventory: Path) -> None:
    (inventory / "hosts.yml").write_text("flask: {hosts: {web1: {ansible_connection: local}}}")
    mounted = APPS.split("\n", 2)[2].replace("name: hello", "name: reports")
    apps = f"flask_defaults: {{root: /srv/none, ports: {{https: 9}}}}{APPS}{mounted}    prefix: /reports\n"
    (inventory / "group_vars/flask/apps.yml").write_text(apps)
    interpreter = f"ansible_python_interpreter={sys.executable}"
    given = ["-e", interpreter, "-e", "ansible_become=false"]
    done = ansible("ansible-playbook", "playbooks/status.yml", "-i", inventory, *given)
    assert done.returncode == 0, done.stdout + done.stderr
    missing = "no certificate is shown for hello.example.org: nobody listens on port 9 [web1]"
    for app in ("hello", "reports"):
        assert f"{app}: {missing}" in done.stdout
    # The same for a monitor: it fails, and writes it for programs.
    report = inventory / "report.json"
    given += ["-e", f"report={report}"]
    done = ansible("ansible-playbook", "flaskworks.server.doctor", "-i", inventory, *given)
    assert done.returncode == 2
    assert sentences(done) == (
        wrong := [
            "hello: it has no release; run playbooks/deploy.yml [web1]",
            f"hello: {missing}",
            "reports: it has no release; run playbooks/deploy.yml [web1]",
            f"reports: {missing}",
        ]
    )
    written = json.loads(report.read_text())
    assert (written["well"], written["wrong"]) == (False, wrong)
    assert [(app["app"], app["host"], app["release"]) for app in written["apps"]] == [
        ("hello", "web1", None),
        ("reports", "web1", None),
    ]


@pytest.mark.parametrize("proxy", ["nginx", "apache"])
def test_provisioning_includes_the_role_of_the_proxy(proxy: str) -> None:
    """The ports are looked at before any role of the play, and an authority is asked through the proxy."""
    provision = yaml.safe_load((ROOT / "playbooks/provision.yml").read_text())[1]
    serve, rotate, issue = provision["tasks"]
    name = serve["ansible.builtin.include_role"]["name"]
    assert jinja2.Template(name).render(flask_proxy=proxy) == f"flaskworks.server.{proxy}"
    assert jinja2.Template(name).render() == "flaskworks.server.nginx"
    assert provision["pre_tasks"][1]["ansible.builtin.import_tasks"] == "tasks/check_ports.yml"
    assert rotate["ansible.builtin.import_role"] == {"name": "flaskworks.server.logrotate"}
    assert issue["ansible.builtin.import_role"]["tasks_from"] == "issue"


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        (
            ["-e", "app=helo", "-e", "state=on"],
            "there is no app 'helo'; say it with -e app=NAME, where NAME is hello or reports",
        ),
        (
            ["-e", "state=on"],
            "which app is not said; say it with -e app=NAME, where NAME is hello or reports",
        ),
        (
            ["-e", "app=hello"],
            "what to do with the maintenance of hello is not said; say it with -e state=on or -e state=off",
        ),
        (
            ["-e", "app=hello", "-e", "state=onn"],
            "what to do with the maintenance of hello is not said; say it with -e state=on or -e state=off",
        ),
    ],
)
def test_maintenance_is_told_what_is_meant(inventory: Path, said: list[str], sentence: str) -> None:
    (inventory / "group_vars/flask/apps.yml").write_text(
        APPS + APPS.replace("flask_apps:\n", "").replace("hello", "reports")
    )
    done = ansible("ansible-playbook", "flaskworks.server.maintenance", "-i", inventory, *said)
    assert done.returncode != 0
    assert sentences(done) == [sentence]
    assert "UNREACHABLE" not in done.stdout


@pytest.mark.parametrize("given", [{}, {"deploy_release": ""}, {"deploy_release": "previous"}])
def test_a_roll_back_without_a_name_never_deploys(given: dict[str, str]) -> None:
    """To stage without a target is to deploy, and -e release= is soon written by a script."""
    tasks = yaml.safe_load((ROOT / "roles/deploy/tasks/rollback.yml").read_text())
    [stage] = [task for task in tasks[0]["block"] if task.get("register") == "__deploy_staged"]
    assert jinja2.Template(stage["flaskworks.server.release"]["to"]).render(given) == "previous"


BY_HAND = (
    "so nothing was changed. By hand: make a new key with "
    "python3 -c 'import secrets; print(secrets.token_hex(32))', put it into SECRET_KEY_FALLBACKS "
    "and run site.yml; then exchange it with SECRET_KEY, and run site.yml again"
)


@pytest.mark.parametrize(
    ("text", "arguments", "told"),
    [
        (
            f"hello: {{SECRET_KEY: {KEY}}}",
            [],
            "which app is not said; say it with -e app=NAME, where NAME is hello",
        ),
        (
            f"hello: {{SECRET_KEY: {KEY}}}",
            ["-e", "app=helo"],
            "there is no app 'helo', did you mean 'hello'?; say it with -e app=NAME, where NAME is hello",
        ),
        (
            f"hello: {{SECRET_KEY: {KEY}}}",
            ["-e", "app=hello", "--limit", "web1.example.org"],
            (
                "web2.example.org has hello as well and is not in this play; a session that begins on "
                "one host ends on another, so run without --limit"
            ),
        ),
        (
            f"hello: {{SECRET_KEY: \"{{{{ '{KEY}' }}}}\"}}",
            ["-e", "app=hello"],
            "flask_secrets.hello: {vault} has a SECRET_KEY that comes from elsewhere ({{ … }}); " + BY_HAND,
        ),
        (
            f"hello: {{SECRET_KEY: {KEY}}}",
            ["-e", "app=hello", "-e", json.dumps({"flask_secrets": {"hello": {"SECRET_KEY": KEY[::-1]}}})],
            "flask_secrets.hello: {vault} does not say the SECRET_KEY that hosts get, "
            "which comes from elsewhere; " + BY_HAND,
        ),
    ],
)
def test_a_rotation_that_cannot_be_is_refused_and_changes_nothing(
    inventory: Path, text: str, arguments: list[str], told: str
) -> None:
    password = write_secrets(inventory, f"flask_secrets:\n  {text}\n")
    vault = inventory / "group_vars/flask/secrets.vault"
    before = vault.read_bytes()
    playbook = [
        "playbooks/rotate_secret_key.yml",
        "-i",
        str(inventory),
        "--vault-password-file",
        str(password),
    ]
    done = ansible("ansible-playbook", *playbook, *arguments)
    assert done.returncode != 0
    assert sentences(done) == [told.replace("{vault}", str(vault))]
    assert vault.read_bytes() == before
    assert "UNREACHABLE" not in done.stdout
    assert KEY not in done.stdout + done.stderr


def test_a_rotation_of_what_is_in_no_vault_file(inventory: Path) -> None:
    (inventory / "group_vars/flask/plain.yml").write_text(
        f"flask_secrets: {{hello: {{SECRET_KEY: {KEY}}}}}\n"
    )
    done = ansible("ansible-playbook", "playbooks/rotate_secret_key.yml", "-i", inventory, "-e", "app=hello")
    assert done.returncode != 0
    folders = " and ".join(
        f"{one}/{{group,host}}_vars" for one in sorted([str(inventory), f"{ROOT}/playbooks"])
    )
    assert sentences(done) == [
        (
            f"flask_secrets.hello: no vault file below {folders} "
            f"that is encrypted as a whole and opens has them, {BY_HAND}"
        )
    ]


def test_what_a_rotation_would_do_changes_nothing(inventory: Path) -> None:
    password = write_secrets(inventory, f"flask_secrets:\n  hello: {{SECRET_KEY: {KEY}}}\n")
    vault = inventory / "group_vars/flask/secrets.vault"
    before = vault.read_bytes()
    playbook = [
        "playbooks/rotate_secret_key.yml",
        "-i",
        str(inventory),
        "--vault-password-file",
        str(password),
    ]
    done = ansible("ansible-playbook", *playbook, "-e", "app=hello", "--check", "--diff")
    assert "changed: [web1.example.org]" in done.stdout  # then it looks for the hosts, which do not exist
    assert vault.read_bytes() == before
    assert KEY not in done.stdout + done.stderr
