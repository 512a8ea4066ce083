"""What the templates of the roles amount to, read back by other means than those that wrote it.

One run of ansible-playbook renders all of them for hosts that do not exist, with the inputs that the roles
take from the plan.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.flaskworks.server.plugins.module_utils.release import credentials, gate

from tests.unit.release_host import Bench

ROOT = Path(__file__).parents[2]
TEMPLATES = {
    path.relative_to(ROOT / "roles").as_posix(): path
    for path in ROOT.glob("roles/*/templates/*.j2")
    # Pages and authorities are files of the user, which the tests of the proxies see at work; so is a banner.
    if not path.name.endswith((".html.j2", ".pem.j2", "issue.j2"))
}

CODE = {
    "gunicorn/templates/liveness.py.j2",
    *(f"tls/templates/{module}.py.j2" for module in ("acme", "key_pairs", "pending_apply")),
}

APP = {
    "name": "hello",
    "domains": ["hello.example.org"],
    "source": {"path": "/code"},
    "wsgi": "hello:app",
    "liveness": True,
}
FULL = {
    **APP,
    "domains": ["hello.example.org", "www.hello.example.org"],
    "wsgi": 'hello:create_app("50%", debug=False)',
    "static": {"/static/": "src/hello/static", "/media/": "media", "/files/": "/srv/files/"},
    "config": {"GREETING": 'say "hi" to $USER, it\'s 100%', "zone": " two  words ", "LIMIT": 5},
    "headers": {"Content-Security-Policy": "default-src 'self'; img-src *", "X-Frame-Options": ""},
    "request_limit": "1m",
    "timeout": "90s",
    "workers": 3,
    "threads": 4,
    "max_requests": 500,
    "liveness": {"interval": "4s", "timeout": "2s"},
    "resources": {"memory_high": "750m", "memory_max": "1g", "tasks": 512, "files": 4096, "cpu_weight": 300},
    "hsts": "1h",
    "allow": ["192.0.2.0/24", "2001:db8::/32"],
    "basic_auth": {"ops": "$6$salt$" + "x" * 86},
    "trusted_proxies": ["10.0.0.0/8"],
    "rate_limit": {"rate": "10/s", "burst": 50},
    "raw": {
        "nginx": "location = /retired {\n    return 410;\n}\n",
        "apache": '<Location "/retired">\n    Redirect 410\n</Location>',
    },
}
REPORTS = {
    **APP,
    "name": "reports",
    "prefix": "/reports.d",
    "static": {"/static/": "static", "/files/": "/srv/files"},
    "health": "/healthz",
    "request_limit": "1k",
    "timeout": "5s",
    "rate_limit": {"rate": "30/m", "burst": 5},
}
GEVENT = {**APP, "worker_class": "gevent", "connections": 250, "workers": 2, "timeout": "1s"}
GEVENT |= {"needs": ["subprocess", "jit", "proc"], "network": ["192.0.2.0/24", "2001:db8::/32"]}
SYNC = {**APP, "worker_class": "sync", "root": "/mnt/apps", "network": "none"}
MEMBERS = {**APP, "client_certificates": {"authority": "/ca.pem"}}
GUESTS = {**APP, "client_certificates": {"authority": "/ca.pem", "required": False}}
DEFAULTS = {"gevent": {"ports": {"http": 8080, "https": 8443}}, "sync": {"tls_policy": "modern"}}
SECRETS = {"SECRET_KEY": 'b"ack\\slash `x` $y', "EXTRA": "1"}


def case(app: dict[str, Any], debian: str, cmdline: str = "", others: Any = ()) -> dict[str, Any]:
    """Return the variables of one host."""
    return {
        "flask_apps": [app, *others],
        "flask_defaults": DEFAULTS.get(app.get("worker_class", ""), {}),
        "flask_secrets": {one["name"]: SECRETS for one in (app, *others)},
        "facts": {
            "distribution": "Debian",
            "distribution_major_version": debian,
            "processor_vcpus": 3,
            "memtotal_mb": 4096,
            "cmdline": {"ipv6.disable": cmdline} if cmdline else {},
        },
    }


CASES = {
    "full-13": case(FULL, "13"),
    "full-12": case(FULL, "12"),
    "gevent-13": case(GEVENT, "13"),
    "gevent-12": case(GEVENT, "12"),
    "sync-13": case(SYNC, "13", cmdline="1"),
    "sync-12": case(SYNC, "12"),
    "logs-13": case({**APP, "logs": "files"}, "13"),
    "members-13": case(MEMBERS, "13"),
    "guests-12": case(GUESTS, "12"),
    "shared-13": case(APP, "13", others=[REPORTS, {**APP, "name": "b", "prefix": "/reports.d/b"}]),
    "alone-12": case({**REPORTS, "name": "hello"}, "12"),
    "files-13": case({**APP, "secrets_via": "credentials"}, "13"),
}

Rendered = dict[str, dict[str, str]]


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    """Return every template by case and place, as in `roles/`."""
    directory = tmp_path_factory.mktemp("rendered")
    looked_up = {
        name: f"{{{{ lookup('ansible.builtin.template', '{path}') }}}}" for name, path in TEMPLATES.items()
    }
    play = {
        "hosts": "all",
        "gather_facts": False,
        "vars_files": [str(path) for path in ROOT.glob("roles/*/[dv]*s/main.yml")],
        "vars": {
            "ansible_facts": "{{ facts }}",
            "app_account": "{{ app_accounts | first }}",
            "gunicorn_service": "{{ gunicorn_services | first }}",
            "logrotate_log": "{{ logrotate_logs | first }}",
            "nginx_site": "{{ nginx_sites | first }}",
            "apache_site": "{{ apache_sites | first }}",
            "hardening_admin": {"name": "alice", "keys": ["ssh-ed25519 AAAA alice@example.org"]},
            "role_path": f"{ROOT}/roles/tls",
        },
        "tasks": [
            {"ansible.builtin.set_fact": {"rendered": looked_up}},
            {
                "ansible.builtin.copy": {
                    "content": "{{ dict(groups.all | zip(texts)) | to_json }}",
                    "dest": f"{directory}/rendered.json",
                    "mode": "0600",
                },
                "run_once": True,
                "vars": {"texts": "{{ groups.all | map('extract', hostvars, 'rendered') }}"},
            },
        ],
    }
    (directory / "play.yml").write_text(json.dumps([play]))
    (directory / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": CASES}}))
    local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    program = Path(sys.executable).parent / "ansible-playbook"
    done = subprocess.run(
        [program, "-i", directory / "hosts.yml", "-e", json.dumps(local), directory / "play.yml"],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_HOME": str(directory / ".ansible"), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    texts: Rendered = json.loads((directory / "rendered.json").read_text())
    return texts


def text(rendered: Rendered, name: str, case_name: str) -> str:
    return rendered[case_name][name]


@pytest.mark.parametrize("case_name", CASES)
@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_every_file_says_whose_it_is_and_ends_as_a_text(
    rendered: Rendered, name: str, case_name: str
) -> None:
    lines = text(rendered, name, case_name).split("\n")
    assert {"# Ansible managed", "-- Ansible managed"} & set(lines[:3])
    assert lines[-1] == ""
    assert lines[-2] != ""
    assert [line for line in lines if line != line.rstrip()] == []
    if name in CODE:
        return  # code that stands elsewhere, and means its None
    honest = re.sub("accesslog = None|If-None-Match|AllowOverride None", "", "\n".join(lines))
    assert re.search(r"\{\{|\}\}|\{%|%\}|\bNone\b", honest) is None


# -- gunicorn --------------------------------------------------------------------------------------

COMMON = {
    "proc_name": "hello",
    "worker_tmp_dir": "/dev/shm",
    "keepalive": 5,
    "forwarded_allow_ips": "",
    "forwarder_headers": "",
    "secure_scheme_headers": {"X-FORWARDED-PROTO": "https"},
    "accesslog": None,
    "errorlog": "-",
    "control_socket_disable": True,
}
DEFAULT_TIMES = {"timeout": 30, "graceful_timeout": 35, "max_requests": 10000, "max_requests_jitter": 1000}


@pytest.mark.parametrize(
    ("case_name", "own"),
    [
        (
            "full-13",
            {
                "wsgi_app": 'hello:create_app("50%", debug=False)',
                "worker_class": "gthread",
                "workers": 3,
                "threads": 4,
                "timeout": 90,
                "graceful_timeout": 95,
                "max_requests": 500,
                "max_requests_jitter": 50,
            },
        ),
        (
            "gevent-13",
            {
                **DEFAULT_TIMES,
                "wsgi_app": "hello:app",
                "worker_class": "gevent",
                "workers": 2,
                "worker_connections": 250,
                "timeout": 1,
                "graceful_timeout": 6,
            },
        ),
        ("sync-12", {**DEFAULT_TIMES, "wsgi_app": "hello:app", "worker_class": "sync", "workers": 4}),
    ],
)
def test_settings_of_gunicorn(rendered: Rendered, case_name: str, own: dict[str, Any]) -> None:
    settings: dict[str, Any] = {}
    early, hooks, others = [], [], []
    for statement in ast.parse(text(rendered, "gunicorn/templates/gunicorn.conf.py.j2", case_name)).body:
        if isinstance(statement, ast.FunctionDef):
            hooks.append(statement.name)
        elif isinstance(statement, ast.With):
            early.append(ast.unparse(statement))
        elif isinstance(statement, ast.Assign):
            (target,) = statement.targets
            assert isinstance(target, ast.Name)
            assert target.id not in settings
            if not target.id.startswith("_"):
                settings[target.id] = ast.literal_eval(statement.value)
        elif isinstance(statement, ast.ClassDef):
            others.append(f"class {statement.name}")
        else:
            others.append(ast.unparse(statement))
    assert others == [
        *("import contextvars", "import logging", "import os", "import re", "import sys"),
        *(
            "from contextlib import suppress",
            "sys.stdout.reconfigure(line_buffering=True)",
            "class _Formatter",
        ),
    ]
    assert hooks == ["_id", "pre_request", "post_request", "_without", "_drop", "post_worker_init"]
    assert settings == {**COMMON, **own}
    imports = ["with suppress(ImportError):\n    import flask"]
    assert early == ([] if own["worker_class"] == "gevent" else imports)


def test_environment_of_an_app(rendered: Rendered) -> None:
    assert text(rendered, "gunicorn/templates/environment.j2", "full-13") == (
        "#\n"
        "# Ansible managed\n"
        "#\n"
        'FORWARDED_HOPS="1"\n'
        'GREETING="say \\"hi\\" to \\$USER, it\'s 100%"\n'
        'LIMIT="5"\n'
        'SHARED_DIRECTORY="/srv/hello/shared"\n'
        'zone=" two  words "\n'
        'EXTRA="1"\n'
        'SECRET_KEY="b\\"ack\\\\slash \\`x\\` \\$y"\n'
    )


# -- units -----------------------------------------------------------------------------------------

Sections = dict[str, dict[str, str]]


def sections(unit: str) -> Sections:
    """Read a unit. systemd has no comments behind values: they would be part of them."""
    found: Sections = {}
    section = ""
    for line in unit.splitlines():
        if not line or line.startswith("#"):
            continue
        if header := re.fullmatch(r"\[(\w+)\]", line):
            section = header[1]
            assert section not in found
            found[section] = {}
            continue
        key, sign, value = line.partition("=")
        assert sign, line
        assert re.fullmatch(r"[A-Z][A-Za-z]+", key), line
        if key == "EnvironmentFile" and value.startswith("-"):
            key = "optional EnvironmentFile"  # one that must be there, and one that need not
        if key == "SystemCallFilter" and key in found[section]:  # what it allows, then what of that not
            value = f"{found[section].pop(key)}\n{value}"
        assert key not in found[section], line
        assert not re.search(r"\s[#;]", value), line
        assert not line.endswith("\\"), line
        found[section][key] = value
    return found


def test_secrets_as_variables_or_as_files(rendered: Rendered) -> None:
    variables = {
        name: text(rendered, "gunicorn/templates/environment.j2", name).splitlines()[1:]
        for name in ("full-13", "files-13")
    }
    assert variables["full-13"][-2:] == ['EXTRA="1"', r'SECRET_KEY="b\"ack\\slash \`x\` \$y"']
    assert variables["files-13"][2:] == ['FORWARDED_HOPS="1"', 'SHARED_DIRECTORY="/srv/hello/shared"']
    lines = text(rendered, "gunicorn/templates/credentials.j2", "files-13").splitlines()
    assert json.loads("\n".join(line for line in lines if not line.startswith("#"))) == SECRETS
    settings = "gunicorn/templates/gunicorn.conf.py.j2"
    assert '\nfor _name in ["EXTRA", "SECRET_KEY"]:\n' in text(rendered, settings, "files-13")
    assert "_FILE" not in text(rendered, settings, "full-13")


def test_the_service_gets_files_where_the_release_has_them() -> None:
    unit = (ROOT / "roles/gunicorn/templates/service.j2").read_text()
    assert "\nLoadCredential=secret:{{ gunicorn_service.releases }}/%i/credentials\n" in unit
    assert "\nEnvironmentFile=-{{ gunicorn_service.releases }}/%i/credentials.environment\n" in unit
    assert (credentials.DIRECTORY, credentials.VARIABLES) == ("credentials", "credentials.environment")
    assert credentials.PREFIX == "secret_"


@pytest.mark.parametrize("case_name", CASES)
def test_sections_of_the_service(rendered: Rendered, case_name: str) -> None:
    unit = sections(text(rendered, "gunicorn/templates/service.j2", case_name))
    assert list(unit) == ["Unit", "Service", "Install"]
    assert unit["Unit"]["StartLimitIntervalSec"] == "0"
    assert unit["Unit"]["Requires"] == "flask-hello@%i.socket"
    assert unit["Install"] == {"WantedBy": "multi-user.target"}
    service = unit["Service"]
    assert {
        "Type": "notify",
        "NotifyAccess": "main",
        "KillMode": "mixed",
        "Restart": "always",
    }.items() <= service.items()
    assert (service["User"], service["Group"]) == ("hello", "hello")
    assert service["ProtectSystem"] == "strict"
    assert service["CapabilityBoundingSet"] == ""
    # Without a limit, the pause alone keeps a loop from burning a processor.
    assert service["RestartSec"] == "2"


@pytest.mark.parametrize(
    ("case_name", "stop", "graceful", "start"),
    [("full-12", 100, 95, 55), ("gevent-12", 11, 6, 55), ("sync-13", 40, 35, 55)],
)
def test_systemd_waits_longer_than_gunicorn(
    rendered: Rendered, case_name: str, stop: int, graceful: int, start: int
) -> None:
    service = sections(text(rendered, "gunicorn/templates/service.j2", case_name))["Service"]
    assert (int(service["TimeoutStopSec"]), int(service["TimeoutStartSec"])) == (stop, start)
    settings = text(rendered, "gunicorn/templates/gunicorn.conf.py.j2", case_name)
    assert f"\ngraceful_timeout = {graceful}\n" in settings
    assert stop > graceful


def test_command_of_the_service(rendered: Rendered) -> None:
    service = sections(text(rendered, "gunicorn/templates/service.j2", "full-13"))["Service"]
    assert service["ExecStart"] == (
        "/srv/hello/releases/%i/venv/bin/gunicorn --config /srv/hello/releases/%i/gunicorn.conf.py"
    )
    elsewhere = sections(text(rendered, "gunicorn/templates/service.j2", "sync-13"))["Service"]
    assert elsewhere["WorkingDirectory"] == "/mnt/apps/hello/releases/%i/src"
    assert elsewhere["ReadWritePaths"] == "/mnt/apps/hello/shared /var/log/flask/hello"


@pytest.mark.parametrize(
    ("case_name", "memory", "tasks"),
    [("full-13", ("750M", "1G"), "512"), ("gevent-12", ("infinity", "80%"), "4096")],
)
def test_limits_of_the_service(
    rendered: Rendered, case_name: str, memory: tuple[str, str], tasks: str
) -> None:
    service = sections(text(rendered, "gunicorn/templates/service.j2", case_name))["Service"]
    units = {"750M": "786432000", "1G": "1073741824"}
    assert (service["MemoryHigh"], service["MemoryMax"]) == tuple(units.get(one, one) for one in memory)
    assert (service["TasksMax"], service["Slice"]) == (tasks, "flask-hello.slice")
    # One worker that is ended is replaced by the master; the others go on.
    assert (service["OOMPolicy"], service["OOMScoreAdjust"]) == ("continue", "500")


@pytest.mark.parametrize(("case_name", "weight"), [("full-13", "300"), ("gevent-12", "100")])
def test_slice_of_an_app(rendered: Rendered, case_name: str, weight: str) -> None:
    unit = sections(text(rendered, "gunicorn/templates/slice.j2", case_name))
    assert unit == {"Unit": {"Description": "All that runs of hello"}, "Slice": {"CPUWeight": weight}}


def test_an_app_is_asked_whether_it_lives(rendered: Rendered) -> None:
    path = "gunicorn/templates/liveness.conf.j2"
    settings = text(rendered, path, "sync-13").split("\n\n")[-1].splitlines()
    assert [line for line in settings if not line.startswith("#")] == [
        "name = hello",
        "unit = flask-hello",
        "home = /mnt/apps/hello",
        "origin = https://hello.example.org",
        "path = /",
        "status = 200",
        "start = 25",
        "interval = 10",
        "timeout = 5",
        "failures = 3",
    ]
    timer = sections(text(rendered, "gunicorn/templates/liveness.timer.j2", "full-13"))
    assert (timer["Timer"]["OnActiveSec"], timer["Timer"]["OnUnitInactiveSec"]) == ("4", "4")
    service = sections(text(rendered, "gunicorn/templates/liveness.service.j2", "full-13"))["Service"]
    assert service["LogLevelMax"] == "warning"
    program = text(rendered, "gunicorn/templates/liveness.py.j2", "full-13")
    assert 'if __name__ == "__main__":\n    main(System())\n' in program
    ast.parse(program)


@pytest.mark.parametrize("case_name", ["full-13", "full-12"])
def test_sandbox_of_an_app_that_says_nothing_of_it(rendered: Rendered, case_name: str) -> None:
    service = sections(text(rendered, "gunicorn/templates/service.j2", case_name))["Service"]
    assert {
        "TemporaryFileSystem": "/srv:ro /var/log:ro /dev/shm:rw,nosuid,nodev,noexec,mode=1777",
        "BindReadOnlyPaths": "/srv/hello -/srv/files",
        "NoExecPaths": "/ /tmp /var/tmp /dev/shm /srv/hello/shared /var/log/flask/hello",
        "ExecPaths": "-/srv/hello/releases/%i -/srv/hello/releases/%i/venv "
        "/usr/lib -/usr/local/lib -/usr/bin/python3",
        "MemoryDenyWriteExecute": "yes",
        "ProcSubset": "pid",
        "PrivateNetwork": "no",
        "RestrictAddressFamilies": "AF_UNIX AF_INET AF_INET6",
        "IPAddressDeny": "any",
        "IPAddressAllow": "0.0.0.0/1 128.0.0.0/2 192.0.0.0/3 "
        "::/1 8000::/2 c000::/3 e000::/4 f000::/5 f800::/6 fc00::/7 fe00::/8",
    }.items() <= service.items()
    allowed, refused, listening = service["SystemCallFilter"].splitlines()
    assert (allowed, listening) == ("@system-service", "~listen:0")
    assert {"@privileged", "io_uring_setup", "memfd_create"} <= set(refused.removeprefix("~").split())


def test_sandbox_of_apps_that_say_more(rendered: Rendered) -> None:
    open_ = sections(text(rendered, "gunicorn/templates/service.j2", "gevent-12"))["Service"]
    assert not {"MemoryDenyWriteExecute", "ProcSubset"} & open_.keys()
    assert "memfd_create" not in open_["SystemCallFilter"]
    assert open_["ExecPaths"].endswith("/venv /usr -/usr/bin/python3")
    assert open_["IPAddressAllow"] == "192.0.2.0/24 2001:db8::/32"
    closed = sections(text(rendered, "gunicorn/templates/service.j2", "sync-13"))["Service"]
    assert closed["TemporaryFileSystem"].startswith("/mnt/apps:ro /var/log:ro ")
    assert (closed["PrivateNetwork"], closed["RestrictAddressFamilies"]) == ("yes", "AF_UNIX")
    assert (closed["IPAddressDeny"], closed["IPAddressAllow"]) == ("any", "")


def test_socket_of_an_app(rendered: Rendered) -> None:
    assert text(rendered, "gunicorn/templates/socket.j2", "full-13") == (
        "#\n"
        "# Ansible managed\n"
        "#\n"
        "[Unit]\n"
        "Description=Socket of hello, release %i\n"
        "\n"
        "[Socket]\n"
        "ListenStream=/srv/hello/releases/%i/gunicorn.sock\n"
        "SocketUser=root\n"
        "SocketGroup=flask-proxy\n"
        "SocketMode=0660\n"
        "RemoveOnStop=yes\n"
        "# As many as gunicorn itself would let wait.\n"
        "Backlog=2048\n"
        "# Never give up on a service that fails to start: the socket would be gone for good.\n"
        "TriggerLimitIntervalSec=0\n"
        "\n"
        "[Install]\n"
        "WantedBy=sockets.target\n"
    )


def test_nginx_is_started_again_after_a_crash(rendered: Rendered) -> None:
    assert sections(text(rendered, "nginx/templates/service.conf.j2", "full-13")) == {
        "Unit": {"StartLimitIntervalSec": "60", "StartLimitBurst": "5"},
        "Service": {"Restart": "on-abnormal", "RestartSec": "1", "LimitNOFILE": "16384"},
    }


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd's own check needs systemd")
def test_systemd_has_nothing_against_the_units(rendered: Rendered, tmp_path: Path) -> None:
    for case_name in ("full-13", "sync-13"):
        (tmp_path / case_name).mkdir()
        units = []
        for kind in ("service", "socket"):
            units.append(str(tmp_path / case_name / f"flask-hello@.{kind}"))
            # The program comes with a release; here another one stands in for it.
            content = text(rendered, f"gunicorn/templates/{kind}.j2", case_name)
            content = re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", content, flags=re.MULTILINE)
            Path(units[-1]).write_text(content)
        command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *units]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        complaints = [line for line in done.stderr.splitlines() if "flask-hello" in line]
        assert (done.returncode, complaints) == (0, [])


# -- accounts --------------------------------------------------------------------------------------


def test_account_of_an_app(rendered: Rendered) -> None:
    assert text(rendered, "app/templates/sysusers.conf.j2", "full-13") == (
        '#\n# Ansible managed\n#\n\nu hello - "Flask app hello" /srv/hello /usr/sbin/nologin\n'
    )


def test_directories_of_an_app(rendered: Rendered) -> None:
    assert text(rendered, "app/templates/tmpfiles.conf.j2", "full-13") == (
        "#\n"
        "# Ansible managed\n"
        "#\n"
        "\n"
        "# The app passes through its home and writes in shared and logs only.\n"
        "d /srv/hello 0711 root hello -\n"
        "d /srv/hello/shared 0750 hello hello -\n"
        "d /etc/flask/hello 0750 root hello -\n"
        "d /var/log/flask/hello 0750 hello hello -\n"
    )


def test_what_all_apps_share(rendered: Rendered) -> None:
    def statements(name: str) -> list[str]:
        lines = text(rendered, name, "full-13").splitlines()
        return [line for line in lines if line and not line.startswith("#")]

    assert statements("app/templates/group.conf.j2") == ["g flask-proxy -"]
    assert statements("app/templates/state.conf.j2") == [
        "d /var/lib/flaskworks 0700 root root -",
        "d /var/log/flask-proxy 2755 root adm -",
    ]
    for role in ("nginx", "apache"):
        assert statements(f"{role}/templates/sysusers.conf.j2") == [
            "g flask-proxy -",
            "m www-data flask-proxy",
        ]


# -- nginx -----------------------------------------------------------------------------------------

Directive = tuple[list[str], list[Any]]

WORD = re.compile(
    r"""\s+|\#[^\n]*|(?P<sign>[;{}])|"(?P<quoted>(?:\\.|[^"\\])*)"|'(?P<plain>[^']*)'|(?P<bare>(?:\\.|[^\s;{}"'\\])+)"""
)


def words(configuration: str) -> Iterator[tuple[str, bool]]:
    """Return the words of a configuration of nginx, and whether each is one of its signs."""
    position = 0
    while position < len(configuration):
        match = WORD.match(configuration, position)
        assert match, configuration[position : position + 40]
        position = match.end()
        if match.lastgroup:
            quoted = match[match.lastgroup]
            if match.lastgroup in ("quoted", "plain"):
                # nginx takes no word that begins right behind a quote.
                assert position == len(configuration) or configuration[position] in " \t\n;{)", match[0]
            yield (
                re.sub(r"\\(.)", r"\1", quoted) if match.lastgroup == "quoted" else quoted,
                match.lastgroup == "sign",
            )


def directives(configuration: str) -> list[Directive]:
    """Read a configuration of nginx into directives, each with its arguments and its block."""
    levels: list[list[Directive]] = [[]]
    current: list[str] = []
    for word, is_sign in words(configuration):
        if not is_sign:
            current.append(word)
        elif word == "}":
            assert not current, f"no semicolon behind {current}"
            assert len(levels) > 1, "a closing brace too many"
            levels.pop()
        else:
            assert current, f"a lonely {word}"
            block: list[Directive] = []
            levels[-1].append((current, block))
            current = []
            if word == "{":
                levels.append(block)
    assert not current
    assert len(levels) == 1, "a closing brace is missing"
    return levels[0]


def every(block: list[Directive], name: str) -> list[list[str]]:
    """Return the arguments of each directive of this name in a block."""
    return [arguments for (found, *arguments), _block in block if found == name]


def one(block: list[Directive], name: str) -> list[str]:
    (arguments,) = every(block, name)
    return arguments


def blocks(block: list[Directive], *head: str) -> list[list[Directive]]:
    return [inner for found, inner in block if found[: len(head)] == list(head)]


@pytest.mark.parametrize("case_name", CASES)
@pytest.mark.parametrize("name", ["http", "policy", "proxy", "site"])
def test_nginx_can_read_it(rendered: Rendered, name: str, case_name: str) -> None:
    assert directives(text(rendered, f"nginx/templates/{name}.conf.j2", case_name))


def site(rendered: Rendered, case_name: str) -> list[Directive]:
    return directives(text(rendered, "nginx/templates/site.conf.j2", case_name))


def test_http2_is_spelled_as_each_release_of_debian_knows_it(rendered: Rendered) -> None:
    policies = {
        debian: directives(text(rendered, "nginx/templates/policy.conf.j2", f"full-{debian}"))
        for debian in (12, 13)
    }
    assert every(policies[12], "http2") == []
    assert every(policies[13], "http2") == [["on"]]
    assert one(policies[12], "ssl_ecdh_curve") == ["X25519:prime256v1:secp384r1"]
    assert one(policies[13], "ssl_ecdh_curve") == ["X25519MLKEM768:X25519:prime256v1:secp384r1"]
    for policy in policies.values():
        assert one(policy, "ssl_protocols") == ["TLSv1.2", "TLSv1.3"]
        assert one(policy, "ssl_session_tickets") == ["off"]

    servers = {debian: blocks(site(rendered, f"full-{debian}"), "server") for debian in (12, 13)}
    assert [every(server, "listen") for server in servers[12]] == [
        [["80"], ["[::]:80"]],
        [["443", "ssl", "http2"], ["[::]:443", "ssl", "http2"]],
        [["443", "ssl", "http2"], ["[::]:443", "ssl", "http2"]],
    ]
    assert [every(server, "listen") for server in servers[13]] == [
        [["80"], ["[::]:80"]],
        [["443", "ssl"], ["[::]:443", "ssl"]],
        [["443", "ssl"], ["[::]:443", "ssl"]],
    ]


def test_no_answer_of_an_authority_is_stapled() -> None:
    """Authorities stop giving them; a proxy that waits for one answers late or not at all."""
    templates = [*ROOT.glob("roles/nginx/templates/*"), *ROOT.glob("roles/apache/templates/*")]
    assert len(templates) > 20
    assert [path.name for path in templates if "stapling" in path.read_text().lower()] == []


def test_a_modern_policy_leaves_no_ciphers_to_choose(rendered: Rendered) -> None:
    policy = directives(text(rendered, "nginx/templates/policy.conf.j2", "sync-13"))
    assert one(policy, "ssl_protocols") == ["TLSv1.3"]
    assert every(policy, "ssl_ciphers") == []
    assert one(policy, "ssl_ecdh_curve") == ["X25519MLKEM768:X25519:prime256v1:secp384r1"]


@pytest.mark.parametrize(
    ("case_name", "verified", "told"),
    [
        ("members-13", [["on"]], ["$ssl_client_verify", "$ssl_client_s_dn"]),
        ("guests-12", [["optional"]], ["$ssl_client_verify", "$ssl_client_s_dn"]),
        ("full-13", [], ["", ""]),
    ],
)
def test_only_a_handshake_says_who_the_client_is(
    rendered: Rendered, case_name: str, verified: list[list[str]], told: list[str]
) -> None:
    *others, app = blocks(site(rendered, case_name), "server")
    assert every(app, "ssl_verify_client") == verified
    assert every(app, "ssl_client_certificate") == [
        ["/etc/flask/tls/.authorities/hello.pem"] for _ in verified
    ]
    headers = every(app, "proxy_set_header")
    assert [value for name, value in headers if name == "X-Client-Verify"] == told[:1]
    assert [value for name, value in headers if name == "X-Client-Subject"] == told[1:]
    assert [server for server in others if every(server, "ssl_verify_client")] == []


@pytest.mark.parametrize("case_name", CASES)
def test_kept_connections_end_before_an_old_release_does(rendered: Rendered, case_name: str) -> None:
    (upstream,) = blocks(site(rendered, case_name), "upstream", "flask-hello")
    root = "/mnt/apps" if case_name.startswith("sync") else "/srv"
    assert upstream == [
        (["server", f"unix:{root}/hello/current/gunicorn.sock"], []),
        (["keepalive", "32"], []),
        (["keepalive_time", "2s"], []),
        (["keepalive_timeout", "1s"], []),
    ]


def test_a_site_with_other_names_and_static_files(rendered: Rendered) -> None:
    plain, others, app = blocks(site(rendered, "full-13"), "server")
    assert one(plain, "server_name") == ["hello.example.org", "www.hello.example.org"]
    assert one(others, "server_name") == ["www.hello.example.org"]
    assert one(app, "server_name") == ["hello.example.org"]
    for server in (plain, others):
        (everything,) = blocks(server, "location", "/")
        assert one(everything, "return") == ["308", "https://hello.example.org$request_uri"]
    assert every(plain, "add_header") == []
    headers = [
        ["X-Content-Type-Options", "nosniff", "always"],
        ["Referrer-Policy", "strict-origin-when-cross-origin", "always"],
        ["Strict-Transport-Security", "max-age=3600", "always"],
        ["Content-Security-Policy", "default-src 'self'; img-src *", "always"],
    ]
    assert every(others, "add_header") == headers
    assert every(app, "add_header") == [
        ["Cache-Control", "$flask_cache"],
        *headers,
        ["Retry-After", "$flask_retry", "always"],
    ]
    assert dict(every(app, "set")) == {
        "$flask_cache": "",
        "$flask_prefix": "",
        "$flask_app": "hello",
        "$flask_retry": "",
    }
    for server in (others, app):
        assert one(server, "ssl_certificate") == ["/etc/flask/tls/hello/fullchain.pem"]
        assert one(server, "ssl_certificate_key") == ["/etc/flask/tls/hello/privkey.pem"]
        assert ["snippets/flask-policy.conf"] in every(server, "include")
    for server in (plain, others, app):
        assert one(server, "set_real_ip_from") == ["10.0.0.0/8"]
        assert one(server, "real_ip_header") == ["X-Forwarded-For"]
        assert one(server, "real_ip_recursive") == ["on"]
    assert every(app, "allow") == [["192.0.2.0/24"], ["2001:db8::/32"]]
    assert one(app, "deny") == ["all"]
    assert one(app, "auth_basic") == ["hello.example.org"]
    assert one(app, "auth_basic_user_file") == ["/etc/nginx/flask-hello.users"]
    assert dict(every(app, "proxy_set_header"))["Authorization"] == ""
    assert [every(server, "auth_basic") for server in (plain, others)] == [[], []]
    hashes = text(rendered, "nginx/templates/users.j2", "full-13").splitlines()
    assert [line for line in hashes if line.strip("#")][1:] == ["ops:$6$salt$" + "x" * 86]
    for url in ("/static/", "/media/"):
        (static,) = blocks(app, "location", "^~", url)
        assert one(static, "root") == ["/srv/hello/current/static"]
        assert one(static, "set") == ["$flask_cache", "$flask_static_cache"]
        assert every(static, "add_header") == []
        current, fallback = one(static, "try_files")
        assert current == "$uri"
        (before,) = blocks(app, "location", fallback)
        assert before == [
            (["root", "/srv/hello/previous/static"], []),
            (["try_files", "$uri", "@flask-hello"], []),
        ]
    (files,) = blocks(app, "location", "^~", "/files/")
    assert one(files, "alias") == ["/srv/files/"]
    assert one(files, "try_files") == ["$uri", "@flask-hello"]
    assert one(files, "disable_symlinks") == ["if_not_owner", "from=/srv/files"]
    # Nothing else, or the server's directives would not be inherited.
    limited: Directive = (["limit_req", "zone=flask-hello", "burst=49", "nodelay"], [])
    proxied: Directive = (["proxy_pass", "http://flask-hello"], [])
    closed: Directive = (
        ["if", "(-f", "/var/lib/flask/pages/hello.maintenance)"],
        [(["return", "503"], [])],
    )
    assert blocks(app, "location", "/") == [[closed, limited, proxied]]
    assert all(blocks(app, "location", "^~", url)[0][0] == closed for url in ("/static/", "/media/"))
    assert blocks(app, "location", "@flask-hello") == [[(["set", "$flask_cache", ""], []), limited, proxied]]
    assert one(site(rendered, "full-13"), "limit_req_zone") == [
        "$flask_client",
        "zone=flask-hello:2m",
        "rate=600r/m",
    ]
    assert one(app, "limit_req_status") == ["429"]
    assert app[-1] == (["location", "=", "/retired"], [(["return", "410"], [])])
    assert ["snippets/flask-proxy.conf"] in every(app, "include")
    assert every(app, "proxy_hide_header") == [[name] for name, *_rest in headers]
    assert one(app, "proxy_read_timeout") == ["90s"]
    assert one(app, "client_max_body_size") == ["1048576"]


def test_a_site_with_one_name_and_no_static_files(rendered: Rendered) -> None:
    plain, app = blocks(site(rendered, "sync-13"), "server")
    assert every(plain, "listen") == [["80"]]
    assert every(app, "listen") == [["443", "ssl"]]
    assert [head for head, _block in app if head[0] == "location"] == [
        ["location", "=", "/.flask-pages/error.html"],
        ["location", "=", "/.flask-pages/maintenance.html"],
        ["location", "/"],
        ["location", "@flask-hello"],
        ["location", "@unsatisfiable"],
    ]
    assert "Strict-Transport-Security" not in [name for name, *_rest in every(app, "add_header")]
    assert not re.search("limit_req(_zone)? ", text(rendered, "nginx/templates/site.conf.j2", "sync-13"))


def test_a_header_that_stands_back_has_its_value_from_a_map(rendered: Rendered) -> None:
    read = site(rendered, "gevent-13")
    assert [(head[1:], block) for head, block in read if head[0] == "map"] == [
        (
            [
                "$sent_http_content_security_policy$sent_http_x_frame_options",
                "$flask_hello_content_security_policy",
            ],
            [(["default", ""], []), (["", "frame-ancestors 'self'"], [])],
        ),
        (
            ["$sent_http_x_frame_options", "$flask_hello_x_frame_options"],
            [(["default", ""], []), (["", "SAMEORIGIN"], [])],
        ),
    ]
    _plain, app = blocks(read, "server")
    assert every(app, "add_header")[1:3] == [
        ["Content-Security-Policy", "$flask_hello_content_security_policy", "always"],
        ["X-Frame-Options", "$flask_hello_x_frame_options", "always"],
    ]
    hidden = every(app, "proxy_hide_header")
    assert ["X-Content-Type-Options"] in hidden
    assert {("Content-Security-Policy",), ("X-Frame-Options",)}.isdisjoint(map(tuple, hidden))


def test_apps_below_prefixes(rendered: Rendered) -> None:
    _plain, app = blocks(site(rendered, "shared-13"), "server")
    assert [head[1:] for head, _block in app if head[0] == "location"][2:] == [
        ["/"],
        ["@flask-hello"],
        ["=", "/reports.d"],
        ["^~", "/reports.d/static/"],
        ["@flask-reports-previous1"],
        ["^~", "/reports.d/files/"],
        ["=", "/reports.d/healthz"],
        ["/reports.d/"],
        ["@flask-reports"],
        ["=", "/reports.d/b"],
        ["/reports.d/b/"],
        ["@flask-b"],
        ["@unsatisfiable"],
    ]
    assert [head[1] for head, _block in site(rendered, "shared-13") if head[0] == "upstream"] == [
        "flask-hello",
        "flask-reports",
        "flask-b",
    ]
    (name,) = blocks(app, "location", "=", "/reports.d")
    assert one(name, "return") == ["308", "https://hello.example.org/reports.d/$is_args$args"]
    known: list[Directive] = [
        (["set", "$flask_app", "reports"], []),
        (["client_max_body_size", "1024"], []),
    ]
    closed: Directive = (
        ["if", "(-f", "/var/lib/flask/pages/reports.maintenance)"],
        [(["return", "503"], [])],
    )
    asked: list[Directive] = [
        (["limit_req", "zone=flask-reports", "burst=4", "nodelay"], []),
        (
            ["if", "($request_uri", "!~", "^/reports\\.d(?<flask_target>/.*)$)"],
            [(["return", "404"], [])],
        ),
        (["set", "$flask_prefix", "/reports.d"], []),
        (["proxy_read_timeout", "5s"], []),
        (["proxy_send_timeout", "5s"], []),
        (["proxy_pass", "http://flask-reports$flask_target"], []),
    ]
    assert blocks(app, "location", "/reports.d/") == [[*known, closed, *asked]]
    assert blocks(app, "location", "=", "/reports.d/healthz") == [[*known, *asked]]
    assert blocks(app, "location", "@flask-reports") == [[(["set", "$flask_cache", ""], []), *known, *asked]]
    (static,) = blocks(app, "location", "^~", "/reports.d/static/")
    assert one(static, "root") == ["/srv/reports/current/static"]
    assert one(static, "rewrite") == ["^/reports\\.d(/.*)$", "$1", "break"]
    # What follows the rewriting is not done.
    assert [head[0] for head, _block in static].index("rewrite") > [
        head[:2] for head, _block in static
    ].index(["set", "$flask_cache"])

    (_plain, single) = blocks(site(rendered, "alone-12"), "server")
    assert blocks(single, "location", "/") == [[(["return", "404"], [])]]
    assert len(blocks(single, "location", "/reports.d/")) == 1
    assert blocks(app, "location", "/")[0][-1] == (["proxy_pass", "http://flask-hello"], [])


def test_other_ports_are_part_of_the_origin(rendered: Rendered) -> None:
    plain, app = blocks(site(rendered, "gevent-12"), "server")
    assert every(plain, "listen") == [["8080"], ["[::]:8080"]]
    assert every(app, "listen") == [["8443", "ssl", "http2"], ["[::]:8443", "ssl", "http2"]]
    (everything,) = blocks(plain, "location", "/")
    assert one(everything, "return") == ["308", "https://hello.example.org:8443$request_uri"]
    headers = dict(every(app, "proxy_set_header"))
    assert headers["Host"] == "hello.example.org:8443"
    assert headers["X-Forwarded-Port"] == "8443"


@pytest.mark.parametrize(
    ("case_name", "http", "https"),
    [
        ("full-12", [["80"], ["[::]:80"]], [["443", "ssl", "http2"], ["[::]:443", "ssl", "http2"]]),
        ("gevent-13", [["8080"], ["[::]:8080"]], [["8443", "ssl"], ["[::]:8443", "ssl"]]),
        ("sync-13", [["80"]], [["443", "ssl"]]),
    ],
)
def test_names_that_no_site_has_are_refused(
    rendered: Rendered, case_name: str, http: list[list[str]], https: list[list[str]]
) -> None:
    shared = directives(text(rendered, "nginx/templates/http.conf.j2", case_name))
    plain, encrypted = blocks(shared, "server")
    assert every(plain, "listen") == [[*listen, "default_server"] for listen in http]
    assert every(encrypted, "listen") == [[*listen, "default_server"] for listen in https]
    assert one(encrypted, "ssl_reject_handshake") == ["on"]
    assert [one(server, "return") for server in (plain, encrypted)] == [["421"], ["421"]]


def test_each_line_of_the_access_log_is_an_object(rendered: Rendered) -> None:
    shared = directives(text(rendered, "nginx/templates/http.conf.j2", "full-13"))
    name, escape, *parts = one(shared, "log_format")
    assert (name, escape) == ("flask", "escape=json")
    line = re.sub(r"\$\w+", "0", "".join(parts))
    assert {"time", "app", "release", "client", "status", "duration", "request_id"} <= json.loads(line).keys()


WRITTEN = {
    "time": "2026-11-21T12:00:00+00:00",
    "client": "192.0.2.7",
    "host": r"a\",\"client\":\"198.51.100.9\",\"status\":401,",
}
"""What a client who is refused, and would have somebody else shut out, makes a proxy write."""


@pytest.mark.parametrize("proxy", ["nginx", "apache"])
@pytest.mark.parametrize(
    ("status", "banned"),
    [("401", "192.0.2.7"), ("403", "192.0.2.7"), ("429", "192.0.2.7"), ("200", None), ("404", None)],
)
def test_fail2ban_reads_the_lines_that_the_proxies_write(
    rendered: Rendered, proxy: str, status: str, banned: str | None
) -> None:
    if proxy == "nginx":
        shared = directives(text(rendered, "nginx/templates/http.conf.j2", "full-13"))
        form = "".join(one(shared, "log_format")[2:])
    else:
        told = text(rendered, "apache/templates/shared.conf.j2", "full-13")
        (rest,) = re.findall(r"^Define FLASK_LOG '(.*)'$", told, re.MULTILINE)
        (begin,) = re.findall(r"^LogFormat '/var/log/flask-proxy/flask.log (.*)' flask$", told, re.MULTILINE)
        form = begin.replace("${FLASK_LOG}", rest)
    values = {**WRITTEN, "status": status}
    line = re.sub(
        r'"(\w+)":("?)[^",]*("?)(?=[,}])',
        lambda field: f'"{field[1]}":{field[2]}{values.get(field[1], "0")}{field[3]}',
        form,
    )
    assert json.loads(line)["client"] == "192.0.2.7"
    rules = text(rendered, "hardening/templates/filter.conf.j2", "full-13")
    (words,) = re.findall(r"^_text = (.*)$", rules, re.MULTILINE)
    (rule,) = re.findall(r"^failregex = (.*)$", rules, re.MULTILINE)
    # As fail2ban does, which takes the time out of the line before it looks.
    rule = rule.replace("%(_text)s", words).replace("<ADDR>", "(?P<address>[0-9a-f.:]+)")
    found = re.search(rule, line.replace(WRITTEN["time"], ""))
    assert (found and found["address"]) == banned


def test_nothing_that_a_client_says_of_itself_passes(rendered: Rendered) -> None:
    headers = dict(
        every(directives(text(rendered, "nginx/templates/proxy.conf.j2", "full-13")), "proxy_set_header")
    )
    assert headers["X-Forwarded-For"] == "$remote_addr"
    assert headers["X-Forwarded-Proto"] == "$scheme"
    assert headers["X-Forwarded-Prefix"] == "$flask_prefix"
    assert {name for name, value in headers.items() if value == ""} == {
        "X-Forwarded-Server",
        "X-Forwarded-Protocol",
        "X-Forwarded-Ssl",
        "X-Forwarded-Scheme",
        "Forwarded",
        "Proxy",
    }


@pytest.mark.parametrize("case_name", ["full-13", "gevent-12", "alone-12"])
def test_the_gate_asks_with_the_headers_of_the_proxy(
    rendered: Rendered, tmp_path: Path, case_name: str
) -> None:
    snippet = directives(text(rendered, "nginx/templates/proxy.conf.j2", case_name))
    _plain, *_others, app = blocks(site(rendered, case_name), "server")
    origin = {
        "full-13": "https://hello.example.org",
        "gevent-12": "https://hello.example.org:8443",
        "alone-12": "https://hello.example.org/reports.d",
    }[case_name]
    known = {
        "$remote_addr": "127.0.0.1",
        "$scheme": "https",
        "$flask_upgrade": "",
        "$flask_connection": "",
        "$flask_prefix": "/reports.d" if case_name == "alone-12" else "",
    }
    sent = {name: known.get(value, value) for name, value in every(snippet, "proxy_set_header")}
    sent |= dict(every(app, "proxy_set_header"))
    probe = gate.request(Bench(tmp_path, origin=origin).release("hello")).decode()
    first, *lines = probe.removesuffix("\r\n\r\n").split("\r\n")
    asked = dict(line.split(": ", 1) for line in lines)
    assert first == "GET /healthz HTTP/1.1"
    assert re.fullmatch("[0-9a-f]{32}", asked.pop("X-Request-ID"))
    assert sent.pop("X-Request-ID") == "$request_id"
    visitor = {"User-Agent": "flaskworks-gate", "Accept": "*/*"}
    assert asked == {**visitor, **{name: value for name, value in sent.items() if value}}


@pytest.mark.parametrize(
    ("case_name", "ports"),
    [("full-13", "sport = :80 or sport = :443"), ("gevent-13", "sport = :8080 or sport = :8443")],
)
def test_script_that_checks_nginx(rendered: Rendered, case_name: str, ports: str) -> None:
    script = text(rendered, "nginx/templates/check-nginx.sh.j2", case_name)
    done = subprocess.run(["sh", "-n"], input=script, capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    (asked,) = re.findall(r"^ *ss (.*) \|$", script, re.MULTILINE)
    assert shlex.split(asked) == ["-Hltnp", ports]


# -- Apache ----------------------------------------------------------------------------------------


def apache(configuration: str) -> list[tuple[str, list[str]]]:
    """Read a configuration of Apache into lines of words, each with the sections around it."""
    around: list[str] = []
    found: list[tuple[str, list[str]]] = []
    for line in configuration.replace("\\\n", " ").splitlines():
        words = [
            next(filter(None, match), "")
            for match in re.findall(r'"((?:\\.|[^"\\])*)"|\'([^\']*)\'|(\S+)', line.strip())
        ]
        if not words or line.strip().startswith("#"):
            continue
        if words[0].startswith("</"):
            assert around.pop().split()[0] == words[0][2:-1]
        elif words[0].startswith("<"):
            around.append(line.strip()[1:-1])
        else:
            found.append(("/".join(around), words))
    assert around == []
    return found


def lines_of(rendered: Rendered, template: str, case_name: str, section: str = "") -> list[list[str]]:
    read = apache(text(rendered, f"apache/templates/{template}.conf.j2", case_name))
    return [words for around, words in read if around == section]


@pytest.mark.parametrize("case_name", CASES)
@pytest.mark.parametrize("name", ["ports", "shared", "policy", "tls", "proxy", "site"])
def test_apache_sections_are_closed(rendered: Rendered, name: str, case_name: str) -> None:
    assert apache(text(rendered, f"apache/templates/{name}.conf.j2", case_name))


@pytest.mark.parametrize(
    ("case_name", "ports"),
    [
        ("full-13", [["Listen", "80", "http"], ["Listen", "443", "https"]]),
        ("gevent-12", [["Listen", "8080", "http"], ["Listen", "8443", "https"]]),
        ("sync-13", [["Listen", "0.0.0.0:80", "http"], ["Listen", "0.0.0.0:443", "https"]]),
    ],
)
def test_ports_of_apache(rendered: Rendered, case_name: str, ports: list[list[str]]) -> None:
    assert lines_of(rendered, "ports", case_name) == ports


def test_apache_sites_with_other_names(rendered: Rendered) -> None:
    read = apache(text(rendered, "apache/templates/site.conf.j2", "full-13"))
    names = [words[1:] for _around, words in read if words[0] in ("ServerName", "ServerAlias")]
    assert names == [
        ["hello.example.org"],
        ["hello.example.org", "www.hello.example.org"],
        ["www.hello.example.org"],
        ["www.hello.example.org"],
        ["hello.example.org"],
    ]
    assert [words for _around, words in read if words[0] == "ProxyPass"] == [
        [
            "ProxyPass",
            "/",
            "unix:/srv/hello/current/gunicorn.sock|http://flask-hello/",
            "nocanon",
            "retry=0",
            "disablereuse=on",
            "connectiontimeout=5",
            "timeout=90",
            "upgrade=websocket",
        ]
    ]
    assert [words[1] for _around, words in read if words[0] == "LimitRequestBody"] == ["1048576"]
    headers = [words[3:] for around, words in read if words[:3] == ["Header", "always", "set"]]
    assert headers.pop() == ["Retry-After", "300", "env=REDIRECT_flask_maintenance"]
    assert headers == 2 * [
        ["X-Content-Type-Options", "nosniff"],
        ["Referrer-Policy", "strict-origin-when-cross-origin"],
        ["Strict-Transport-Security", "max-age=3600"],
        ["Content-Security-Policy", "default-src 'self'; img-src *"],
    ]


def test_an_apache_header_stands_back_for_what_the_app_says(rendered: Rendered) -> None:
    read = apache(text(rendered, "apache/templates/site.conf.j2", "gevent-13"))
    headers = [words[1:] for _around, words in read if words[0] == "Header"]
    assert [
        "always",
        "set",
        "Content-Security-Policy",
        "frame-ancestors 'self'",
        "expr=-z resp('Content-Security-Policy') && -z resp('X-Frame-Options')",
    ] in headers
    assert ["always", "set", "X-Frame-Options", "SAMEORIGIN", "expr=-z resp('X-Frame-Options')"] in headers
    unset = [name for _when, action, name, *_rest in headers if action == "unset"]
    assert unset == ["X-Content-Type-Options", "Referrer-Policy"]


def test_apache_counts_requests_where_a_site_has_a_limit(rendered: Rendered) -> None:
    """The module is loaded for no other host, and a client of one site is not refused by another."""
    full = apache(text(rendered, "apache/templates/site.conf.j2", "full-13"))
    assert lines_of(rendered, "limits", "full-13") == [
        ["QS_CondClientEventLimitCount", "51", "4", "flask-hello", "^flask-hello$"]
    ]
    assert lines_of(rendered, "limits", "shared-13") == [
        ["QS_CondClientEventLimitCount", "6", "9", "flask-reports", "^flask-reports$"]
    ]
    assert lines_of(rendered, "limits", "sync-13") == []
    rules = [words for _around, words in full if words[0] == "RewriteRule"]
    assert rules[-1] == ["RewriteRule", "^", "-", "[E=flask-hello:1,E=QS_Cond:flask-hello]"]
    shared = lines_of(rendered, "shared", "full-13")
    assert ["QS_ErrorResponseCode", "429"] in shared
    assert ["QS_ClientIpFromHeader", "Flask-Client"] in shared
    assert ["RequestHeader", "set", "Flask-Client", "expr=%{REMOTE_ADDR}", "early"] in shared
    assert ["RequestHeader", "unset", "Flask-Client"] in shared
    assert "mod_qos.so" in text(rendered, "apache/templates/shared.conf.j2", "full-13")
    for name in ("shared", "site"):
        assert "qos" not in text(rendered, f"apache/templates/{name}.conf.j2", "sync-13").lower()


def test_lines_of_a_description_stand_in_one_virtual_host_before_the_app(rendered: Rendered) -> None:
    read = apache(text(rendered, "apache/templates/site.conf.j2", "full-13"))
    places = [number for number, (_around, words) in enumerate(read) if words == ["Redirect", "410"]]
    assert [read[place][0] for place in places] == ['VirtualHost *:443/Location "/retired"']
    assert places[0] < [words[0] for _around, words in read].index("ProxyPass")


def test_apache_apps_below_prefixes(rendered: Rendered) -> None:
    read = apache(text(rendered, "apache/templates/site.conf.j2", "shared-13"))
    handed = [words[1:3] for _around, words in read if words[0] == "ProxyPass"]
    assert handed == [
        ["/reports.d/b", "unix:/srv/b/current/gunicorn.sock|http://flask-b"],
        ["/reports.d", "unix:/srv/reports/current/gunicorn.sock|http://flask-reports"],
        ["/", "unix:/srv/hello/current/gunicorn.sock|http://flask-hello/"],
    ]
    told = [words[2:] for _around, words in read if words[:2] == ["RequestHeader", "set"]]
    assert [words for words in told if words[0] == "X-Forwarded-Prefix"] == [
        ["X-Forwarded-Prefix", "/reports.d", "expr=reqenv('flask_mount') == 'reports'"],
        ["X-Forwarded-Prefix", "/reports.d/b", "expr=reqenv('flask_mount') == 'b'"],
    ]
    assert [(around, words[1]) for around, words in read if words[0] == "LimitRequestBody"] == [
        ('VirtualHost *:443/Location "/"', "10485760"),
        ('VirtualHost *:443/Location "/reports.d/"', "1024"),
        ('VirtualHost *:443/Location "/reports.d/b/"', "10485760"),
    ]
    logs = [words[2:] for around, words in read if words[0] == "CustomLog" and around][-3:]
    assert logs == [
        ["flask-reports", "expr=reqenv('flask_mount') == 'reports'"],
        ["flask-b", "expr=reqenv('flask_mount') == 'b'"],
        ["flask-hello", "expr=! reqenv('flask_mount') in { 'reports', 'b' }"],
    ]


def test_the_jumps_over_a_directory_skip_all_its_rules(rendered: Rendered) -> None:
    """What is no file in the release is looked for in the one before, and then goes to the app."""
    read = apache(text(rendered, "apache/templates/site.conf.j2", "full-13"))
    rules = [words for _around, words in read if words[0] == "RewriteRule"]
    jumps = [number for number, words in enumerate(rules) if words[-1] == "[S=5]"]
    assert len(jumps) == 4
    for jump in jumps:
        assert rules[jump + 5][2].endswith("/static%{ENV:flask_file}")
        assert rules[jump + 5][3] == "[E=flask_static:1,END]"


def test_apache_speaks_tls_as_the_plan_says(rendered: Rendered) -> None:
    for debian, groups in (
        ("12", "X25519:prime256v1:secp384r1"),
        ("13", "X25519MLKEM768:X25519:prime256v1:secp384r1"),
    ):
        lines = lines_of(rendered, "tls", f"full-{debian}")
        assert ["SSLProtocol", "-all", "+TLSv1.2", "+TLSv1.3"] in lines
        assert ["SSLOpenSSLConfCmd", "Groups", groups] in lines
        assert ["SSLSessionTickets", "off"] in lines
        assert ["Protocols", "h2", "http/1.1"] in lines


def test_each_line_of_the_access_log_of_apache_is_an_object(rendered: Rendered) -> None:
    (define,) = [words for words in lines_of(rendered, "shared", "full-13") if words[0] == "Define"]
    (form,) = [words for words in lines_of(rendered, "site", "full-13") if words[0] == "LogFormat"]
    file, line = form[1].replace("${FLASK_LOG}", define[2]).split(" ", 1)
    assert file == "/var/log/flask-proxy/flask-hello.log"
    line = re.sub(r"%(\{[^}]*\}|>)?[a-zA-Z]", "0", line)
    shared = directives(text(rendered, "nginx/templates/http.conf.j2", "full-13"))
    nginx = re.sub(r"\$\w+", "0", "".join(one(shared, "log_format")[2:]))
    assert json.loads(line).keys() == json.loads(nginx).keys()
    assert form[2] == "flask-hello"


def test_nothing_that_a_client_says_of_itself_passes_apache(rendered: Rendered) -> None:
    lines = [words[1:] for words in lines_of(rendered, "proxy", "full-13") if words[0] == "RequestHeader"]
    assert dict(words[1:] for words in lines if words[0] == "set") == {
        "X-Forwarded-For": "expr=%{REMOTE_ADDR}",
        "X-Forwarded-Proto": "expr=%{REQUEST_SCHEME}",
        "X-Real-IP": "expr=%{REMOTE_ADDR}",
        "X-Request-ID": "%{UNIQUE_ID}e",
    }
    assert {words[1] for words in lines if words[0] == "unset"} == {
        "X-Forwarded-Prefix",
        "X-Forwarded-Server",
        "X-Forwarded-Protocol",
        "X-Forwarded-Ssl",
        "X-Forwarded-Scheme",
        "Forwarded",
        "Proxy",
        "Connection",
    }


def test_apache_is_started_again_after_a_crash(rendered: Rendered) -> None:
    assert sections(text(rendered, "apache/templates/service.conf.j2", "full-13")) == {
        "Unit": {
            "StartLimitIntervalSec": "60",
            "StartLimitBurst": "5",
            "Requires": "flaskworks-logs.socket",
            "After": "flaskworks-logs.socket flaskworks-logs.service",
        },
        "Service": {
            "Restart": "on-abnormal",
            "RestartSec": "1",
            "UMask": "0027",
            "Environment": "TMPDIR=/var/tmp",
        },
    }
