# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The plan: every path, limit and timeout of every app, derived once.

`resolve` is pure: it reads no file and no host. Its input is what people write, its output are the lists
that the roles take. Sizes are bytes and times are seconds.
"""

from __future__ import annotations

import ipaddress
import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.flaskworks.server.plugins.module_utils.release.request import HOOKS
from ansible_collections.flaskworks.server.plugins.plugin_utils.description import (
    DescriptionError,
    Schema,
    check,
    fill,
    merge,
    plain,
    suggestion,
)
from ansible_collections.flaskworks.server.plugins.plugin_utils.systemd import no_command, unusable

NAME_LIMIT = 31
"""Longest name of an account that systemd-sysusers and useradd take, in characters."""

SOCKET_PATH_LIMIT = 107
"""Longest path of a Unix socket in bytes: sun_path of unix(7) has 108, one of them for the final NUL."""

RELEASE_ID = "20261120T233334Z-0123456789"
"""A release's id as an example: all ids are of this length."""

RESERVED_NAMES = frozenset(
    # base-passwd of Debian, then what the packages of this collection and common neighbours create.
    [
        "root",
        "daemon",
        "bin",
        "sys",
        "sync",
        "games",
        "man",
        "lp",
        "mail",
        "news",
        "uucp",
        "proxy",
        "www-data",
        "backup",
        "list",
        "irc",
        "gnats",
        "nobody",
        "nogroup",
        "adm",
        "tty",
        "disk",
        "kmem",
        "dialout",
        "fax",
        "voice",
        "cdrom",
        "floppy",
        "tape",
        "sudo",
        "audio",
        "dip",
        "operator",
        "src",
        "shadow",
        "utmp",
        "video",
        "sasl",
        "plugdev",
        "staff",
        "users",
        "input",
        "kvm",
        "render",
        "crontab",
        "messagebus",
        "sshd",
        "ssh",
        "polkitd",
        "ntp",
        "chrony",
        "dhcpcd",
        "systemd-network",
        "systemd-resolve",
        "systemd-timesync",
        "systemd-journal",
        "docker",
        "flask",
        "flask-proxy",
        "tls",
        "nginx",
        "apache",
        "apache2",
        "certbot",
        "ssl-cert",
        "postgres",
        "mysql",
        "redis",
        "memcache",
        "rabbitmq",
        "mongodb",
        "postfix",
        "exim",
        "fail2ban",
    ]
)
"""Names that belong to the system or to software that commonly lives beside an app."""

OWN_VARIABLES = frozenset(
    {
        "FLASK_RELEASE",
        "PYTHONPATH",
        "FORWARDED_HOPS",
        "SHARED_DIRECTORY",
        "NOTIFY_SOCKET",
        "LISTEN_FDS",
        "LISTEN_PID",
    }
)
"""Environment variables that a release or systemd sets."""

THREAD_MEMORY = 100 * 1024
"""Bytes that a thread of a worker costs (measured with gunicorn 27 on Python 3.13)."""

LEAST_WORKERS = 2
"""Workers of an app that does not say: one may be busy, or booting, while the other answers."""

LEAST_MEMORY = 32 * 1024**2
"""Bytes below which no app runs."""

MEMORY_SHARE = 0.6
"""Part of a host's memory that workers may take; the rest is for the system, the proxy and the page cache."""

MASTER_TASKS = 1
"""Processes of a service beside its workers."""

GEVENT_THREADS = 10
"""Threads of the pool in which a gevent worker resolves names and the like."""

LEAST_TASKS = 4096
"""Tasks of an app that needs no more: near what systemd gives, and a brake for what forks for ever."""

LEAST_FILES = 65536
"""Files that a process of an app may have open when it needs no more."""

OTHER_FILES = 64
"""Files that a worker has open beside its connections."""

NEEDS = ("jit", "proc", "subprocess")
"""What an app may be let do beyond its sandbox."""

NETWORKS = ("all", "localhost", "none")
"""Words for the network that an app may reach, beside a list."""

UNICAST = (
    *("0.0.0.0/1", "128.0.0.0/2", "192.0.0.0/3"),
    *("::/1", "8000::/2", "c000::/3", "e000::/4", "f000::/5", "f800::/6", "fc00::/7", "fe00::/8"),
)
"""All addresses of single hosts: neither multicast nor reserved or broadcast."""

SOURCE_KINDS = ("path", "git", "archive", "package")
"""The keys of a source of which exactly one says where the code is."""

ACME_WEBROOT = "/var/lib/flask/acme"
"""Where proofs for a certificate authority (RFC 8555, HTTP-01) are written and every proxy looks for them."""

ACME_DIRECTORY = "https://acme-v02.api.letsencrypt.org/directory"
ACME_STAGING = "https://acme-staging-v02.api.letsencrypt.org/directory"

ACME_KEYS = ("email", "directory", "staging", "root", "profile", "eab", "dns", "reachable")
"""Keys of tls that only the provider acme has."""

GOOD_KEY = "make one with python3 -c 'import secrets; print(secrets.token_hex(32))'"

NO_DNS = {"server": None, "port": 53, "key": None, "algorithm": "HMAC-SHA512", "secret": None, "wait": 60}
"""What a certificate says of a name server when the proof is asked for over HTTP."""

POLICY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "strict-origin-when-cross-origin",
}

FRAME_HEADERS = {
    # With frame-ancestors, browsers do not look at X-Frame-Options, so who says only the latter gets none.
    "Content-Security-Policy": ("frame-ancestors 'self'", ("Content-Security-Policy", "X-Frame-Options")),
    "X-Frame-Options": ("SAMEORIGIN", ("X-Frame-Options",)),
}
"""Who may show the site in a frame: values, and the headers in whose presence they are not sent."""

PROXY_HEADERS = frozenset(
    [
        "connection",
        "content-length",
        "content-type",
        "date",
        "keep-alive",
        "location",
        "server",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "x-request-id",
    ]
)
"""Headers of an answer that belong to the proxy, in lower case."""

HASHED_NAME = (
    r"[/._-](?!(?:19|20)\d{6})(?=[0-9a-f]*[a-f])(?=[0-9a-f]*[0-9])[0-9a-f]{8,64}(?:\.[0-9A-Za-z]+)+$"
)
"""A static file with a hash of its content in its name, as bundlers write it: app.3f2a91bc.js.

At least eight hexadecimal digits, letters and figures among them, and not what begins like a date: a file
that is taken for one by mistake would stay in browsers for a year.
"""

TLS_POLICIES: Mapping[str, Mapping[str, Sequence[str]]] = {
    # Mozilla's guidelines 6.0. All suites of TLS 1.3 are good, so only those of TLS 1.2 are chosen (no DHE).
    "intermediate": {
        "protocols": ("TLSv1.2", "TLSv1.3"),
        "ciphers": (
            "ECDHE-ECDSA-AES128-GCM-SHA256",
            "ECDHE-RSA-AES128-GCM-SHA256",
            "ECDHE-ECDSA-AES256-GCM-SHA384",
            "ECDHE-RSA-AES256-GCM-SHA384",
            "ECDHE-ECDSA-CHACHA20-POLY1305",
            "ECDHE-RSA-CHACHA20-POLY1305",
        ),
    },
    "modern": {"protocols": ("TLSv1.3",), "ciphers": ()},
}
"""What `flask_defaults.tls_policy` may name."""

PAGES = "/var/lib/flask/pages"
"""Where proxies find the pages that they send instead of an answer of the app."""

AUTHORITIES = "/etc/flask/tls/.authorities"
"""Where proxies find the authorities of client certificates."""

PROXY_LOGS = "/var/log/flask-proxy"
"""Where proxies write. Their account and the apps' may not; and no rule of the distribution rotates it."""

SITE_KEYS = (
    "tls",
    "client_certificates",
    "hsts",
    "headers",
    "error_page",
    "maintenance_page",
    "allow",
    "basic_auth",
    "trusted_proxies",
    "raw",
)
"""Keys that hold for all apps of a domain, and are told by the one that owns its site."""

MOUNT_KEYS = (
    "name",
    "prefix",
    "upstream",
    "socket",
    "static",
    "directories",
    "request_limit",
    "timeout",
    "keepalive",
    "rate_limit",
)
"""What each app of a site has of its own, beside the switch of its maintenance."""

HOST_KEYS = frozenset({"ports", "tls_policy"})
"""Defaults that hold for a host, not for each of its apps."""

# What a service cannot see (ProtectHome, PrivateTmp), what is gone after a boot, what is the system's.
_NO_ROOT = re.compile(
    r"/(home|root|run|tmp|var|usr|etc|boot|dev|proc|sys|bin|sbin|lib|lib64)$|"
    r"/(home|root|run|tmp|var/tmp|var/run|usr|etc|boot|dev|proc|sys)/"
)
_NO_INTERPRETER = re.compile(r"/(home|root|run|tmp|var/tmp)/")
# What no visitor may read, by mistake or at all.
_NO_FILES = re.compile(r"/(home|tmp|var|usr|srv)$|/(root|etc|boot|dev|proc|sys|run|var/log|var/run)(/|$)")

_SIZE = re.compile(r"(\d{1,15})([kmg]?)")
_SHARE = re.compile(r"([1-9]\d?|100)%")
_DURATION = re.compile(r"(\d{1,9})([smh]?)")
# No segment begins with a dot: such paths are the proxy's own, or hidden.
_PREFIX = re.compile(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+")
_RATE = re.compile(r"(\d{1,6})/([sm])")
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
# Costs above 10 would keep the proxy busy for a tenth of a second and more, for every request.
_PASSWORD = re.compile(
    r"\$2y\$(0[4-9]|10)\$[./A-Za-z0-9]{53}|\$6\$(rounds=[1-9]\d{3,4}\$)?[./A-Za-z0-9]{1,16}\$[./A-Za-z0-9]{86}"
)
_WSGI = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_][\w.]*(\([^\n]*\))?")
_CHECKSUM = re.compile(r"sha256:[0-9a-fA-F]{64}")
_PINNED = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?==[A-Za-z0-9][A-Za-z0-9.!+_-]*")
_REQUIREMENT_VERSIONS = re.compile(r"(\s*(~=|==|!=|<=|>=|<|>)\s*[0-9][0-9a-z.*+]*\s*(,|$))+")


@dataclass(frozen=True)
class Host:
    """What the plan has to know of a host.

    Attributes:
        cores: processors that the system sees.
        memory: bytes.
        debian: release of Debian, 12 or 13.
        assumed: True when a fact was missing and a small Debian 13 host was assumed.
    """

    cores: int
    memory: int
    debian: int
    assumed: bool


def resolve(
    schema: Schema, apps: object, defaults: object, facts: Mapping[str, Any] | None, secrets: object
) -> dict[str, Any]:
    """Return the plan of `apps`.

    Args:
        schema: the documented keys.
        apps: the list that people write (``flask_apps``).
        defaults: what holds for all of them (``flask_defaults``), or None.
        facts: the host's facts (``ansible_facts``), or None.
        secrets: ``flask_secrets`` by app and name, or None when they are not to be checked. No value is read.

    Raises:
        DescriptionError: with every problem that was found.
    """
    problems: list[str] = []
    elements = _app_list(apps, problems)
    shared = _defaults(schema, defaults, problems)
    secret_names = _secret_names(secrets, elements, problems)
    host = _host(facts or {})

    described = [_describe(schema, element, shared, where, problems) for where, element in elements]
    owners = _owners(described)
    for (where, _element), app, owner in zip(elements, described, owners, strict=True):
        owns = owner == app["name"]
        _check_app(app, where, owns, problems)
        if secret_names is not None:
            _check_secrets(app, secret_names, where, owns, problems)
    _check_names(elements, problems)
    _check_domains_together(elements, described, owners, problems)
    ports = _ports(shared, problems)
    if problems:
        raise DescriptionError(problems)

    resolved = [
        _resolve_app(app, host, described, ports, (secret_names or {}).get(app["name"], ()))
        for app in described
    ]
    plan: dict[str, Any] = {
        key: [app[key] for app in resolved]
        for key in ("accounts", "environments", "services", "releases", "certificates", "sites", "logs")
    }
    for key in ("certificates", "sites"):
        plan[key] = [
            app[key] for app, owner in zip(resolved, owners, strict=True) if app[key]["name"] == owner
        ]
    for site in plan["sites"]:
        site["mounts"] = [
            _mount(app["sites"])
            for app, owner in zip(resolved, owners, strict=True)
            if owner == site["name"] != app["sites"]["name"]
        ]
    plan["logs"].append(_proxy_logs(schema, shared))
    plan["policy"] = _policy(host, ports, shared.get("tls_policy", "intermediate"))
    plan["host"] = {
        "cores": host.cores,
        "memory": host.memory,
        "debian": host.debian,
        "assumed": host.assumed,
    }
    return plan


def size(text: str) -> int | None:
    """Return the bytes that `text` says ("10m" is 10 * 1024 ** 2), or None when it is no size."""
    match = _SIZE.fullmatch(text.strip().lower())
    return int(match[1]) * 1024 ** " kmg".index(match[2] or " ") if match else None


def duration(text: str) -> int | None:
    """Return the seconds that `text` says ("5m" is 300), or None when it is no time."""
    match = _DURATION.fullmatch(text.strip().lower())
    return int(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]] if match else None


def rate(text: str) -> int | None:
    """Return the requests a minute that `text` says ("10/s" is 600), or None when it is no rate."""
    match = _RATE.fullmatch(text.strip().lower())
    return int(match[1]) * {"s": 60, "m": 1}[match[2]] if match else None


def _app_list(apps: object, problems: list[str]) -> list[tuple[str, dict[str, Any]]]:
    """Return the elements that are dictionaries, each with the place that a sentence names."""
    apps = plain(apps)
    if isinstance(apps, dict):
        problems.append(
            "flask_apps: must be a list of apps, each with a 'name'; write '- name: "
            + str(next(iter(apps), "hello"))
            + "'"
        )
        return []
    if not isinstance(apps, list):
        problems.append("flask_apps: must be a list of apps, each with a 'name'")
        return []
    elements = []
    for index, element in enumerate(apps):
        if isinstance(element, dict):
            name = element.get("name")
            elements.append(
                (f"flask_apps.{name}" if isinstance(name, str) and name else f"flask_apps[{index}]", element)
            )
        else:
            problems.append(f"flask_apps[{index}]: must be a dictionary with a 'name'")
    return elements


def _defaults(schema: Schema, defaults: object, problems: list[str]) -> dict[str, Any]:
    defaults = plain(defaults)
    if defaults is None:
        return {}
    if not isinstance(defaults, dict):
        problems.append("flask_defaults: must be a dictionary")
        return {}
    checked = check(defaults, schema.defaults, "flask_defaults", problems)
    checked.update(_logs(schema, checked, "flask_defaults", problems))
    if "worker_class" in checked:
        _check_workers({"threads": None, "connections": None, **checked}, "flask_defaults", problems)
    return checked


def _secret_names(
    secrets: object, elements: list[tuple[str, dict[str, Any]]], problems: list[str]
) -> dict[str, list[str]] | None:
    """Return the names of the secrets by app, or None when they are not to be checked. No value is read."""
    if secrets is None:
        return None
    if not isinstance(secrets, Mapping):
        problems.append("flask_secrets: must be a dictionary, by app and name")
        return None
    apps = [str(element.get("name")) for _where, element in elements]
    names: dict[str, list[str]] = {}
    for app, values in secrets.items():
        if app not in apps:
            problems.append(f"flask_secrets.{app}: there is no such app{suggestion(str(app), apps)}")
        elif not isinstance(values, Mapping):
            problems.append(f"flask_secrets.{app}: must be a dictionary of names and values")
        else:
            names[str(app)] = [str(name) for name in values]
    return names


def _host(facts: Mapping[str, Any]) -> Host:
    # Not everywhere are they numbers: Debian's next release has none yet. The roles refuse such a host.
    names = ("processor_vcpus", "memtotal_mb", "distribution_major_version")
    texts = [str(facts.get(name, "")) for name in names]
    cores, megabytes, debian = (int(text) if text.isdecimal() else None for text in texts)
    return Host(
        cores=cores or 2,
        memory=(megabytes or 2048) * 1024 * 1024,
        debian=debian or 13,
        assumed=None in (cores, megabytes, debian),
    )


def _describe(
    schema: Schema, element: dict[str, Any], shared: Mapping[str, Any], where: str, problems: list[str]
) -> dict[str, Any]:
    """Return the description of one app with every key, defaults filled in."""
    described = check(element, schema.app, where, problems)
    health = described.get("health", schema.app["health"].default)
    if isinstance(health, str):
        described["health"] = {"path": health}
    elif isinstance(health, dict):
        described["health"] = check(health, schema.app["health"].options, f"{where}.health", problems)
    else:
        problems.append(f"{where}.health: must be a path or a dictionary with a 'path'")
        described["health"] = {}
    described.update(_logs(schema, described, where, problems))
    inherited = _inherited(shared, described)
    options = schema.app["liveness"].options
    for mapping, place in ((inherited, "flask_defaults"), (described, where)):
        if "liveness" in mapping:
            mapping["liveness"] = _liveness(mapping["liveness"], options, f"{place}.liveness", problems)
    app = fill(merge(inherited, described), schema.app)
    app["liveness"] = fill(app["liveness"], options) if isinstance(app["liveness"], dict) else None
    app["health"] = fill(app["health"], schema.app["health"].options)
    app["logs"] = fill(app["logs"], schema.app["logs"].options)
    return app


def _liveness(value: Any, options: Mapping[str, Any], where: str, problems: list[str]) -> Any:
    """Return the settings that are given; nothing when it is off, which `merge` puts in their place."""
    if isinstance(value, dict):
        return check(value, options, where, problems)
    if not isinstance(value, bool):
        sentence = f"{where}: must be true, false or a dictionary"
        problems.extend([sentence] if sentence not in problems else [])
    return {} if value is True else None


def _logs(
    schema: Schema, told: Mapping[str, Any], where: str, problems: list[str]
) -> dict[str, dict[str, Any]]:
    """Return the key logs as a dictionary, where it is told: a word is short for where they go."""
    logs = told.get("logs")
    if logs is None:
        return {}
    if isinstance(logs, str):
        logs = {"to": logs}
    if not isinstance(logs, dict):
        problems.append(f"{where}.logs: must be 'journal', 'files' or a dictionary")
        logs = {}
    return {"logs": check(logs, schema.app["logs"].options, f"{where}.logs", problems)}


def _inherited(shared: Mapping[str, Any], described: Mapping[str, Any]) -> dict[str, Any]:
    """Return the defaults that apply to an app: not those for another worker class or provider."""
    inherited = {key: value for key, value in shared.items() if key not in HOST_KEYS}
    kind = described.get("worker_class", shared.get("worker_class", "gthread"))
    for key, fitting in (("threads", "gthread"), ("connections", "gevent")):
        if kind != fitting:
            inherited.pop(key, None)
    own_provider = described.get("tls", {}).get("provider")
    if own_provider not in (None, shared.get("tls", {}).get("provider", "self_signed")):
        inherited.pop("tls", None)
    return inherited


def _check_app(app: dict[str, Any], where: str, owns: bool, problems: list[str]) -> None:
    """Check what one app says, beyond types. Sizes and times become numbers on the way.

    An app that does not own its site (`owns`) has no certificate, whatever the defaults say of it.

    A key that the schema has refused was told already; its default stands in, or nothing when it is required.
    """
    told = tuple(problems)

    def sound(key: str) -> bool:
        prefixes = tuple(f"{where}.{key}{mark}" for mark in ":.[")
        return app[key] is not None and not any(problem.startswith(prefixes) for problem in told)

    if sound("name"):
        _check_name(app["name"], where, problems)
    if sound("domains"):
        _check_domains(app["domains"], where, problems)
    if app["prefix"] != "/" and not _PREFIX.fullmatch(app["prefix"]):
        problems.append(
            f"{where}.prefix: '{app['prefix']}' is no path for an app; it begins with a slash, ends without "
            "one and has no directory that begins with a dot, as in /reports"
        )
    if sound("source"):
        _check_source(app["source"], where, problems)
    if sound("health"):
        _check_health(app["health"], where, problems)
    if sound("wsgi") and not _WSGI.fullmatch(app["wsgi"]):
        problems.append(f"{where}.wsgi: '{app['wsgi']}' is not 'module:variable' or 'module:factory()'")
    _check_numbers(app, where, problems)
    _check_workers(app, where, problems)
    _check_resources(app, where, problems)
    _check_liveness(app["liveness"], where, problems)
    _check_variables(app, where, problems)
    _check_tls(app["tls"], where, problems)
    if owns and sound("domains"):
        _check_wildcards(app, where, problems)
    _check_static(app["static"], where, problems)
    _check_headers(app["headers"], where, problems)
    _check_files(app, where, problems)
    _check_networks(app, where, problems)
    _check_users(app["basic_auth"], where, problems)
    _check_paths(app, where, problems)
    _check_hooks(app, where, problems)
    _check_sandbox(app, where, problems)
    if not _REQUIREMENT_VERSIONS.fullmatch(app["gunicorn"]):
        problems.append(
            f"{where}.gunicorn: '{app['gunicorn']}' is no range of versions; write one like '>=23,<28'"
        )


def _check_health(health: Mapping[str, Any], where: str, problems: list[str]) -> None:
    path = health["path"]
    if not path.startswith("/") or re.search(r"[\s\x00-\x1f\x7f]", path):
        problems.append(f"{where}.health: '{path}' is not a path; it begins with a slash and has no spaces")
    if not 100 <= health["status"] <= 599:
        problems.append(
            f"{where}.health.status: {health['status']} is not a status of HTTP; use one from 100 to 599"
        )


def _check_hooks(app: Mapping[str, Any], where: str, problems: list[str]) -> None:
    for kind in HOOKS:
        found = app[kind] if isinstance(app[kind], list) else [app[kind]]
        for command in found:
            if command is not None:
                reason = "must be a command line" if not isinstance(command, str) else no_command(command)
                problems.extend([f"{where}.{kind}: {reason}"] if reason else [])


def _commands(hook: str | list[str] | None) -> list[str]:
    return [line.strip() for line in ([hook] if isinstance(hook, str) else hook or [])]


def _check_paths(app: Mapping[str, Any], where: str, problems: list[str]) -> None:
    for key, hidden in (("root", _NO_ROOT), ("interpreter", _NO_INTERPRETER)):
        path = app[key]
        if not re.fullmatch(r"(/[A-Za-z0-9._+-]+)+", path) or posixpath.normpath(path) != path:
            problems.append(
                f"{where}.{key}: '{path}' must be an absolute path of letters, digits and . _ + -"
            )
        elif hidden.match(path):
            problems.append(
                f"{where}.{key}: '{path}' belongs to the system, is hidden from services or does not last; "
                f"choose another, as in {'/srv' if key == 'root' else '/usr/bin/python3'}"
            )
    if app["lock"] is not None and not _inside(app["lock"]):
        problems.append(
            f"{where}.lock: '{app['lock']}' must be a file inside the source, as in requirements.lock"
        )
    if app["name"] is not None:
        length = len(_socket(app, RELEASE_ID).encode())
        if length > SOCKET_PATH_LIMIT:
            problems.append(
                f"{where}: the path of its socket would have {length} bytes, "
                f"{SOCKET_PATH_LIMIT} are possible; choose a shorter name or root"
            )


def _check_name(name: str, where: str, problems: list[str]) -> None:
    if name in RESERVED_NAMES or name.startswith("systemd-"):
        problems.append(
            f"{where}.name: '{name}' belongs to the system; choose another, "
            f"as in '{name[: NAME_LIMIT - 4]}-app'"
        )
    elif not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        problems.append(
            f"{where}.name: '{name}' cannot be an account, a unit and a directory; use lower-case "
            "letters, digits and single hyphens, a letter first"
        )
    elif len(name) > NAME_LIMIT:
        problems.append(
            f"{where}.name: has {len(name)} characters, an account can "
            f"have {NAME_LIMIT}; choose a shorter one"
        )


def _check_static(static: Mapping[Any, Any], where: str, problems: list[str]) -> None:
    for url, path in static.items():
        if not re.fullmatch(r"/([A-Za-z0-9._~-]+/)+", str(url)) or {".", ".."} & set(str(url).split("/")):
            problems.append(
                f"{where}.static: '{url}' must begin and end with a slash and name "
                "at least one directory, as in /static/"
            )
        if isinstance(path, str) and path.startswith("/"):
            directory = path.rstrip("/")
            if not re.fullmatch(r"(/[A-Za-z0-9._+-]+)+", directory) or posixpath.normpath(path) != directory:
                problems.append(
                    f"{where}.static: '{path}' must be an absolute path of letters, digits and . _ + -"
                )
            elif _NO_FILES.match(directory):
                problems.append(
                    f"{where}.static: '{path}' holds what visitors must not read; give the files a directory "
                    "of their own, as in /srv/files"
                )
        elif not isinstance(path, str) or not _inside(path) or path.strip("./") == "":
            problems.append(
                f"{where}.static: '{path}' must be a path inside the source, as in src/hello/static"
            )


def _check_headers(headers: Mapping[Any, Any], where: str, problems: list[str]) -> None:
    for name, value in headers.items():
        if not re.fullmatch(r"[A-Za-z0-9-]+", str(name)):
            problems.append(f"{where}.headers: '{name}' is not the name of a header")
        elif str(name).lower() in PROXY_HEADERS:
            problems.append(f"{where}.headers: {name} is set by the proxy itself; leave it away")
        elif value is not None and (
            not isinstance(value, (str, int, float)) or re.search(r"[^ !#%-\[\]-~]", str(value))
        ):
            problems.append(
                f"{where}.headers.{name}: must be ASCII text without quotes, "
                "backslashes, dollar signs and line breaks"
            )


def _check_networks(app: Mapping[str, Any], where: str, problems: list[str]) -> None:
    if app["allow"] == []:
        problems.append(
            f"{where}.allow: is empty; leave it away, or name 0.0.0.0/0 and ::/0, to serve everybody"
        )
    for key in ("allow", "trusted_proxies"):
        for text in app[key] or []:
            network = _network(text)
            if network is None:
                problems.append(
                    f"{where}.{key}: '{text}' is not a network; write one like 192.0.2.0/24 or 2001:db8::/32"
                )
            elif str(network.network_address) != str(ipaddress.ip_interface(text).ip):
                problems.append(f"{where}.{key}: '{text}' is an address within a network; write {network}")
            elif key == "trusted_proxies" and network.prefixlen == 0:
                problems.append(
                    f"{where}.{key}: '{text}' trusts everybody, who could then claim any address; "
                    "name the networks of the proxies"
                )


def _check_sandbox(app: Mapping[str, Any], where: str, problems: list[str]) -> None:
    needs, network = app["needs"], app["network"]
    for word in dict.fromkeys(needs):
        if word == "outgoing":
            problems.append(
                f"{where}.needs: 'outgoing' is what network says, and its default 'all' allows; leave it away"
            )
        elif word not in NEEDS:
            hint = suggestion(word, NEEDS) or f"; the words are {', '.join(NEEDS)}"
            problems.append(f"{where}.needs: '{word}' is not known{hint}")
        elif needs.count(word) > 1:
            problems.append(f"{where}.needs: '{word}' is there twice")
    words = f"the words are {', '.join(NETWORKS)}"
    if isinstance(network, list):
        if not network:
            problems.append(f"{where}.network: is empty; write none, or name the networks to reach")
        for text in network:
            _check_reached(text, where, problems)
    elif not isinstance(network, str):
        problems.append(f"{where}.network: must be a word or a list of networks; {words}")
    elif network not in NETWORKS:
        hint = suggestion(network, NETWORKS) or f"; {words}"
        if _network(network):
            hint = f"; write networks as a list, as in [{network}]"
        problems.append(f"{where}.network: '{network}' is not known{hint}")


def _check_reached(text: Any, where: str, problems: list[str]) -> None:
    network = _network(text) if isinstance(text, str) else None
    if text in NETWORKS:
        hint = "write 127.0.0.0/8 and ::1" if text == "localhost" else "it stands alone, without a list"
        problems.append(f"{where}.network: '{text}' is a word, and no network of a list; {hint}")
    elif network is None:
        problems.append(
            f"{where}.network: '{text}' is not a network; write one like 192.0.2.0/24 or 2001:db8::/32"
        )
    elif str(network.network_address) != str(ipaddress.ip_interface(text).ip):
        problems.append(f"{where}.network: '{text}' is an address within a network; write {network}")
    elif network.prefixlen == 0:
        problems.append(f"{where}.network: '{text}' is every address; write all, without a list")


def _check_users(users: Mapping[Any, Any], where: str, problems: list[str]) -> None:
    for name, password in users.items():
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}", str(name)):
            problems.append(
                f"{where}.basic_auth: '{name}' is not usable as a name; use letters, digits and . _ @ -"
            )
        # Not shown: it could be the password itself.
        elif not isinstance(password, str) or not _PASSWORD.fullmatch(password):
            problems.append(
                f"{where}.basic_auth.{name}: must be the hash of a password that begins with $2y$ (at most "
                "$2y$10$) or $6$; make one with htpasswd -nB or openssl passwd -6"
            )


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """Return the network or single address that `text` is, or None."""
    try:
        # Python would take the name of an interface, too, in which anything can stand.
        return None if "%" in text else ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


def _networks(texts: list[str] | None) -> list[str]:
    return [str(_network(text)) for text in texts or []]


def _check_domains(domains: list[str], where: str, problems: list[str]) -> None:
    if not domains:
        problems.append(f"{where}.domains: is empty; name at least one, the first is canonical")
    for domain in domains:
        if domain != domain.lower():
            problems.append(f"{where}.domains: '{domain}' has capital letters; write '{domain.lower()}'")
        elif domain.startswith("*.") and domain == domains[0]:
            problems.append(
                f"{where}.domains: '{domain}' is a wildcard; the first is the name that is served, as in "
                f"{domain[2:]}"
            )
        elif re.fullmatch(r"[0-9.]+|.*:.*", domain):
            problems.append(
                f"{where}.domains: '{domain}' is an address or has a port; write a "
                "name, and ports into flask_defaults.ports"
            )
        elif len(domain) > 253 or not _is_name(domain):
            problems.append(
                f"{where}.domains: '{domain}' is not a domain name; write one like "
                "hello.example.org, without scheme and path"
            )
    for domain in domains:
        covering = [wildcard for wildcard in domains if domain != wildcard and _covered(domain, wildcard)]
        problems.extend(
            f"{where}.domains: '{wildcard}' covers '{domain}', and authorities refuse both in one "
            "certificate; leave one of them away"
            for wildcard in covering
        )
    problems.extend(
        f"{where}.domains: '{domain}' is there twice"
        for domain in sorted({d for d in domains if domains.count(d) > 1})
    )


def _is_name(domain: str) -> bool:
    """Tell whether `domain` is one in ASCII, or a wildcard for what is below one with at least two labels."""
    labels = domain.removeprefix("*.").split(".")
    return all(_LABEL.fullmatch(label) for label in labels) and not (domain[0] == "*" and len(labels) < 2)


def _covered(domain: str, wildcard: str) -> bool:
    """Tell whether a proxy gives `domain` to the site of `wildcard`, as nginx and Apache do at any depth."""
    return wildcard.startswith("*.") and domain.endswith(wildcard[1:])


def _check_source(source: Mapping[str, Any], where: str, problems: list[str]) -> None:
    given = [key for key in SOURCE_KINDS if source[key] is not None]
    if len(given) != 1:
        found = f"has none of {_listed(SOURCE_KINDS)}"
        if given:
            found = f"has {'both ' if len(given) == 2 else ''}{_listed(given)}"
        problems.append(f"{where}.source: {found}; give exactly one of them")
    for key, kinds, hint in (
        (
            "version",
            ("git",),
            "only source.git has versions; leave it away or give the repository as source.git",
        ),
        ("verify", ("git",), "only what is fetched from source.git is signed; leave it away"),
        (
            "checksum",
            ("archive", "package"),
            "only source.archive and source.package have one; leave it away",
        ),
        ("index", ("package",), "is where source.package is looked for; leave it away"),
        ("subdirectory", ("path", "git", "archive"), "a package has none; leave it away"),
    ):
        if source[key] is not None and given and not set(given) & set(kinds):
            problems.append(f"{where}.source.{key}: {hint}")
    problems.extend(
        _relative(f"{where}.source.{key}", source[key])
        for key in ("path", "verify")
        if source[key] is not None and not source[key].startswith("/")
    )
    if source["subdirectory"] is not None and not _inside(source["subdirectory"]):
        problems.append(
            f"{where}.source.subdirectory: '{source['subdirectory']}' must "
            "be a path inside the source, without .."
        )
    if source["version"] is not None and not re.fullmatch(
        r"[A-Za-z0-9][A-Za-z0-9._/@+-]*", source["version"]
    ):
        problems.append(f"{where}.source.version: '{source['version']}' is not a branch, tag or commit")
    if source["git"] is not None and (source["git"].startswith("-") or re.search(r"\s", source["git"])):
        problems.append(f"{where}.source.git: '{source['git']}' is not the address of a repository")
    _check_password(
        source["git"],
        f"{where}.source.git",
        "leave it to ssh or to Git's credential helper on the controller",
        problems,
    )
    if source["archive"] is not None:
        _check_file(source, "archive", where, problems)
    if source["package"] is not None:
        _check_package(source, where, problems)
    if source["checksum"] is not None and not _CHECKSUM.fullmatch(source["checksum"]):
        problems.append(
            f"{where}.source.checksum: '{source['checksum']}' is no checksum; "
            "write sha256: and the 64 digits that sha256sum prints"
        )


def _check_package(source: Mapping[str, Any], where: str, problems: list[str]) -> None:
    package, index = source["package"], source["index"]
    if package.endswith(".whl"):
        _check_file(source, "package", where, problems)
        if index is not None:
            problems.append(f"{where}.source.index: the wheel is named already; leave it away")
        return
    if not _PINNED.fullmatch(package):
        problems.append(
            f"{where}.source.package: '{package}' is neither one version of a package, as in hello==1.2, "
            "nor the path or address of a wheel"
        )
    if index is not None and not re.fullmatch(r"(?i)(https?://[^\s/]+(/\S*)?|/.*)", index):
        problems.append(
            f"{where}.source.index: '{index}' is neither the address of an index "
            "nor the absolute path of a directory"
        )
    _check_password(index, f"{where}.source.index", "put it into the controller's ~/.netrc", problems)


def _check_file(source: Mapping[str, Any], key: str, where: str, problems: list[str]) -> None:
    """Check a file on the controller or on a web server; what comes over the network needs a checksum."""
    text = source[key]
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text):
        if not re.fullmatch(r"(?i)https?://[^\s/]+/\S+", text):
            problems.append(f"{where}.source.{key}: '{text}' is not the address of a file; use https://…")
        _check_password(text, f"{where}.source.{key}", "put it into the controller's ~/.netrc", problems)
        if source["checksum"] is None:
            problems.append(
                f"{where}.source.checksum: is missing; a file from the network needs one, "
                "as in sha256: and the 64 digits that sha256sum prints"
            )
    elif not text.startswith("/"):
        problems.append(_relative(f"{where}.source.{key}", text))


def _check_password(address: str | None, where: str, instead: str, problems: list[str]) -> None:
    if address is not None and re.match(r"(?i)[a-z+]+://[^/@]*:[^/@]*@", address):
        problems.append(f"{where}: carries a password; {instead}")


def _is_pem(text: str | None) -> bool:
    return text is not None and "-----BEGIN" in text


def _check_files(app: Mapping[str, Any], where: str, problems: list[str]) -> None:
    authority = app["client_certificates"]["authority"]
    for key, path in (
        ("error_page", app["error_page"]),
        ("maintenance_page", app["maintenance_page"]),
        ("client_certificates.authority", None if _is_pem(authority) else authority),
    ):
        if path is not None and not path.startswith(("/", "~")):
            problems.append(_relative(f"{where}.{key}", path))
    if _is_pem(authority) and ("PRIVATE KEY" in authority or "BEGIN CERTIFICATE-----" not in authority):
        problems.append(
            f"{where}.client_certificates.authority: must be certificates and nothing else; "
            "the authority's private key does not belong on a server"
        )


def _relative(where: str, path: str) -> str:
    return (
        f"{where}: '{path}' depends on the working directory; "
        "write {{ inventory_dir }}/… or an absolute path"
    )


def _listed(words: Sequence[str]) -> str:
    return " and ".join([*([", ".join(words[:-1])] if words[:-1] else []), *words[-1:]])


def _check_numbers(app: dict[str, Any], where: str, problems: list[str]) -> None:
    """Turn sizes into bytes and times into seconds, in place."""
    for mapping, key, prefix in (
        (app, "timeout", ""),
        (app, "lock_wait", ""),
        (app, "hook_timeout", ""),
        (app, "watch", ""),
        (app, "hsts", ""),
        (app["health"], "timeout", "health."),
        (app["liveness"], "interval", "liveness."),
        (app["liveness"], "timeout", "liveness."),
    ):
        if mapping and mapping[key] is not None:
            mapping[key] = _number(
                mapping[key],
                duration,
                f"{where}.{prefix}{key}",
                "a time; write seconds, or 30s, 5m or 1h",
                problems,
            )
    for mapping, key, prefix in (
        (app, "request_limit", ""),
        (app, "worker_memory", ""),
        (app["logs"], "size", "logs."),
    ):
        mapping[key] = _number(
            mapping[key], size, f"{where}.{prefix}{key}", "a size; write bytes, or 512k, 10m or 1g", problems
        )
    if app["rate_limit"]["rate"] is not None:
        app["rate_limit"]["rate"] = _number(
            app["rate_limit"]["rate"],
            rate,
            f"{where}.rate_limit.rate",
            "a rate; write requests in a second or a minute, as in 10/s or 30/m",
            problems,
        )
    for mapping, key, prefix, least, most in (
        (app, "workers", "", 1, 512),
        (app, "threads", "", 1, 1024),
        (app, "connections", "", 1, 100_000),
        (app, "max_requests", "", 0, 10_000_000),
        (app, "keep_releases", "", 2, 1000),
        (app, "timeout", "", 1, 86_400),
        (app, "hook_timeout", "", 1, 86_400),
        (app, "watch", "", 0, 3600),
        (app["logs"], "keep", "logs.", 1, 3650),
        (app["logs"], "size", "logs.", 0, 1024**4),
        (app, "request_limit", "", 1, 1024**4),
        (app, "worker_memory", "", 1024**2, 1024**4),
        (app["health"], "timeout", "health.", 1, 3600),
        (app["health"], "interval", "health.", 0.05, 60),
        (app["health"], "successes", "health.", 1, 100),
        (app["liveness"], "interval", "liveness.", 1, 3600),
        (app["liveness"], "timeout", "liveness.", 1, 60),
        (app["liveness"], "failures", "liveness.", 1, 100),
        (app["resources"], "tasks", "resources.", 16, 4_194_304),
        (app["resources"], "files", "resources.", 256, 1_048_576),
        (app["resources"], "cpu_weight", "resources.", 1, 10_000),
        (app["tls"], "days", "tls.", 2, 397),  # browsers refuse certificates that live longer
        (app["tls"], "renew_before", "tls.", 1, 396),
        (app["rate_limit"], "burst", "rate_limit.", 2, 100_000),
    ):
        value = mapping and mapping[key]
        if isinstance(value, (int, float)) and not least <= value <= most:
            problems.append(f"{where}.{prefix}{key}: {value} is out of range; use {least} to {most}")


def _check_liveness(liveness: Mapping[str, Any] | None, where: str, problems: list[str]) -> None:
    times = [liveness[key] for key in ("timeout", "interval")] if liveness else []
    if times and None not in times and times[0] > times[1]:
        problems.append(
            f"{where}.liveness: timeout ({times[0]}) must not be more than interval ({times[1]}); "
            "an app is asked again when it has answered"
        )


def _number(text: str, parse: Any, where: str, expected: str, problems: list[str]) -> int | None:
    number: int | None = parse(text)
    if number is None:
        problems.append(f"{where}: '{text}' is not {expected}")
    return number


def _check_workers(app: dict[str, Any], where: str, problems: list[str]) -> None:
    kind = app["worker_class"]
    if app["threads"] is not None and kind != "gthread":
        problems.append(
            f"{where}: threads are for worker_class gthread, not {kind}; leave threads away or choose gthread"
        )
    if app["connections"] is not None and kind != "gevent":
        problems.append(
            f"{where}: connections are for worker_class gevent, not {kind}; "
            "leave connections away or choose gevent"
        )


def _check_resources(app: dict[str, Any], where: str, problems: list[str]) -> None:
    """Check that the app's limits leave its workers what they need; sizes of memory become bytes, in place.

    What has been told to be out of range is not told to be too little, too.
    """
    limits, where = app["resources"], f"{where}.resources"
    for key in ("memory_high", "memory_max"):
        text = limits[key]
        if text is None or _SHARE.fullmatch(text.strip()):
            limits[key] = text and text.strip()
            continue
        limits[key] = size(text)
        if limits[key] is None:
            problems.append(
                f"{where}.{key}: '{text}' is neither a size nor a share of the host's memory; "
                "write bytes, 512m, 2g or 50%"
            )
        elif limits[key] < LEAST_MEMORY:
            problems.append(f"{where}.{key}: {text} is out of range; use {LEAST_MEMORY // 1024**2}m or more")
    high, most = limits["memory_high"], limits["memory_max"]
    # A size and a share cannot be compared here; systemd takes whichever comes first.
    texts = isinstance(high, str) and isinstance(most, str) and int(high[:-1]) > int(most[:-1])
    if texts or (isinstance(high, int) and isinstance(most, int) and high > most):
        problems.append(f"{where}: memory_high is above memory_max, which comes first; make it less")
    if not isinstance(app["worker_memory"], int):
        return
    workers = app["workers"] or LEAST_WORKERS
    for key, value in (("memory_high", high), ("memory_max", most)):
        # The master is about as large as a worker.
        needed = (workers + 1) * _worker_memory(app)
        if isinstance(value, int) and LEAST_MEMORY <= value < needed:
            problems.append(
                f"{where}.{key}: {workers} workers need {-(-needed // 1024**2)}m (see worker_memory); allow "
                "that, or take fewer workers"
            )
    tasks = MASTER_TASKS + workers * _worker_tasks(app)
    if limits["tasks"] is not None and 16 <= limits["tasks"] < tasks:
        problems.append(
            f"{where}.tasks: {workers} workers with their threads are {tasks} tasks; allow that and what the "
            "app starts itself, or take fewer"
        )
    files = _connections(app) + OTHER_FILES
    if limits["files"] is not None and 256 <= limits["files"] < files:
        problems.append(
            f"{where}.files: a worker with {_connections(app)} connections needs {files}; allow that"
        )


def _check_variables(app: dict[str, Any], where: str, problems: list[str]) -> None:
    for name, value in app["config"].items():
        if not isinstance(name, str) or not _WORD.fullmatch(name):
            problems.append(
                f"{where}.config: '{name}' is not the name of an environment "
                "variable; use letters, digits and underscores"
            )
        elif name in OWN_VARIABLES:
            problems.append(f"{where}.config.{name}: is set by the release itself; choose another name")
        elif isinstance(value, bool):
            problems.append(
                f"{where}.config.{name}: YAML reads this as a truth value; "
                'quote what the app shall see, as in "on"'
            )
        elif not isinstance(value, (str, int, float)):
            problems.append(f"{where}.config.{name}: must be a string or a number")
        elif unusable(str(value)):
            problems.append(f"{where}.config.{name}: {unusable(str(value))}")
    problems.extend(
        f"{where}.secrets: '{name}' is not usable as the name of an environment variable"
        for name in app["secrets"]
        if not _WORD.fullmatch(name) or name in OWN_VARIABLES
    )


def _check_tls(tls: dict[str, Any], where: str, problems: list[str]) -> None:
    given = [key for key in ("fullchain", "privkey") if tls[key] is not None]
    if tls["provider"] == "provided" and len(given) < 2:
        problems.append(
            f"{where}.tls: provider 'provided' needs both fullchain and "
            "privkey, paths on the controller or PEM text"
        )
    if tls["provider"] != "provided" and given:
        problems.append(
            f"{where}.tls: {' and '.join(given)} are for provider 'provided', not "
            f"'{tls['provider']}'; choose one of the two ways"
        )
    _check_acme(tls, where, problems)
    if tls["renew_before"] >= tls["days"]:
        problems.append(
            f"{where}.tls: renew_before ({tls['renew_before']}) must be less than days ({tls['days']})"
        )


def _check_acme(tls: dict[str, Any], where: str, problems: list[str]) -> None:
    if tls["provider"] != "acme":
        unset = {"staging": False, "reachable": True}
        given = [key for key in ACME_KEYS if tls[key] != unset.get(key)]
        if given:
            problems.append(
                f"{where}.tls: {_listed(given)} {'is' if len(given) == 1 else 'are'} for provider 'acme', "
                f"not '{tls['provider']}'; choose one of the two ways"
            )
        return
    if tls["email"] is not None and not re.fullmatch(r"[^@\s,]+@[^@\s,]+\.[^@\s,]+", tls["email"]):
        problems.append(f"{where}.tls.email: '{tls['email']}' is not an address, as in ops@example.org")
    if tls["staging"] and tls["directory"] is not None:
        problems.append(f"{where}.tls: staging has a directory of its own; give one of directory and staging")
    if tls["directory"] is not None and not re.fullmatch(r"https://[^\s/]+(/\S*)?", tls["directory"]):
        problems.append(
            f"{where}.tls.directory: '{tls['directory']}' is not the address of a directory; use https://…"
        )
    if tls["profile"] is not None and not re.fullmatch(r"[A-Za-z0-9._-]+", tls["profile"]):
        problems.append(f"{where}.tls.profile: '{tls['profile']}' is not the name of a profile")
    if tls["root"] is not None and "-----BEGIN" not in tls["root"] and not tls["root"].startswith("/"):
        problems.append(_relative(f"{where}.tls.root", tls["root"]))
    if tls["dns"] is not None:
        _check_dns(tls["dns"], f"{where}.tls.dns", problems)
    for key, example in (("eab", "ACME_EAB_KEY"), ("dns", "ACME_DNS_KEY")):
        secret = (tls[key] or {}).get("secret")
        if secret is not None and (not _WORD.fullmatch(secret) or secret in OWN_VARIABLES):
            problems.append(
                f"{where}.tls.{key}.secret: '{secret}' is not the name of a secret, as in {example}"
            )


def _check_dns(dns: dict[str, Any], where: str, problems: list[str]) -> None:
    """Check the name server of proofs; its time becomes seconds."""
    if dns["server"] is not None and not _address(dns["server"]):
        problems.append(f"{where}.server: '{dns['server']}' is not an address, as in 192.0.2.53")
    if not 1 <= dns["port"] <= 65535:
        problems.append(f"{where}.port: {dns['port']} is not a port; use 1 to 65535")
    if dns["key"] is not None and not re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?", dns["key"]):
        problems.append(f"{where}.key: '{dns['key']}' is not the name of a key, as in acme.example.org")
    dns["wait"] = _number(
        dns["wait"], duration, f"{where}.wait", "a time; write seconds, or 30s, 5m or 1h", problems
    )
    if dns["wait"] is not None and not 1 <= dns["wait"] <= 3600:
        problems.append(f"{where}.wait: {dns['wait']} is out of range; use 1 to 3600")


def _address(text: str) -> bool:
    try:
        return bool(ipaddress.ip_address(text))
    except ValueError:
        return False


def _check_wildcards(app: Mapping[str, Any], where: str, problems: list[str]) -> None:
    tls = app["tls"]
    if tls["provider"] == "acme" and tls["dns"] is None:
        problems.extend(
            f"{where}.domains: authorities issue the wildcard '{domain}' to who can change its zone alone; "
            "say how in tls.dns, or name each domain"
            for domain in app["domains"]
            if domain.startswith("*.")
        )


def _tls_secrets(app: Mapping[str, Any]) -> list[str]:
    """Return the names of the secrets that the certificate needs; the app does not get them."""
    found = [(app["tls"][key] or {}).get("secret") for key in ("eab", "dns")]
    return [name for name in found if name]


def _check_secrets(
    app: dict[str, Any], secret_names: Mapping[str, list[str]], where: str, owns: bool, problems: list[str]
) -> None:
    """Refuse secrets that are missing, and names that are a secret and a plain variable.

    What a certificate needs, only who owns the site (`owns`) has to have.
    """
    name, config = app["name"], app["config"] or {}
    if not isinstance(name, str):
        return
    names = secret_names.get(name, [])
    problems.extend(
        (
            f"{where}: secret {secret} has no value; add it to flask_secrets.{name} "
            f"in the vault file (ansible-vault edit){f', {GOOD_KEY}' if secret == 'SECRET_KEY' else ''}"
        )
        for secret in [*app["secrets"], *(_tls_secrets(app) if owns else ())]
        if secret not in names
    )
    for secret in names:
        if app["secrets_via"] == "credentials" and f"{secret}_FILE" in config:
            problems.append(
                f"{where}.config.{secret}_FILE: is set by the release itself, with secrets_via: credentials; "
                "remove it"
            )
        if secret in config:
            problems.append(
                f"{where}: {secret} is in config and in flask_secrets; keep the one in flask_secrets"
            )
        if not _WORD.fullmatch(secret) or secret in OWN_VARIABLES:
            problems.append(
                f"flask_secrets.{name}: '{secret}' is not usable as the name of an environment variable"
            )


def _check_names(elements: list[tuple[str, dict[str, Any]]], problems: list[str]) -> None:
    names = [element.get("name") for _where, element in elements]
    problems.extend(
        f"{where}: there are two apps of this name; each app has its own"
        for number, (where, element) in enumerate(elements)
        if isinstance(element.get("name"), str) and element["name"] in names[:number]
    )


def _owners(described: list[dict[str, Any]]) -> list[str]:
    """Return for each app whose site it is part of: of those of a domain, the one at / or else the first."""
    owners: dict[tuple[str, ...], str] = {}
    for app in sorted(described, key=lambda app: app["prefix"] != "/"):
        owners.setdefault(tuple(app["domains"] or ()), app["name"])
    return [owners[tuple(app["domains"] or ())] for app in described]


def _check_domains_together(
    elements: list[tuple[str, dict[str, Any]]],
    described: list[dict[str, Any]],
    owners: list[str],
    problems: list[str],
) -> None:
    """Check that the apps of a domain differ in their prefix and in nothing that is the domain's."""
    by_name: dict[Any, dict[str, Any]] = {}
    for app in described:
        by_name.setdefault(app["name"], app)
    first: dict[str, dict[str, Any]] = {}
    seen: list[dict[str, Any]] = []
    for (where, element), app, owner in zip(elements, described, owners, strict=True):
        if by_name[app["name"]] is not app or not app["name"]:
            continue  # told already
        strangers = False
        for domain in dict.fromkeys(app["domains"] or []):
            other = first.setdefault(domain, app)
            if other is app or other["domains"] == app["domains"]:
                continue
            strangers = True
            problems.append(
                f"{where}: domain {domain} already belongs to '{other['name']}'; each domain serves one app"
                if app["prefix"] == other["prefix"] == "/"
                else f"{where}: has {domain} in common with '{other['name']}', but not all domains; write "
                "the same list for both, or a name that is its own"
            )
        for other in [] if strangers else seen:
            if other["domains"] == app["domains"]:
                _check_neighbours(where, app, other, problems)
        if owner != app["name"]:
            site = by_name[owner]
            problems.extend(
                f"{where}.{key}: is another than that of '{owner}', to whom the site of {app['domains'][0]} "
                "belongs; say it there and leave it away here"
                for key in SITE_KEYS
                if element.get(key) is not None and app[key] != site[key]
            )
        seen.append(app)
    for domain, app in first.items():
        problems.extend(
            f"flask_apps.{app['name']}: domain {domain} is covered by '{wildcard}' of '{other['name']}'; "
            "each domain serves one app"
            for wildcard, other in first.items()
            if other["domains"] != app["domains"] and domain != wildcard and _covered(domain, wildcard)
        )


def _check_neighbours(where: str, app: dict[str, Any], other: dict[str, Any], problems: list[str]) -> None:
    """Check that two apps of the same domains do not claim the same path."""
    if app["prefix"] == other["prefix"]:
        problems.extend(
            f"{where}: domain {domain} already belongs to '{other['name']}'; each domain serves one app"
            if app["prefix"] == "/"
            else f"{where}: prefix {app['prefix']} of {domain} already belongs to '{other['name']}'; "
            "each app has its own"
            for domain in app["domains"]
        )
        return
    for one, two in ((app, other), (other, app)):
        below = two["prefix"].rstrip("/") + "/"
        if not below.startswith(one["prefix"].rstrip("/") + "/"):
            continue
        problems.extend(
            f"flask_apps.{one['name']}.static: '{url}' is within the prefix of '{two['name']}'; "
            "choose another of the two"
            for url in one["static"]
            if (one["prefix"].rstrip("/") + str(url)).startswith(below)
        )


def _ports(shared: Mapping[str, Any], problems: list[str]) -> dict[str, int]:
    ports = {"http": 80, "https": 443, **shared.get("ports", {})}
    for name, port in ports.items():
        if not 1 <= port <= 65535:
            problems.append(f"flask_defaults.ports.{name}: {port} is not a port; use 1 to 65535")
    if ports["http"] == ports["https"]:
        problems.append(f"flask_defaults.ports: http and https are both {ports['http']}; they need two ports")
    return ports


def _inside(path: str) -> bool:
    """Tell whether `path` is relative and stays inside the source."""
    return bool(re.fullmatch(r"[A-Za-z0-9._+-]+(/[A-Za-z0-9._+-]+)*/?", path)) and ".." not in path.split("/")


def _socket(app: Mapping[str, Any], release: str) -> str:
    return f"{app['root']}/{app['name']}/releases/{release}/gunicorn.sock"


def _workers(app: Mapping[str, Any], host: Host, apps: int) -> int:
    """Return the number of workers: cores + 1, at least 2, capped by the app's share of memory and tasks."""
    if app["workers"] is not None:
        return int(app["workers"])
    fitting = [host.cores + 1, int(MEMORY_SHARE * host.memory / apps / _worker_memory(app))]
    limits = app["resources"]
    fitting += [
        value // _worker_memory(app) - 1
        for value in (limits["memory_high"], limits["memory_max"])
        if isinstance(value, int)
    ]
    if limits["tasks"] is not None:
        fitting.append((limits["tasks"] - MASTER_TASKS) // _worker_tasks(app))
    return max(LEAST_WORKERS, min(fitting))


def _worker_memory(app: Mapping[str, Any]) -> int:
    """Return the bytes that a worker needs with its threads."""
    return int(app["worker_memory"]) + _threads(app) * THREAD_MEMORY


def _worker_tasks(app: Mapping[str, Any]) -> int:
    """Return the tasks that a worker is."""
    extra = {"sync": 0, "gthread": _threads(app), "gevent": GEVENT_THREADS}
    return 1 + extra[app["worker_class"]]


def _threads(app: Mapping[str, Any]) -> int:
    if app["worker_class"] != "gthread":
        return 1
    return int(app["threads"] or 16)


def _connections(app: Mapping[str, Any]) -> int:
    """Return the connections that a worker has at most; one of gthread takes as many as one of gevent."""
    return 1 if app["worker_class"] == "sync" else int(app["connections"] or 1000)


def _limits(app: Mapping[str, Any], workers: int) -> dict[str, Any]:
    """Return what systemd is told of an app's resources: memory as systemd writes it, the rest as numbers."""
    limits = app["resources"]
    tasks = MASTER_TASKS + workers * _worker_tasks(app)
    return {
        "memory_high": str(limits["memory_high"] or "infinity"),
        "memory_max": str(limits["memory_max"]),
        "tasks": limits["tasks"] or max(LEAST_TASKS, 4 * tasks),
        "files": limits["files"] or max(LEAST_FILES, 2 * (_connections(app) + OTHER_FILES)),
        "cpu_weight": limits["cpu_weight"],
    }


def _resolve_app(
    app: dict[str, Any],
    host: Host,
    apps: Sequence[Mapping[str, Any]],
    ports: Mapping[str, int],
    secret_names: Any,
) -> dict[str, Any]:
    """Return what each role gets to know of one app."""
    name = app["name"]
    home = f"{app['root']}/{name}"
    configuration = f"/etc/flask/{name}"
    logs = f"/var/log/flask/{name}"
    output = f"{logs}/output.log"
    unit = f"flask-{name}"
    workers = _workers(app, host, len(apps))
    canonical, *redirects = app["domains"]
    origin = f"https://{canonical}" + ("" if ports["https"] == 443 else f":{ports['https']}")
    certificate = f"/etc/flask/tls/{name}"
    prefix = app["prefix"].rstrip("/")
    static = {url: path for url, path in app["static"].items() if not path.startswith("/")}

    # One consistent set: the proxy gives up after `timeout`; a release that is taken out of service has 5 s
    # more than the longest request, and systemd kills it only 5 s after that.
    timeout = app["timeout"]
    graceful_timeout = timeout + 5
    stop_timeout = timeout + 10

    environment = {
        "name": name,
        "directory": f"{home}/environments",
        "interpreter": app["interpreter"],
        "lock": app["lock"],
        "server": ("gunicorn[gevent]" if app["worker_class"] == "gevent" else "gunicorn")
        + app["gunicorn"].replace(" ", ""),
    }
    return {
        "accounts": {
            "name": name,
            "home": home,
            "shared": f"{home}/shared",
            "configuration": configuration,
            "logs": logs,
        },
        "environments": environment,
        "services": {
            "name": name,
            "unit": unit,
            "escaped": name.replace("-", "\\x2d"),  # a slice with a plain dash lies within another
            "account": name,
            "releases": f"{home}/releases",
            "shared": f"{home}/shared",
            "logs": logs,
            "output": output if app["logs"]["to"] == "files" else "-",
            "wsgi": app["wsgi"],
            "worker_class": app["worker_class"],
            "workers": workers,
            "threads": _threads(app),
            "worker_connections": app["connections"] or 1000,
            "worker_tmp_dir": "/dev/shm",
            "max_requests": app["max_requests"],
            "max_requests_jitter": app["max_requests"] // 10,
            "keepalive": 5,  # above the proxy's, so that gunicorn never closes an idle connection first
            "timeout": timeout,
            "graceful_timeout": graceful_timeout,
            "stop_timeout": stop_timeout,
            "start_timeout": app["health"]["timeout"] + 30,
            "resources": _limits(app, workers),
            "liveness": _asked(app, home, origin + prefix),
            "environment": {
                **{key: str(value) for key, value in app["config"].items()},
                "FORWARDED_HOPS": "1",
                "SHARED_DIRECTORY": f"{home}/shared",
            },
            "secrets": sorted({*app["secrets"], *secret_names} - {*_tls_secrets(app)}),
            "credentials": app["secrets_via"] == "credentials",
            **_sandbox(app, home, apps),
        },
        "releases": {
            "name": name,
            "unit": unit,
            "account": name,
            "home": home,
            # What is asked of a release is part of it: the next one may answer elsewhere.
            "files": [
                f"{configuration}/gunicorn.conf.py",
                *([f"{configuration}/liveness.conf"] if app["liveness"] else []),
            ],
            "environment_file": f"{configuration}/environment",
            "credentials_file": (
                f"{configuration}/credentials" if app["secrets_via"] == "credentials" else None
            ),
            "unit_files": [f"/etc/systemd/system/{unit}@.service", f"/etc/systemd/system/{unit}@.socket"],
            "source": {
                **app["source"],
                "path": app["source"]["path"] and posixpath.normpath(app["source"]["path"]),
                "checksum": app["source"]["checksum"] and app["source"]["checksum"].lower(),
                "subdirectory": (app["source"]["subdirectory"] or "").rstrip("/"),
            },
            "wsgi": app["wsgi"],
            "output": output if app["logs"]["to"] == "files" else "-",
            "static": [{"url": url, "path": path.rstrip("/")} for url, path in static.items()],
            "health": app["health"],
            "origin": origin + prefix,
            "keep_releases": app["keep_releases"],
            "linger": 4,  # measured: with the proxy's keep-alive of 2 s, 0 failures in 473,000 requests
            "lock_wait": app["lock_wait"],
            "watch": app["watch"],
            "hooks": {**{kind: _commands(app[kind]) for kind in HOOKS}, "timeout": app["hook_timeout"]},
            "environment": {key: value for key, value in environment.items() if key != "name"},
        },
        "certificates": {
            "name": name,
            "domains": app["domains"],
            "provider": app["tls"]["provider"],
            "directory": certificate,
            "fullchain": f"{certificate}/fullchain.pem",
            "privkey": f"{certificate}/privkey.pem",
            "days": app["tls"]["days"],
            "renew_before": app["tls"]["renew_before"],
            "provided": {"fullchain": app["tls"]["fullchain"], "privkey": app["tls"]["privkey"]},
            "acme": {
                "directory": app["tls"]["directory"]
                or (ACME_STAGING if app["tls"]["staging"] else ACME_DIRECTORY),
                "email": app["tls"]["email"],
                "root": app["tls"]["root"],
                "profile": app["tls"]["profile"],
                "eab": {key: (app["tls"]["eab"] or {}).get(key) for key in ("kid", "secret")},
                "dns": app["tls"]["dns"] or NO_DNS,
                "reachable": app["tls"]["reachable"],
                "webroot": ACME_WEBROOT,
                "https_port": ports["https"],
            },
        },
        "sites": {
            "name": name,
            "domains": app["domains"],
            "canonical": canonical,
            "redirects": redirects,
            "http_port": ports["http"],
            "https_port": ports["https"],
            "origin": origin,
            "prefix": prefix,
            "upstream": unit,
            "socket": f"{home}/current/gunicorn.sock",
            "static": [
                {"url": url, "root": f"{home}/current/static", "previous": f"{home}/previous/static"}
                for url in static
            ],
            "directories": [
                {"url": url, "path": path.rstrip("/")}
                for url, path in app["static"].items()
                if path.startswith("/")
            ],
            "request_limit": app["request_limit"],
            "timeout": timeout,
            "keepalive": {"connections": 32, "time": 2, "timeout": 1},
            "certificate": {
                "fullchain": f"{certificate}/fullchain.pem",
                "privkey": f"{certificate}/privkey.pem",
            },
            "client_certificates": _client_certificates(name, **app["client_certificates"]),
            "headers": _headers(app),
            "error_page": {
                "source": app["error_page"] or "error.html",
                "file": f"{PAGES}/{name}.error.html",
            },
            "maintenance": {
                "source": app["maintenance_page"] or "maintenance.html",
                "file": f"{PAGES}/{name}.maintenance.html",
                "flag": f"{PAGES}/{name}.maintenance",
                "retry_after": 300,
                "health": _watched(app),
            },
            "allow": _networks(app["allow"]),
            "users": [
                {"name": str(user), "password_hash": password} for user, password in app["basic_auth"].items()
            ],
            "trusted_proxies": _networks(app["trusted_proxies"]),
            "raw": {proxy: _lines(app["raw"][proxy]) for proxy in ("nginx", "apache")},
            "rate_limit": _rate_limit(app["rate_limit"]["rate"] or 0, app["rate_limit"]["burst"]),
        },
        "logs": {
            "name": name,
            # The output may be there although it goes to the journal: from before, or of a release before.
            "files": [
                {"path": f"{PROXY_LOGS}/{unit}.log", "account": "root"},
                {"path": output, "account": name},
            ],
            **_rotation(app["logs"]),
        },
    }


def _rotation(logs: Mapping[str, Any]) -> dict[str, Any]:
    return {key: logs[key] for key in ("every", "keep", "size", "compress")}


def _proxy_logs(schema: Schema, shared: Mapping[str, Any]) -> dict[str, Any]:
    """Return the logs that belong to no app: requests for no site, and what goes wrong in the proxy."""
    logs = fill(shared.get("logs", {}), schema.app["logs"].options)
    logs["size"] = size(logs["size"])
    return {
        "name": "proxy",
        "files": [{"path": f"{PROXY_LOGS}/{name}.log", "account": "root"} for name in ("flask", "error")],
        **_rotation(logs),
    }


def _asked(app: Mapping[str, Any], home: str, origin: str) -> dict[str, Any]:
    """Return what the host asks an app, and when it restarts it; nothing when it does not."""
    liveness, health = app["liveness"], app["health"]
    if not liveness:
        return {}
    return {
        "home": home,
        "origin": origin,
        "path": health["path"],
        "status": health["status"],
        "start": health["timeout"],
        "interval": liveness["interval"],
        "timeout": liveness["timeout"],
        "failures": liveness["failures"],
    }


def _sandbox(app: Mapping[str, Any], home: str, apps: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what the unit of an app has to know of its sandbox, of which the template has the rest."""
    roots = sorted({other["root"] for other in apps})
    # An interpreter of the distribution is a file among programs; another has a directory of its own, with
    # libraries, unless that is where the apps are.
    place = interpreter = app["interpreter"]
    elsewhere = not re.match(r"/(usr|bin)/", interpreter)
    own = posixpath.dirname(posixpath.dirname(interpreter))
    if elsewhere and own != "/" and not any(f"{root}/".startswith(f"{own}/") for root in roots):
        place = own
    needs = sorted(app["needs"])
    network = app["network"]
    allowed = {"all": UNICAST, "localhost": ("localhost",), "none": ()}
    internet = [] if network == "none" else ["AF_INET", "AF_INET6"]
    return {
        "needs": needs,
        "network": {
            "private": network == "none",
            "families": ["AF_UNIX", *internet],
            "allow": _networks(network) if isinstance(network, list) else list(allowed[network]),
        },
        "hidden": [
            root
            for root in roots
            if not any(root.startswith(f"{other}/") for other in roots if other != root)
        ],
        "visible": [
            home,
            *([f"-{place}"] if elsewhere else []),
            *[f"-{path.rstrip('/')}" for path in app["static"].values() if path.startswith("/")],
        ],
        "executable": [
            "/usr" if "subprocess" in needs else "/usr/lib",
            *([] if "subprocess" in needs else ["-/usr/local/lib"]),
            f"-{place}",
        ],
    }


def _mount(site: dict[str, Any]) -> dict[str, Any]:
    """Return what is left of a site when it is part of that of another app."""
    closed = {key: site["maintenance"][key] for key in ("flag", "health")}
    return {**{key: site[key] for key in MOUNT_KEYS}, "maintenance": closed}


def _headers(app: Mapping[str, Any]) -> list[dict[str, Any]]:
    hsts = app["hsts"]
    if hsts is None:
        tls = app["tls"]
        hsts = 0 if tls["provider"] == "self_signed" or tls["staging"] else 86_400
    policy = {**POLICY_HEADERS, **({"Strict-Transport-Security": f"max-age={hsts}"} if hsts else {})}
    own = {str(name).lower() for name in app["headers"]}
    headers = {**{name: value for name, value in policy.items() if name.lower() not in own}, **app["headers"]}
    frames = [
        {"name": name, "value": value, "unless": list(unless)}
        for name, (value, unless) in FRAME_HEADERS.items()
        if not own.intersection(map(str.lower, unless))
    ]
    return frames + [
        {"name": name, "value": str(value), "unless": []}
        for name, value in headers.items()
        if value not in (None, "")
    ]


def _client_certificates(name: str, authority: str | None, required: bool) -> dict[str, str]:
    inline = _is_pem(authority)
    return {
        "mode": "off" if authority is None else "required" if required else "optional",
        "source": "" if inline else authority or "",
        "text": authority or "" if inline else "",
        "file": f"{AUTHORITIES}/{name}.pem",
    }


def _rate_limit(rate: int, burst: int) -> dict[str, int]:
    """Return how each proxy counts `rate` requests a minute, of which `burst` may come at once."""
    if not rate:
        return {"rate": 0, "beyond": 0, "window": 0, "refused": 0}
    # mod_qos ends a window when more whole seconds than it was told (at least one) have passed: two or more.
    seconds = max(2, -(-burst * 60 // rate))
    return {
        "rate": rate,
        "beyond": burst - 1,
        "window": seconds - 1,
        "refused": max(burst, seconds * rate // 60) + 1,
    }


def _lines(text: str) -> str:
    """Return `text` without what cannot be seen at the ends of its lines, and no empty ones around it."""
    return "\n".join(line.rstrip() for line in text.splitlines()).strip("\n")


def _watched(app: Mapping[str, Any]) -> list[str]:
    """Return the path of the health check when it is no page of visitors, so that it may be told apart."""
    path = app["health"]["path"].partition("?")[0]
    special = path == "/" or path.startswith(tuple(app["static"]))
    return [path] if re.fullmatch(r"/[A-Za-z0-9._~/-]*", path) and not special else []


def _policy(host: Host, ports: Mapping[str, int], tls_policy: str) -> dict[str, Any]:
    tls = TLS_POLICIES[tls_policy]
    # OpenSSL before 3.5 rejects the whole list when it names a group that it does not know.
    hybrid = ["X25519MLKEM768"] if host.debian >= 13 else []
    return {
        "tls": {
            "protocols": list(tls["protocols"]),
            "ciphers": list(tls["ciphers"]),
            "curves": [*hybrid, "X25519", "prime256v1", "secp384r1"],
            "prefer_server_ciphers": False,
            "session_cache": 10 * 1024 * 1024,
            "session_timeout": 86_400,
            "session_tickets": False,
        },
        "static": {
            "hashed": HASHED_NAME,
            "hashed_cache": "public, max-age=31536000, immutable",
            "other_cache": "no-cache",
        },
        "proxy_group": "flask-proxy",
        "acme_webroot": ACME_WEBROOT,
        "logs": PROXY_LOGS,
        "default_ports": dict(ports),
    }
