"""The plan, asked as its users would: with descriptions in, sentences or literal values out."""

from __future__ import annotations

import copy
import secrets as chance
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.flaskworks.server.plugins.filter.plan import plan
from ansible_collections.flaskworks.server.plugins.plugin_utils.problems import problems, weakness
from hypothesis import given
from hypothesis import strategies as st

HELLO: dict[str, Any] = {
    "name": "hello",
    "domains": ["hello.example.org", "www.hello.example.org"],
    "source": {"path": "/code/hello"},
    "wsgi": "hello:create_app()",
}
FACTS = {"processor_vcpus": 4, "memtotal_mb": 8192, "distribution_major_version": "13"}
NAME_SERVER = {"server": "192.0.2.53", "key": "acme.example.org", "secret": "ACME_DNS_KEY"}


def hello(**changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(HELLO), **changes}


def sentences(apps: Any, defaults: Any = None, secrets: Any = None) -> list[str]:
    with pytest.raises(AnsibleFilterError) as error:
        plan(apps, defaults, FACTS, secrets)
    return str(error.value).splitlines()


def test_every_path_and_limit_of_an_app() -> None:
    resolved = plan(
        [
            hello(
                health="/healthz",
                static={"/static/": "src/hello/static"},
                config={"FEATURE_X": "on", "LEVEL": 3},
                request_limit="10m",
                timeout=30,
            )
        ],
        {},
        FACTS,
        {"hello": {"SECRET_KEY": "not looked at", "DATABASE_URL": "not looked at"}},
    )
    assert resolved["accounts"] == [
        {
            "name": "hello",
            "home": "/srv/hello",
            "shared": "/srv/hello/shared",
            "configuration": "/etc/flask/hello",
            "logs": "/var/log/flask/hello",
        }
    ]
    assert resolved["services"] == [
        {
            "name": "hello",
            "unit": "flask-hello",
            "escaped": "hello",
            "account": "hello",
            "releases": "/srv/hello/releases",
            "shared": "/srv/hello/shared",
            "logs": "/var/log/flask/hello",
            "output": "-",
            "wsgi": "hello:create_app()",
            "worker_class": "gthread",
            "workers": 5,
            "threads": 16,
            "worker_connections": 1000,
            "worker_tmp_dir": "/dev/shm",
            "max_requests": 10000,
            "max_requests_jitter": 1000,
            "keepalive": 5,
            "timeout": 30,
            "graceful_timeout": 35,
            "stop_timeout": 40,
            "start_timeout": 55,
            "resources": {
                "memory_high": "infinity",
                "memory_max": "80%",
                "tasks": 4096,
                "files": 65536,
                "cpu_weight": 100,
            },
            "liveness": {},
            "environment": {
                "FEATURE_X": "on",
                "LEVEL": "3",
                "FORWARDED_HOPS": "1",
                "SHARED_DIRECTORY": "/srv/hello/shared",
            },
            "secrets": ["DATABASE_URL", "SECRET_KEY"],
            "credentials": False,
            "needs": [],
            "network": {
                "private": False,
                "families": ["AF_UNIX", "AF_INET", "AF_INET6"],
                "allow": [
                    "0.0.0.0/1",
                    "128.0.0.0/2",
                    "192.0.0.0/3",
                    "::/1",
                    "8000::/2",
                    "c000::/3",
                    "e000::/4",
                    "f000::/5",
                    "f800::/6",
                    "fc00::/7",
                    "fe00::/8",
                ],
            },
            "hidden": ["/srv"],
            "visible": ["/srv/hello"],
            "executable": ["/usr/lib", "-/usr/local/lib", "-/usr/bin/python3"],
        }
    ]
    assert resolved["releases"] == [
        {
            "name": "hello",
            "unit": "flask-hello",
            "account": "hello",
            "home": "/srv/hello",
            "files": ["/etc/flask/hello/gunicorn.conf.py"],
            "environment_file": "/etc/flask/hello/environment",
            "credentials_file": None,
            "unit_files": [
                "/etc/systemd/system/flask-hello@.service",
                "/etc/systemd/system/flask-hello@.socket",
            ],
            "source": {
                "path": "/code/hello",
                "git": None,
                "version": None,
                "verify": None,
                "archive": None,
                "package": None,
                "index": None,
                "checksum": None,
                "subdirectory": "",
            },
            "wsgi": "hello:create_app()",
            "output": "-",
            "static": [{"url": "/static/", "path": "src/hello/static"}],
            "health": {"path": "/healthz", "status": 200, "timeout": 25, "interval": 0.05, "successes": 3},
            "origin": "https://hello.example.org",
            "keep_releases": 5,
            "linger": 4,
            "lock_wait": 60,
            "watch": 0,
            "hooks": {"migrate": [], "before_activate": [], "after_activate": [], "timeout": 600},
            "environment": {
                "directory": "/srv/hello/environments",
                "interpreter": "/usr/bin/python3",
                "lock": None,
                "server": "gunicorn>=23,<28",
            },
        }
    ]
    assert resolved["certificates"] == [
        {
            "name": "hello",
            "domains": ["hello.example.org", "www.hello.example.org"],
            "provider": "self_signed",
            "directory": "/etc/flask/tls/hello",
            "fullchain": "/etc/flask/tls/hello/fullchain.pem",
            "privkey": "/etc/flask/tls/hello/privkey.pem",
            "days": 90,
            "renew_before": 30,
            "provided": {"fullchain": None, "privkey": None},
            "acme": {
                "directory": "https://acme-v02.api.letsencrypt.org/directory",
                "email": None,
                "root": None,
                "profile": None,
                "eab": {"kid": None, "secret": None},
                "dns": {
                    "server": None,
                    "port": 53,
                    "key": None,
                    "algorithm": "HMAC-SHA512",
                    "secret": None,
                    "wait": 60,
                },
                "reachable": True,
                "webroot": "/var/lib/flask/acme",
                "https_port": 443,
            },
        }
    ]
    assert resolved["sites"] == [
        {
            "name": "hello",
            "domains": ["hello.example.org", "www.hello.example.org"],
            "canonical": "hello.example.org",
            "redirects": ["www.hello.example.org"],
            "http_port": 80,
            "https_port": 443,
            "origin": "https://hello.example.org",
            "prefix": "",
            "upstream": "flask-hello",
            "socket": "/srv/hello/current/gunicorn.sock",
            "static": [
                {
                    "url": "/static/",
                    "root": "/srv/hello/current/static",
                    "previous": "/srv/hello/previous/static",
                }
            ],
            "directories": [],
            "request_limit": 10485760,
            "timeout": 30,
            "keepalive": {"connections": 32, "time": 2, "timeout": 1},
            "certificate": {
                "fullchain": "/etc/flask/tls/hello/fullchain.pem",
                "privkey": "/etc/flask/tls/hello/privkey.pem",
            },
            "client_certificates": {
                "mode": "off",
                "source": "",
                "text": "",
                "file": "/etc/flask/tls/.authorities/hello.pem",
            },
            "headers": [
                {
                    "name": "Content-Security-Policy",
                    "value": "frame-ancestors 'self'",
                    "unless": ["Content-Security-Policy", "X-Frame-Options"],
                },
                {"name": "X-Frame-Options", "value": "SAMEORIGIN", "unless": ["X-Frame-Options"]},
                {"name": "X-Content-Type-Options", "value": "nosniff", "unless": []},
                {"name": "Referrer-Policy", "value": "strict-origin-when-cross-origin", "unless": []},
            ],
            "error_page": {"source": "error.html", "file": "/var/lib/flask/pages/hello.error.html"},
            "maintenance": {
                "source": "maintenance.html",
                "file": "/var/lib/flask/pages/hello.maintenance.html",
                "flag": "/var/lib/flask/pages/hello.maintenance",
                "retry_after": 300,
                "health": ["/healthz"],
            },
            "allow": [],
            "users": [],
            "trusted_proxies": [],
            "raw": {"nginx": "", "apache": ""},
            "rate_limit": {"rate": 0, "beyond": 0, "window": 0, "refused": 0},
            "mounts": [],
        }
    ]
    assert resolved["logs"] == [
        {
            "name": "hello",
            "files": [
                {"path": "/var/log/flask-proxy/flask-hello.log", "account": "root"},
                {"path": "/var/log/flask/hello/output.log", "account": "hello"},
            ],
            "every": "daily",
            "keep": 14,
            "size": 1073741824,
            "compress": True,
        },
        {
            "name": "proxy",
            "files": [
                {"path": "/var/log/flask-proxy/flask.log", "account": "root"},
                {"path": "/var/log/flask-proxy/error.log", "account": "root"},
            ],
            "every": "daily",
            "keep": 14,
            "size": 1073741824,
            "compress": True,
        },
    ]
    assert resolved["host"] == {"cores": 4, "memory": 8589934592, "debian": 13, "assumed": False}


def test_static_files_of_the_host_are_in_no_release() -> None:
    resolved = plan([hello(static={"/static/": "static", "/media/": "/srv/media/"})], {}, FACTS)
    assert resolved["releases"][0]["static"] == [{"url": "/static/", "path": "static"}]
    assert [static["url"] for static in resolved["sites"][0]["static"]] == ["/static/"]
    assert resolved["sites"][0]["directories"] == [{"url": "/media/", "path": "/srv/media"}]


@pytest.mark.parametrize(
    ("defaults", "own", "output", "rotation"),
    [
        ({}, None, "-", ("daily", 14, 1073741824, True)),
        ({}, "files", "/var/log/flask/hello/output.log", ("daily", 14, 1073741824, True)),
        ({"logs": "files"}, None, "/var/log/flask/hello/output.log", ("daily", 14, 1073741824, True)),
        ({"logs": "files"}, "journal", "-", ("daily", 14, 1073741824, True)),
        (
            {"logs": {"to": "files", "keep": 90}},
            {"every": "weekly", "size": "5m", "compress": False},
            "/var/log/flask/hello/output.log",
            ("weekly", 90, 5242880, False),
        ),
        ({"logs": {"size": "0"}}, "journal", "-", ("daily", 14, 0, True)),
    ],
)
def test_where_logs_go_and_how_long_they_stay(
    defaults: dict[str, Any], own: Any, output: str, rotation: tuple[Any, ...]
) -> None:
    resolved = plan([hello(logs=own)], defaults, FACTS)
    assert resolved["services"][0]["output"] == resolved["releases"][0]["output"] == output
    told = resolved["logs"][0]
    assert (told["every"], told["keep"], told["size"], told["compress"]) == rotation


def test_what_belongs_to_no_app_is_rotated_as_the_defaults_say() -> None:
    told = plan([hello(logs={"keep": 3})], {"logs": {"keep": 30, "size": "2m"}}, FACTS)["logs"][-1]
    assert (told["name"], told["every"], told["keep"], told["size"]) == ("proxy", "daily", 30, 2097152)


def test_networks_of_the_defaults_are_replaced_by_those_of_an_app() -> None:
    defaults = {"allow": ["192.0.2.0/24"], "trusted_proxies": ["10.0.0.1", "2001:DB8::/32"]}
    everybody = hello(name="open", domains=["open.example.org"], allow=["0.0.0.0/0", "::/0"])
    own, other = plan([hello(), everybody], defaults, FACTS)["sites"]
    assert own["allow"] == ["192.0.2.0/24"]
    assert own["trusted_proxies"] == ["10.0.0.1/32", "2001:db8::/32"]
    assert other["allow"] == ["0.0.0.0/0", "::/0"]


def test_users_of_the_defaults_and_of_an_app_are_those_of_its_site() -> None:
    ops, dev = "$6$salt$" + "x" * 86, "$2y$05$" + "y" * 53
    (site,) = plan([hello(basic_auth={"dev": dev})], {"basic_auth": {"ops": ops}}, FACTS)["sites"]
    assert site["users"] == [
        {"name": "ops", "password_hash": ops},
        {"name": "dev", "password_hash": dev},
    ]


@pytest.mark.parametrize(
    ("described", "counted"),
    [
        ({"rate": "10/s"}, {"rate": 600, "beyond": 19, "window": 1, "refused": 21}),
        ({"rate": "10/s", "burst": 50}, {"rate": 600, "beyond": 49, "window": 4, "refused": 51}),
        # A window of two seconds is the shortest, and then holds what the rate lets through.
        ({"rate": "100/s", "burst": 20}, {"rate": 6000, "beyond": 19, "window": 1, "refused": 201}),
        ({"rate": "30/m", "burst": 5}, {"rate": 30, "beyond": 4, "window": 9, "refused": 6}),
        ({"rate": "7/m", "burst": 3}, {"rate": 7, "beyond": 2, "window": 25, "refused": 4}),
        ({"rate": "0/s"}, {"rate": 0, "beyond": 0, "window": 0, "refused": 0}),
    ],
)
def test_limits_of_requests(described: dict[str, Any], counted: dict[str, int]) -> None:
    (site,) = plan([hello(rate_limit=described)], {"rate_limit": {"rate": "1/s"}}, FACTS)["sites"]
    assert site["rate_limit"] == counted


@pytest.mark.parametrize(
    ("described", "limits"),
    [
        ({"worker_class": "sync"}, {"tasks": 4096, "files": 65536}),
        ({"workers": 100, "threads": 32}, {"tasks": 4 * 3301, "files": 65536}),
        ({"worker_class": "gevent", "connections": 50_000}, {"tasks": 4096, "files": 100_128}),
        (
            {"resources": {"memory_max": "1g", "memory_high": "768m", "tasks": 200, "files": 2048}},
            {"memory_max": "1073741824", "memory_high": "805306368", "tasks": 200, "files": 2048},
        ),
        (
            {"resources": {"memory_max": "50%", "memory_high": "40%"}},
            {"memory_max": "50%", "memory_high": "40%"},
        ),
        ({"resources": {"cpu_weight": 300}}, {"cpu_weight": 300}),
    ],
)
def test_limits_of_resources(described: dict[str, Any], limits: dict[str, Any]) -> None:
    common = {
        "memory_high": "infinity",
        "memory_max": "80%",
        "tasks": 4096,
        "files": 65536,
        "cpu_weight": 100,
    }
    (service,) = plan([hello(**described)], None, FACTS)["services"]
    assert service["resources"] == {**common, **limits}


@pytest.mark.parametrize(
    ("described", "workers"),
    [
        ({"memory_max": "200m"}, 5),  # a worker of 29 MB and 16 threads; one more for the master
        ({"memory_max": "150m"}, 3),
        ({"memory_max": "4g", "memory_high": "150m"}, 3),
        ({"tasks": 60}, 3),
        ({"tasks": 52}, 3),
        ({"tasks": 51}, 2),
    ],
)
def test_default_workers_fit_into_the_limits(described: dict[str, Any], workers: int) -> None:
    (service,) = plan([hello(workers=None, resources=described)], None, FACTS)["services"]
    assert service["workers"] == workers


def test_limits_of_the_defaults_are_merged_with_those_of_an_app() -> None:
    defaults = {"resources": {"memory_max": "512m", "cpu_weight": 50}}
    (service,) = plan([hello(resources={"memory_max": "600m"})], defaults, FACTS)["services"]
    assert (service["resources"]["memory_max"], service["resources"]["cpu_weight"]) == ("629145600", 50)


def test_the_slice_of_an_app_with_a_dash_is_not_within_that_of_another() -> None:
    (service,) = plan([hello(name="my-own-app")])["services"]
    assert (service["unit"], service["escaped"]) == ("flask-my-own-app", r"my\x2down\x2dapp")


def test_liveness_asks_what_a_deploy_asks_and_belongs_to_the_release() -> None:
    asked = {
        "home": "/srv/hello",
        "origin": "https://hello.example.org",
        "path": "/healthz",
        "status": 200,
        "start": 25,
        "interval": 10,
        "timeout": 5,
        "failures": 3,
    }
    assert plan([hello(liveness=True, health="/healthz")])["services"][0]["liveness"] == asked
    assert plan([hello(liveness=True)])["releases"][0]["files"] == [
        "/etc/flask/hello/gunicorn.conf.py",
        "/etc/flask/hello/liveness.conf",
    ]
    described = hello(
        liveness={"interval": "1m", "failures": 5},
        prefix="/below",
        health={"path": "/alive", "status": 204, "timeout": "5s"},
    )
    assert plan([described])["services"][0]["liveness"] == {
        **asked,
        "origin": "https://hello.example.org/below",
        "path": "/alive",
        "status": 204,
        "start": 5,
        "interval": 60,
        "failures": 5,
    }


@pytest.mark.parametrize(
    ("default", "own", "interval"),
    [
        (None, None, None),
        (None, False, None),
        (True, None, 10),
        (True, False, None),
        (False, True, 10),
        ({"interval": "20s"}, None, 20),
        ({"interval": "20s"}, True, 20),
        ({"interval": "20s"}, {"failures": 2}, 20),
        ({"interval": "20s"}, {"interval": 30}, 30),
        ({"interval": "20s"}, False, None),
    ],
)
def test_liveness_of_the_defaults_and_of_an_app(default: Any, own: Any, interval: int | None) -> None:
    resolved = plan([hello(liveness=own)], {"liveness": default})
    assert resolved["services"][0]["liveness"].get("interval") == interval
    assert ("/etc/flask/hello/liveness.conf" in resolved["releases"][0]["files"]) is (interval is not None)


def test_lines_for_a_proxy_are_taken_as_they_are() -> None:
    lines = "\nlocation = /retired {  \n    return 410;\n\n}\n\n"
    (site,) = plan([hello(raw={"nginx": lines})], {}, FACTS)["sites"]
    assert site["raw"] == {"nginx": "location = /retired {\n    return 410;\n\n}", "apache": ""}


def test_apps_of_a_domain_share_a_site() -> None:
    reports = hello(
        name="reports",
        prefix="/reports",
        static={"/static/": "static", "/media/": "/srv/media"},
        health="/healthz",
        request_limit="1k",
        rate_limit={"rate": "1/m", "burst": 5},
    )
    other = hello(name="other", domains=["other.example.org"], prefix="/only")
    resolved = plan([reports, hello(hsts="1h"), hello(name="b", prefix="/reports/b"), other], {}, FACTS)
    assert [app["name"] for app in resolved["releases"]] == ["reports", "hello", "b", "other"]
    assert [app["origin"] for app in resolved["releases"]] == [
        "https://hello.example.org/reports",
        "https://hello.example.org",
        "https://hello.example.org/reports/b",
        "https://other.example.org/only",
    ]
    assert resolved["releases"][0]["static"] == [{"url": "/static/", "path": "static"}]
    assert [certificate["name"] for certificate in resolved["certificates"]] == ["hello", "other"]
    site, single = resolved["sites"]
    assert [(one["name"], one["prefix"]) for one in (site, single)] == [("hello", ""), ("other", "/only")]
    assert [mount["name"] for mount in site["mounts"]] == ["reports", "b"]
    assert single["mounts"] == []
    assert site["mounts"][0] == {
        "name": "reports",
        "prefix": "/reports",
        "upstream": "flask-reports",
        "socket": "/srv/reports/current/gunicorn.sock",
        "static": [
            {
                "url": "/static/",
                "root": "/srv/reports/current/static",
                "previous": "/srv/reports/previous/static",
            }
        ],
        "directories": [{"url": "/media/", "path": "/srv/media"}],
        "request_limit": 1024,
        "timeout": 30,
        "keepalive": {"connections": 32, "time": 2, "timeout": 1},
        "rate_limit": {"rate": 1, "beyond": 4, "window": 299, "refused": 6},
        "maintenance": {"flag": "/var/lib/flask/pages/reports.maintenance", "health": ["/healthz"]},
    }


def test_without_an_app_at_the_top_the_first_owns_the_site() -> None:
    apps = [hello(prefix="/a"), hello(name="b", prefix="/b", tls={"provider": "self_signed"})]
    resolved = plan(apps, {}, FACTS)
    assert [site["name"] for site in resolved["sites"]] == ["hello"]
    assert [mount["prefix"] for mount in resolved["sites"][0]["mounts"]] == ["/b"]


@pytest.mark.parametrize(
    ("one", "other", "sentence"),
    [
        (
            {"prefix": "/reports"},
            {"prefix": "/reports"},
            (
                "flask_apps.other: prefix /reports of hello.example.org already belongs to 'hello'; "
                "each app has its own"
            ),
        ),
        (
            {},
            {"prefix": "/reports", "domains": ["hello.example.org", "b.example.org"]},
            (
                "flask_apps.other: has hello.example.org in common with 'hello', but not all domains; "
                "write the same list for both, or a name that is its own"
            ),
        ),
        (
            {"prefix": "/hello", "tls": {"provider": "self_signed"}},
            {"tls": {"provider": "acme"}},
            (
                "flask_apps.hello.tls: is another than that of 'other', to whom the site of "
                "hello.example.org belongs; say it there and leave it away here"
            ),
        ),
        (
            {},
            {"prefix": "/reports", "basic_auth": {"ops": "$2y$05$" + "y" * 53}},
            (
                "flask_apps.other.basic_auth: is another than that of 'hello', to whom the site of "
                "hello.example.org belongs; say it there and leave it away here"
            ),
        ),
        (
            {"static": {"/reports/files/": "files"}},
            {"prefix": "/reports"},
            (
                "flask_apps.hello.static: '/reports/files/' is within the prefix of 'other'; "
                "choose another of the two"
            ),
        ),
    ],
)
def test_apps_of_a_domain_that_contradict_each_other(
    one: dict[str, Any], other: dict[str, Any], sentence: str
) -> None:
    first = hello(domains=["hello.example.org"], **one)
    second = hello(**{"name": "other", "domains": ["hello.example.org"], **other})
    assert sentences([first, second]) == [sentence]


def test_an_app_in_the_site_of_another_needs_nothing_for_a_certificate() -> None:
    """Whatever the defaults say of certificates; what they need stays hidden from it all the same."""
    names = ["hello.example.org", "*.hello.example.org"]
    eab = {"provider": "acme", "eab": {"kid": "kid-1", "secret": "ACME_EAB_KEY"}}
    own = {"dns": NAME_SERVER}
    secrets = {"hello": dict.fromkeys(("SECRET_KEY", "ACME_EAB_KEY", "ACME_DNS_KEY"), "x")}
    mounted = hello(name="reports", prefix="/reports", domains=names, secrets=[])
    resolved = plan([mounted, hello(domains=names, tls=own)], {"tls": eab}, FACTS, secrets)
    assert [one["name"] for one in resolved["certificates"]] == ["hello"]
    assert [one["secrets"] for one in resolved["services"]] == [[], ["SECRET_KEY"]]


@pytest.mark.parametrize(
    "prefix", ["reports", "/reports/", "/re ports", "/.well-known", "/a/../b", "//a", ""]
)
def test_prefixes_that_are_none(prefix: str) -> None:
    assert sentences([hello(prefix=prefix)]) == [
        (
            f"flask_apps.hello.prefix: '{prefix}' is no path for an app; it begins with a slash, ends "
            "without one and has no directory that begins with a dot, as in /reports"
        )
    ]


def test_values_of_secrets_never_enter_the_plan() -> None:
    assert "canary-value" not in repr(plan([HELLO], {}, FACTS, {"hello": {"SECRET_KEY": "canary-value"}}))


@pytest.mark.parametrize(
    ("cores", "memory", "apps", "workers"),
    [(1, 8192, 1, 2), (2, 8192, 1, 3), (16, 8192, 1, 17), (16, 512, 1, 10), (16, 512, 4, 2), (4, 128, 1, 2)],
)
def test_workers_follow_cores_and_are_capped_by_memory(
    cores: int, memory: int, apps: int, workers: int
) -> None:
    described = [hello(name=f"app{number}", domains=[f"app{number}.example.org"]) for number in range(apps)]
    facts = {"processor_vcpus": cores, "memtotal_mb": memory, "distribution_major_version": "12"}
    assert [service["workers"] for service in plan(described, {}, facts)["services"]] == [workers] * apps


def test_hybrid_curve_only_where_openssl_knows_it() -> None:
    curves = {
        debian: plan([HELLO], {}, {**FACTS, "distribution_major_version": debian})["policy"]["tls"]["curves"]
        for debian in ("12", "13")
    }
    assert curves == {
        "12": ["X25519", "prime256v1", "secp384r1"],
        "13": ["X25519MLKEM768", "X25519", "prime256v1", "secp384r1"],
    }


def test_policies_of_tls() -> None:
    def spoken(**defaults: str) -> dict[str, Any]:
        found: dict[str, Any] = plan([HELLO], defaults, FACTS)["policy"]["tls"]
        return found

    intermediate = {
        "protocols": ["TLSv1.2", "TLSv1.3"],
        "ciphers": [
            "ECDHE-ECDSA-AES128-GCM-SHA256",
            "ECDHE-RSA-AES128-GCM-SHA256",
            "ECDHE-ECDSA-AES256-GCM-SHA384",
            "ECDHE-RSA-AES256-GCM-SHA384",
            "ECDHE-ECDSA-CHACHA20-POLY1305",
            "ECDHE-RSA-CHACHA20-POLY1305",
        ],
        "curves": ["X25519MLKEM768", "X25519", "prime256v1", "secp384r1"],
        "prefer_server_ciphers": False,
        "session_cache": 10485760,
        "session_timeout": 86400,
        "session_tickets": False,
    }
    assert spoken() == spoken(tls_policy="intermediate") == intermediate
    assert spoken(tls_policy="modern") == {**intermediate, "protocols": ["TLSv1.3"], "ciphers": []}
    assert sentences([HELLO], {"tls_policy": "modren"}) == [
        "flask_defaults.tls_policy: 'modren' is not known, did you mean 'modern'?"
    ]


def test_missing_facts_are_assumed_and_said() -> None:
    assert plan([HELLO])["host"] == {"cores": 2, "memory": 2147483648, "debian": 13, "assumed": True}


def test_a_release_of_debian_without_a_number_is_left_to_the_roles() -> None:
    facts = {**FACTS, "distribution_major_version": "trixie/sid"}
    assert plan([HELLO], {}, facts)["host"]["assumed"] is True


def test_defaults_are_merged_below_an_app() -> None:
    resolved = plan(
        [hello(config={"A": "app"}, tls={"days": 60}, workers=7)],
        {
            "config": {"A": "default", "B": "default"},
            "tls": {"renew_before": 10},
            "workers": 3,
            "ports": {"https": 8443},
        },
        FACTS,
    )
    assert resolved["services"][0]["environment"]["A"] == "app"
    assert resolved["services"][0]["environment"]["B"] == "default"
    assert resolved["services"][0]["workers"] == 7
    assert (resolved["certificates"][0]["days"], resolved["certificates"][0]["renew_before"]) == (60, 10)
    assert resolved["sites"][0]["origin"] == "https://hello.example.org:8443"
    assert resolved["policy"]["default_ports"] == {"http": 80, "https": 8443}


def test_gevent_asks_for_the_extra() -> None:
    resolved = plan([hello(worker_class="gevent", connections=500)], {}, FACTS)
    assert resolved["environments"][0]["server"] == "gunicorn[gevent]>=23,<28"
    assert resolved["services"][0]["worker_connections"] == 500


def test_a_hook_is_a_command_or_several() -> None:
    resolved = plan(
        [hello(migrate="flask db upgrade", after_activate=["true", " touch x "])], {"hook_timeout": "2m"}
    )
    assert resolved["releases"][0]["hooks"] == {
        "migrate": ["flask db upgrade"],
        "before_activate": [],
        "after_activate": ["true", "touch x"],
        "timeout": 120,
    }


def test_acme() -> None:
    described = hello(
        secrets=[],
        tls={
            "provider": "acme",
            "email": "ops@example.org",
            "staging": True,
            "profile": "shortlived",
            "eab": {"kid": "kid-1", "secret": "ACME_EAB_KEY"},
            "dns": {
                "server": "192.0.2.53",
                "key": "acme.example.org",
                "secret": "ACME_DNS_KEY",
                "wait": "2m",
            },
        },
    )
    secrets = {"hello": {"ACME_EAB_KEY": "canary-value", "ACME_DNS_KEY": "canary-value", "TOKEN": "x"}}
    resolved = plan([described], {"ports": {"https": 8443}}, FACTS, secrets)
    assert resolved["certificates"][0]["acme"] == {
        "directory": "https://acme-staging-v02.api.letsencrypt.org/directory",
        "email": "ops@example.org",
        "root": None,
        "profile": "shortlived",
        "eab": {"kid": "kid-1", "secret": "ACME_EAB_KEY"},
        "dns": {
            "server": "192.0.2.53",
            "port": 53,
            "key": "acme.example.org",
            "algorithm": "HMAC-SHA512",
            "secret": "ACME_DNS_KEY",
            "wait": 120,
        },
        "reachable": True,
        "webroot": "/var/lib/flask/acme",
        "https_port": 8443,
    }
    assert resolved["policy"]["acme_webroot"] == "/var/lib/flask/acme"
    assert resolved["services"][0]["secrets"] == ["TOKEN"]


def test_the_key_of_an_external_account_must_have_a_value() -> None:
    described = hello(secrets=[], tls={"provider": "acme", "eab": {"kid": "k", "secret": "ACME_EAB_KEY"}})
    assert sentences([described], {}, secrets={}) == [
        (
            "flask_apps.hello: secret ACME_EAB_KEY has no value; add it to flask_secrets.hello "
            "in the vault file (ansible-vault edit)"
        )
    ]


@pytest.mark.parametrize(
    "tls",
    [
        {},
        {"provider": "provided", "fullchain": "/c.pem", "privkey": "/k.pem"},
        {"provider": "acme", "dns": {"server": "2001:db8::53", "key": "k", "secret": "ACME_DNS_KEY"}},
    ],
)
def test_a_wildcard_redirects(tls: dict[str, Any]) -> None:
    described = hello(tls=tls, domains=["hello.example.org", "*.hello.example.org"])
    resolved = plan([described], {}, FACTS)
    assert resolved["certificates"][0]["domains"] == ["hello.example.org", "*.hello.example.org"]
    assert resolved["sites"][0]["redirects"] == ["*.hello.example.org"]


def test_a_wildcard_covers_no_domain_of_another_app() -> None:
    apps = [
        hello(domains=["hello.example.org", "*.hello.example.org"]),
        hello(name="reports", domains=["a.b.hello.example.org"]),
    ]
    assert sentences(apps) == [
        (
            "flask_apps.reports: domain a.b.hello.example.org is covered by '*.hello.example.org' of "
            "'hello'; each domain serves one app"
        )
    ]


def test_hsts_is_off_for_self_signed_and_a_day_for_provided() -> None:
    provided = {"provider": "provided", "fullchain": "/c.pem", "privkey": "/k.pem"}
    for changes, expected in (
        ({}, []),
        ({"tls": provided}, ["max-age=86400"]),
        ({"tls": {"provider": "acme"}}, ["max-age=86400"]),
        ({"tls": {"provider": "acme", "staging": True}}, []),
        ({"tls": provided, "hsts": "17520h"}, ["max-age=63072000"]),
        ({"hsts": 0}, []),
    ):
        headers = plan([hello(**changes)], {}, FACTS)["sites"][0]["headers"]
        assert [
            header["value"] for header in headers if header["name"] == "Strict-Transport-Security"
        ] == expected


def test_headers_are_added_and_taken_away() -> None:
    headers = plan([hello(headers={"X-Frame-Options": "", "X-Robots-Tag": "none"})], {}, FACTS)["sites"][0][
        "headers"
    ]
    assert headers == [
        {"name": "X-Content-Type-Options", "value": "nosniff", "unless": []},
        {"name": "Referrer-Policy", "value": "strict-origin-when-cross-origin", "unless": []},
        {"name": "X-Robots-Tag", "value": "none", "unless": []},
    ]


@pytest.mark.parametrize(
    ("own", "sent"),
    [
        ({}, {"content-security-policy": "frame-ancestors 'self'", "x-frame-options": "SAMEORIGIN"}),
        # Beside frame-ancestors, browsers would not look at it.
        ({"x-frame-options": "DENY"}, {"x-frame-options": "DENY"}),
        ({"X-Frame-Options": ""}, {}),
        (
            {"Content-Security-Policy": "img-src *"},
            {"content-security-policy": "img-src *", "x-frame-options": "SAMEORIGIN"},
        ),
        ({"content-security-policy": ""}, {"x-frame-options": "SAMEORIGIN"}),
        (
            {"Content-Security-Policy": "frame-ancestors 'none'", "X-Frame-Options": "DENY"},
            {"content-security-policy": "frame-ancestors 'none'", "x-frame-options": "DENY"},
        ),
    ],
)
def test_who_says_something_of_frames_decides_it(own: dict[str, str], sent: dict[str, str]) -> None:
    headers = plan([hello(headers=own)], {}, FACTS)["sites"][0]["headers"]
    names = ("content-security-policy", "x-frame-options")
    found = [(header["name"].lower(), header["value"]) for header in headers]
    assert {name: value for name, value in found if name in names} == sent
    assert len({name for name, _value in found}) == len(found)


def test_pages_of_an_app_and_of_all_of_them() -> None:
    site = plan(
        [hello(maintenance_page="/pages/hello.html")],
        {"error_page": "/pages/error.html", "maintenance_page": "/pages/closed.html"},
        FACTS,
    )["sites"][0]
    assert site["error_page"]["source"] == "/pages/error.html"
    assert site["maintenance"]["source"] == "/pages/hello.html"


AUTHORITY = "-----BEGIN CERTIFICATE-----\nMII=\n-----END CERTIFICATE-----\n"


@pytest.mark.parametrize(
    ("described", "mode", "source", "text"),
    [
        ({"authority": "/ca.pem"}, "required", "/ca.pem", ""),
        ({"authority": AUTHORITY, "required": False}, "optional", "", AUTHORITY),
    ],
)
def test_certificates_of_clients(described: dict[str, Any], mode: str, source: str, text: str) -> None:
    assert plan([hello(client_certificates=described)], {}, FACTS)["sites"][0]["client_certificates"] == {
        "mode": mode,
        "source": source,
        "text": text,
        "file": "/etc/flask/tls/.authorities/hello.pem",
    }


@pytest.mark.parametrize(
    ("health", "open_paths"),
    [
        ("/healthz", ["/healthz"]),
        ({"path": "/api/health?full=1"}, ["/api/health"]),
        ("/", []),
        ("/?health", []),
        ("/static/health.txt", []),
        ("/health$x", []),
        ("/h%65alth", []),
    ],
)
def test_only_what_is_no_page_stays_open_in_maintenance(health: Any, open_paths: list[str]) -> None:
    app = hello(health=health, static={"/static/": "static"})
    assert plan([app], {}, FACTS)["sites"][0]["maintenance"]["health"] == open_paths


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"error_page": "pages/error.html"},
            (
                "flask_apps.hello.error_page: 'pages/error.html' depends on the working directory; "
                "write {{ inventory_dir }}/… or an absolute path"
            ),
        ),
        (
            {"client_certificates": {"required": True}},
            "flask_apps.hello.client_certificates: 'authority' is missing; it is required",
        ),
        (
            {"client_certificates": {"authority": "ca.pem"}},
            (
                "flask_apps.hello.client_certificates.authority: 'ca.pem' depends on the working directory; "
                "write {{ inventory_dir }}/… or an absolute path"
            ),
        ),
        (
            {"client_certificates": {"authority": AUTHORITY + "-----BEGIN PRIVATE KEY-----"}},
            (
                "flask_apps.hello.client_certificates.authority: must be certificates and nothing else; "
                "the authority's private key does not belong on a server"
            ),
        ),
        ({"wokers": 3}, "flask_apps.hello: unknown key 'wokers', did you mean 'workers'?"),
        (
            {"worker_class": "gthraed"},
            "flask_apps.hello.worker_class: 'gthraed' is not known, did you mean 'gthread'?",
        ),
        ({"workers": "many"}, "flask_apps.hello.workers: must be a whole number, not 'many'"),
        ({"workers": 0}, "flask_apps.hello.workers: 0 is out of range; use 1 to 512"),
        ({"workers": True}, "flask_apps.hello.workers: must be a whole number, not True"),
        (
            {"domains": "a.example.org"},
            "flask_apps.hello.domains: must be a list, not 'a.example.org'; write [a.example.org]",
        ),
        ({"domains": []}, "flask_apps.hello.domains: is empty; name at least one, the first is canonical"),
        (
            {"domains": ["Hello.example.org"]},
            "flask_apps.hello.domains: 'Hello.example.org' has capital letters; write 'hello.example.org'",
        ),
        (
            {"domains": ["*.example.org"]},
            (
                "flask_apps.hello.domains: '*.example.org' is a wildcard; the first is the name that is "
                "served, as in example.org"
            ),
        ),
        (
            {"domains": ["192.0.2.1"]},
            (
                "flask_apps.hello.domains: '192.0.2.1' is an address or has a port; write "
                "a name, and ports into flask_defaults.ports"
            ),
        ),
        (
            {"domains": ["a..b"]},
            (
                "flask_apps.hello.domains: 'a..b' is not a domain name; write one like "
                "hello.example.org, without scheme and path"
            ),
        ),
        ({"domains": ["a.org", "a.org"]}, "flask_apps.hello.domains: 'a.org' is there twice"),
        (
            {"source": {}},
            "flask_apps.hello.source: has none of path, git, archive and package; give exactly one of them",
        ),
        (
            {"source": {"path": "/a", "git": "https://example.org/a.git"}},
            "flask_apps.hello.source: has both path and git; give exactly one of them",
        ),
        (
            {"source": {"path": "/a", "version": "v1"}},
            (
                "flask_apps.hello.source.version: only source.git has versions; leave "
                "it away or give the repository as source.git"
            ),
        ),
        (
            {"source": {"path": "app"}},
            (
                "flask_apps.hello.source.path: 'app' depends on the working directory; "
                "write {{ inventory_dir }}/… or an absolute path"
            ),
        ),
        (
            {"source": {"git": "--upload-pack=x"}},
            "flask_apps.hello.source.git: '--upload-pack=x' is not the address of a repository",
        ),
        (
            {"source": {"path": "/a", "subdirectory": "../b"}},
            "flask_apps.hello.source.subdirectory: '../b' must be a path inside the source, without ..",
        ),
        ({"wsgi": "hello"}, "flask_apps.hello.wsgi: 'hello' is not 'module:variable' or 'module:factory()'"),
        (
            {"health": "healthz"},
            "flask_apps.hello.health: 'healthz' is not a path; it begins with a slash and has no spaces",
        ),
        ({"health": {"pth": "/x"}}, "flask_apps.hello.health: unknown key 'pth', did you mean 'path'?"),
        ({"health": 5}, "flask_apps.hello.health: must be a path or a dictionary with a 'path'"),
        ({"logs": "file"}, "flask_apps.hello.logs.to: 'file' is not known, did you mean 'files'?"),
        ({"logs": 5}, "flask_apps.hello.logs: must be 'journal', 'files' or a dictionary"),
        ({"logs": {"kep": 3}}, "flask_apps.hello.logs: unknown key 'kep', did you mean 'keep'?"),
        ({"logs": {"keep": 0}}, "flask_apps.hello.logs.keep: 0 is out of range; use 1 to 3650"),
        (
            {"logs": {"size": "big"}},
            "flask_apps.hello.logs.size: 'big' is not a size; write bytes, or 512k, 10m or 1g",
        ),
        (
            {"static": {"static": "src"}},
            (
                "flask_apps.hello.static: 'static' must begin and end with a slash and "
                "name at least one directory, as in /static/"
            ),
        ),
        (
            {"static": {"/static/": "../x"}},
            "flask_apps.hello.static: '../x' must be a path inside the source, as in src/hello/static",
        ),
        (
            {"static": {"/media/": "/srv/../x"}},
            ("flask_apps.hello.static: '/srv/../x' must be an absolute path of letters, digits and . _ + -"),
        ),
        (
            {"static": {"/media/": "/etc/"}},
            (
                "flask_apps.hello.static: '/etc/' holds what visitors must not read; "
                "give the files a directory of their own, as in /srv/files"
            ),
        ),
        (
            {"allow": []},
            (
                "flask_apps.hello.allow: is empty; leave it away, or name 0.0.0.0/0 and ::/0, "
                "to serve everybody"
            ),
        ),
        (
            {"allow": ["office"]},
            (
                "flask_apps.hello.allow: 'office' is not a network; "
                "write one like 192.0.2.0/24 or 2001:db8::/32"
            ),
        ),
        (
            {"allow": ["fe80::1%x; deny"]},
            (
                "flask_apps.hello.allow: 'fe80::1%x; deny' is not a network; "
                "write one like 192.0.2.0/24 or 2001:db8::/32"
            ),
        ),
        (
            {"allow": ["192.0.2.7/24"]},
            "flask_apps.hello.allow: '192.0.2.7/24' is an address within a network; write 192.0.2.0/24",
        ),
        (
            {"basic_auth": {"ops": "secret-in-the-clear"}},
            (
                "flask_apps.hello.basic_auth.ops: must be the hash of a password that begins with $2y$ "
                "(at most $2y$10$) or $6$; make one with htpasswd -nB or openssl passwd -6"
            ),
        ),
        (
            {"basic_auth": {"ops": "$2y$12$abcdefghijklmnopqrstuumjewjQVmxxbBHy234HdGTOAqOuVnhhy"}},
            (
                "flask_apps.hello.basic_auth.ops: must be the hash of a password that begins with $2y$ "
                "(at most $2y$10$) or $6$; make one with htpasswd -nB or openssl passwd -6"
            ),
        ),
        (
            {"basic_auth": {"ops": None}},
            (
                "flask_apps.hello.basic_auth.ops: must be the hash of a password that begins with $2y$ "
                "(at most $2y$10$) or $6$; make one with htpasswd -nB or openssl passwd -6"
            ),
        ),
        (
            {"basic_auth": {"a:b": "x"}},
            ("flask_apps.hello.basic_auth: 'a:b' is not usable as a name; use letters, digits and . _ @ -"),
        ),
        (
            {"trusted_proxies": ["::/0"]},
            (
                "flask_apps.hello.trusted_proxies: '::/0' trusts everybody, who could then "
                "claim any address; name the networks of the proxies"
            ),
        ),
        (
            {"rate_limit": {"rate": "10"}},
            (
                "flask_apps.hello.rate_limit.rate: '10' is not a rate; write requests in a second or a "
                "minute, as in 10/s or 30/m"
            ),
        ),
        (
            {"rate_limit": {"burst": 5}},
            "flask_apps.hello.rate_limit: 'rate' is missing; it is required",
        ),
        (
            {"rate_limit": {"rate": "10/s", "burst": 1}},
            "flask_apps.hello.rate_limit.burst: 1 is out of range; use 2 to 100000",
        ),
        (
            {"request_limit": "10 megs"},
            "flask_apps.hello.request_limit: '10 megs' is not a size; write bytes, or 512k, 10m or 1g",
        ),
        (
            {"timeout": "soon"},
            "flask_apps.hello.timeout: 'soon' is not a time; write seconds, or 30s, 5m or 1h",
        ),
        ({"liveness": "on"}, "flask_apps.hello.liveness: must be true, false or a dictionary"),
        (
            {"liveness": {"interval": "often"}},
            "flask_apps.hello.liveness.interval: 'often' is not a time; write seconds, or 30s, 5m or 1h",
        ),
        (
            {"liveness": {"failures": 0}},
            "flask_apps.hello.liveness.failures: 0 is out of range; use 1 to 100",
        ),
        (
            {"liveness": {"interval": 5, "timeout": 6}},
            (
                "flask_apps.hello.liveness: timeout (6) must not be more than interval (5); an app is asked "
                "again when it has answered"
            ),
        ),
        (
            {"liveness": {"intervall": 5}},
            "flask_apps.hello.liveness: unknown key 'intervall', did you mean 'interval'?",
        ),
        (
            {"resources": {"memory_max": "a lot"}},
            (
                "flask_apps.hello.resources.memory_max: 'a lot' is neither a size nor a share of the host's "
                "memory; write bytes, 512m, 2g or 50%"
            ),
        ),
        (
            {"resources": {"memory_max": "101%"}},
            (
                "flask_apps.hello.resources.memory_max: '101%' is neither a size nor a share of the host's "
                "memory; write bytes, 512m, 2g or 50%"
            ),
        ),
        (
            {"resources": {"memory_max": "16m"}},
            "flask_apps.hello.resources.memory_max: 16m is out of range; use 32m or more",
        ),
        (
            {"resources": {"memory_high": "1g", "memory_max": "512m"}},
            "flask_apps.hello.resources: memory_high is above memory_max, which comes first; make it less",
        ),
        (
            {"resources": {"memory_high": "81%"}},
            "flask_apps.hello.resources: memory_high is above memory_max, which comes first; make it less",
        ),
        (
            {"workers": 8, "worker_memory": "100m", "resources": {"memory_max": "512m"}},
            (
                "flask_apps.hello.resources.memory_max: 8 workers need 915m (see worker_memory); "
                "allow that, or take fewer workers"
            ),
        ),
        (
            {"workers": 4, "threads": 10, "resources": {"tasks": 44}},
            (
                "flask_apps.hello.resources.tasks: 4 workers with their threads are 45 tasks; allow that and "
                "what the app starts itself, or take fewer"
            ),
        ),
        (
            {"resources": {"files": 1000}},
            ("flask_apps.hello.resources.files: a worker with 1000 connections needs 1064; allow that"),
        ),
        (
            {"resources": {"cpu_weight": 0}},
            "flask_apps.hello.resources.cpu_weight: 0 is out of range; use 1 to 10000",
        ),
        (
            {"resources": {"memory": "1g"}},
            ("flask_apps.hello.resources: unknown key 'memory', did you mean 'memory_max'?"),
        ),
        (
            {"worker_class": "sync", "threads": 4},
            (
                "flask_apps.hello: threads are for worker_class gthread, not "
                "sync; leave threads away or choose gthread"
            ),
        ),
        (
            {"connections": 10},
            (
                "flask_apps.hello: connections are for worker_class gevent, not gthread; "
                "leave connections away or choose gevent"
            ),
        ),
        (
            {"config": {"A": True}},
            (
                "flask_apps.hello.config.A: YAML reads this as a truth value; "
                'quote what the app shall see, as in "on"'
            ),
        ),
        (
            {"config": {"A": "a\nb"}},
            (
                "flask_apps.hello.config.A: contains a line break, which "
                "systemd does not take; encode it in base64"
            ),
        ),
        (
            {"config": {"PYTHONPATH": "x"}},
            "flask_apps.hello.config.PYTHONPATH: is set by the release itself; choose another name",
        ),
        (
            {"tls": {"provider": "provided"}},
            (
                "flask_apps.hello.tls: provider 'provided' needs both fullchain and "
                "privkey, paths on the controller or PEM text"
            ),
        ),
        (
            {"tls": {"provider": "acne"}},
            "flask_apps.hello.tls.provider: 'acne' is not known, did you mean 'acme'?",
        ),
        (
            {"tls": {"email": "ops@example.org", "staging": True}},
            (
                "flask_apps.hello.tls: email and staging are for provider 'acme', not 'self_signed'; "
                "choose one of the two ways"
            ),
        ),
        (
            {"tls": {"provider": "acme", "email": "ops"}},
            "flask_apps.hello.tls.email: 'ops' is not an address, as in ops@example.org",
        ),
        (
            {"tls": {"provider": "acme", "staging": True, "directory": "https://ca.example.org/directory"}},
            "flask_apps.hello.tls: staging has a directory of its own; give one of directory and staging",
        ),
        (
            {"tls": {"provider": "acme", "directory": "ca.example.org"}},
            "flask_apps.hello.tls.directory: 'ca.example.org' is not the address of a directory; use https://…",
        ),
        (
            {"tls": {"provider": "acme", "root": "files/root.pem"}},
            (
                "flask_apps.hello.tls.root: 'files/root.pem' depends on the working directory; "
                "write {{ inventory_dir }}/… or an absolute path"
            ),
        ),
        (
            {"tls": {"provider": "acme", "profile": "short lived"}},
            "flask_apps.hello.tls.profile: 'short lived' is not the name of a profile",
        ),
        (
            {"tls": {"provider": "acme", "eab": {"kid": "k"}}},
            "flask_apps.hello.tls.eab: 'secret' is missing; it is required",
        ),
        (
            {"tls": {"provider": "acme", "eab": {"kid": "k", "secret": "a key"}}},
            "flask_apps.hello.tls.eab.secret: 'a key' is not the name of a secret, as in ACME_EAB_KEY",
        ),
        (
            {"tls": {"provider": "acme", "dns": {"server": "ns1", "key": "k", "secret": "ACME_DNS_KEY"}}},
            "flask_apps.hello.tls.dns.server: 'ns1' is not an address, as in 192.0.2.53",
        ),
        (
            {"tls": {"provider": "acme", "dns": {**NAME_SERVER, "key": "a key"}}},
            "flask_apps.hello.tls.dns.key: 'a key' is not the name of a key, as in acme.example.org",
        ),
        (
            {"tls": {"provider": "acme", "dns": {**NAME_SERVER, "secret": "a key"}}},
            "flask_apps.hello.tls.dns.secret: 'a key' is not the name of a secret, as in ACME_DNS_KEY",
        ),
        (
            {"tls": {"provider": "acme", "dns": {**NAME_SERVER, "port": 0}}},
            "flask_apps.hello.tls.dns.port: 0 is not a port; use 1 to 65535",
        ),
        (
            {"tls": {"provider": "acme", "dns": {**NAME_SERVER, "wait": "2h"}}},
            "flask_apps.hello.tls.dns.wait: 7200 is out of range; use 1 to 3600",
        ),
        (
            {"tls": {"dns": NAME_SERVER}},
            (
                "flask_apps.hello.tls: dns is for provider 'acme', not 'self_signed'; choose one of the two "
                "ways"
            ),
        ),
        (
            {"tls": {"provider": "acme"}, "domains": ["example.org", "*.example.org"]},
            (
                "flask_apps.hello.domains: authorities issue the wildcard '*.example.org' to who can change "
                "its zone alone; say how in tls.dns, or name each domain"
            ),
        ),
        (
            {"domains": ["example.org", "www.example.org", "*.example.org"]},
            (
                "flask_apps.hello.domains: '*.example.org' covers 'www.example.org', and authorities refuse "
                "both in one certificate; leave one of them away"
            ),
        ),
        (
            {"domains": ["hello.example.com", "*.org"]},
            (
                "flask_apps.hello.domains: '*.org' is not a domain name; write one like "
                "hello.example.org, without scheme and path"
            ),
        ),
        ({"tls": {"days": 20}}, "flask_apps.hello.tls: renew_before (30) must be less than days (20)"),
        (
            {"root": "srv"},
            "flask_apps.hello.root: 'srv' must be an absolute path of letters, digits and . _ + -",
        ),
        (
            {"root": "/data/of/this/host/on/the/second/disk/for/apps/here"},
            (
                "flask_apps.hello: the path of its socket would have 108 bytes, 107 "
                "are possible; choose a shorter name or root"
            ),
        ),
        (
            {"gunicorn": "latest"},
            "flask_apps.hello.gunicorn: 'latest' is no range of versions; write one like '>=23,<28'",
        ),
        ({"source": None}, "flask_apps.hello: 'source' is missing; it is required"),
        (
            {"migrate": ["true", "one | two"]},
            (
                "flask_apps.hello.migrate: 'one | two' is not run by a shell, which '|' is for; "
                "write a list of commands, or sh -c '…'"
            ),
        ),
        ({"before_activate": {"run": "this"}}, "flask_apps.hello.before_activate: must be a command line"),
        ({"after_activate": " "}, "flask_apps.hello.after_activate: is empty; leave it away"),
        (
            {"hook_timeout": "soon"},
            ("flask_apps.hello.hook_timeout: 'soon' is not a time; write seconds, or 30s, 5m or 1h"),
        ),
    ],
)
def test_a_mistake_is_one_sentence_with_the_way_out(changes: dict[str, Any], sentence: str) -> None:
    assert sentences([hello(**changes)]) == [sentence]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (
            "www-data",
            (
                "flask_apps.www-data.name: 'www-data' belongs to the system; "
                "choose another, as in 'www-data-app'"
            ),
        ),
        ("tls", "flask_apps.tls.name: 'tls' belongs to the system; choose another, as in 'tls-app'"),
        (
            "postgres",
            (
                "flask_apps.postgres.name: 'postgres' belongs to the system; "
                "choose another, as in 'postgres-app'"
            ),
        ),
        (
            "Hello",
            (
                "flask_apps.Hello.name: 'Hello' cannot be an account, a unit and a directory; "
                "use lower-case letters, digits and single hyphens, a letter first"
            ),
        ),
        (
            "../etc",
            (
                "flask_apps.../etc.name: '../etc' cannot be an account, a unit and a directory; "
                "use lower-case letters, digits and single hyphens, a letter first"
            ),
        ),
        (
            "a" * 32,
            f"flask_apps.{'a' * 32}.name: has 32 characters, an account can have 31; choose a shorter one",
        ),
    ],
)
def test_unusable_names(name: str, sentence: str) -> None:
    assert sentences([hello(name=name)]) == [sentence]


def test_socket_path_of_107_bytes_is_possible() -> None:
    assert (
        plan([hello(root="/data/of/this/host/on/the/second/disk/for/apps/her")])["sites"][0]["name"]
        == "hello"
    )


def test_all_mistakes_are_told_together() -> None:
    assert sentences([hello(wokers=3, timeout="soon"), hello(name="other", wsgi="x")], {"treads": 1}) == [
        "flask_defaults: unknown key 'treads', did you mean 'threads'?",
        "flask_apps.hello: unknown key 'wokers', did you mean 'workers'?",
        "flask_apps.hello.timeout: 'soon' is not a time; write seconds, or 30s, 5m or 1h",
        "flask_apps.other.wsgi: 'x' is not 'module:variable' or 'module:factory()'",
        "flask_apps.other: domain hello.example.org already belongs to 'hello'; each domain serves one app",
        (
            "flask_apps.other: domain www.hello.example.org already belongs "
            "to 'hello'; each domain serves one app"
        ),
    ]


def test_six_mistakes_of_one_app_are_told_together() -> None:
    app = hello(
        wokers=3,
        domains=["Hello.example.org"],
        source={"path": "app"},
        request_limit="10q",
        worker_class="sync",
        threads=4,
        workers="many",
    )
    assert sentences([app]) == [
        "flask_apps.hello: unknown key 'wokers', did you mean 'workers'?",
        "flask_apps.hello.workers: must be a whole number, not 'many'",
        "flask_apps.hello.domains: 'Hello.example.org' has capital letters; write 'hello.example.org'",
        (
            "flask_apps.hello.source.path: 'app' depends on the working directory; "
            "write {{ inventory_dir }}/… or an absolute path"
        ),
        "flask_apps.hello.request_limit: '10q' is not a size; write bytes, or 512k, 10m or 1g",
        (
            "flask_apps.hello: threads are for worker_class gthread, not "
            "sync; leave threads away or choose gthread"
        ),
    ]


def test_defaults_for_another_worker_class_or_provider_do_not_reach_an_app() -> None:
    defaults = {
        "threads": 8,
        "tls": {"provider": "provided", "fullchain": "/c.pem", "privkey": "/k.pem"},
    }
    resolved = plan([hello(worker_class="gevent", tls={"provider": "self_signed"})], defaults, FACTS)
    assert resolved["services"][0]["threads"] == 1
    assert resolved["certificates"][0]["provided"] == {"fullchain": None, "privkey": None}
    assert sentences([HELLO], {"worker_class": "sync", "threads": 8})[0] == (
        "flask_defaults: threads are for worker_class gthread, not sync; leave threads away or choose gthread"
    )


def test_a_header_replaces_that_of_the_policy_whatever_its_case() -> None:
    headers = plan([hello(headers={"x-frame-options": "DENY"})], {}, FACTS)["sites"][0]["headers"]
    assert [header["value"] for header in headers if header["name"].lower() == "x-frame-options"] == ["DENY"]


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (None, "flask_secrets.hello.SECRET_KEY: is not a text; put its value in quotes"),
        (12345, "flask_secrets.hello.SECRET_KEY: is not a text; put its value in quotes"),
        (
            "",
            (
                "flask_secrets.hello.SECRET_KEY: is empty; "
                "make one with python3 -c 'import secrets; print(secrets.token_hex(32))'"
            ),
        ),
        (
            "line\nline",
            (
                "flask_secrets.hello.SECRET_KEY: contains a line break, which "
                "systemd does not take; encode it in base64"
            ),
        ),
        (
            "correct-horse-battery-staple-xy",
            (
                "flask_secrets.hello.SECRET_KEY: has 31 characters, and a key of less than 32 "
                "can be guessed; make one with python3 -c 'import secrets; print(secrets.token_hex(32))'"
            ),
        ),
        (
            "0123456789abcdef" * 4,
            (
                "flask_secrets.hello.SECRET_KEY: repeats itself, and such a key can be guessed; "
                "make one with python3 -c 'import secrets; print(secrets.token_hex(32))'"
            ),
        ),
    ],
)
def test_a_secret_that_no_app_could_be_given(value: object, sentence: str) -> None:
    variables = {"flask_apps": [HELLO], "flask_secrets": {"hello": {"SECRET_KEY": value}}}
    assert problems(["web1"], {"web1": variables}) == [sentence]


STRONG, OLD = "1f0e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c", "a5b4c3d2e1f00f1e2d3c4b5a6978879611223344"
FALLBACKS = "flask_secrets.hello.SECRET_KEY_FALLBACKS: "


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ([], []),
        ([OLD], []),
        (OLD, ["must be a list of keys that signed before, as in ['…']"]),
        ({"a": OLD}, ["must be a list of keys that signed before, as in ['…']"]),
        ([OLD, 5], ["key 2 is not a text; put its value in quotes"]),
        ([STRONG], ["key 1 is SECRET_KEY itself; keep only what signed before it"]),
        ([OLD, OLD], ["key 2 is there twice; remove one of them"]),
        (
            ["short"],
            [
                (
                    "key 1 has 5 characters, and a key of less than 32 can be guessed; "
                    "make one with python3 -c 'import secrets; print(secrets.token_hex(32))'"
                )
            ],
        ),
        (
            ["ab" * 32],
            [
                (
                    "key 1 repeats itself, and such a key can be guessed; "
                    "make one with python3 -c 'import secrets; print(secrets.token_hex(32))'"
                )
            ],
        ),
        (
            [OLD + "\n"],
            ["key 1 contains a line break, which systemd does not take; encode it in base64"],
        ),
    ],
)
def test_a_key_that_no_session_should_be_believed_for(value: object, found: list[str]) -> None:
    secrets = {"hello": {"SECRET_KEY": STRONG, "SECRET_KEY_FALLBACKS": value}}
    variables = {"flask_apps": [HELLO], "flask_secrets": secrets}
    assert problems(["web1"], {"web1": variables}) == [FALLBACKS + one for one in found]


def test_a_secret_may_have_line_breaks_where_it_is_a_file() -> None:
    values = {"hello": {"SECRET_KEY": STRONG, "PEM": "a\nb\n"}}
    for via, found in (
        ("credentials", []),
        (
            "environment",
            [
                (
                    "flask_secrets.hello.PEM: contains a line break, which systemd does not take; "
                    "encode it in base64"
                )
            ],
        ),
    ):
        variables = {"flask_apps": [hello(secrets_via=via)], "flask_secrets": values}
        assert problems(["web1"], {"web1": variables}) == found


def test_secrets_as_files() -> None:
    resolved = plan(
        [HELLO, hello(name="other", secrets_via="environment", domains=["other.example.org"])],
        {"secrets_via": "credentials"},
        FACTS,
    )
    assert [one["credentials"] for one in resolved["services"]] == [True, False]
    assert [one["credentials_file"] for one in resolved["releases"]] == ["/etc/flask/hello/credentials", None]
    files = hello(secrets_via="credentials", config={"SECRET_KEY_FILE": "/key"})
    assert sentences([files], {}, {"hello": {"SECRET_KEY": STRONG}}) == [
        (
            "flask_apps.hello.config.SECRET_KEY_FILE: is set by the release itself, "
            "with secrets_via: credentials; remove it"
        )
    ]
    assert sentences([hello(secrets_via="credential")]) == [
        "flask_apps.hello.secrets_via: 'credential' is not known, did you mean 'credentials'?"
    ]


def test_keys_by_chance_are_strong() -> None:
    """Of the shortest kind that is usual, and of the kind that the sentence recommends."""
    for _ in range(1000):
        assert weakness(chance.token_hex(16)) is None
        assert weakness(chance.token_urlsafe(48)) is None


def test_hosts_of_one_app_share_its_key() -> None:
    one, other = "a key of one host, 0123456789abcdef", "a key of another, 0123456789abcdef"
    fleet = {
        host: {"flask_apps": [HELLO], "flask_secrets": {"hello": {"SECRET_KEY": key}}}
        for host, key in (("web1", one), ("web2", other), ("web3", one))
    }
    assert problems([*fleet], fleet) == [
        (
            "flask_secrets.hello.SECRET_KEY: differs between web1, web3 and web2; a session that begins "
            "on one ends on another, so give all hosts one key, in group_vars"
        )
    ]
    assert problems(["web1", "web3"], fleet) == []
    assert problems([*fleet], fleet, secrets=False) == []


def test_hosts_of_one_app_believe_the_same_keys() -> None:
    key, before = "a key of all hosts, 0123456789abcdef", "a key from before, 0123456789abcdef"
    fleet = {
        host: {"flask_apps": [HELLO], "flask_secrets": {"hello": {"SECRET_KEY": key, **believed}}}
        for host, believed in (
            ("web1", {"SECRET_KEY_FALLBACKS": [before]}),
            ("web2", {}),
            ("web3", {"SECRET_KEY_FALLBACKS": []}),
        )
    }
    assert problems([*fleet], fleet) == [
        (
            "flask_secrets.hello.SECRET_KEY_FALLBACKS: differs between web1 and web2, web3; a session that "
            "begins on one ends on another, so give all hosts one list, in group_vars"
        )
    ]
    assert problems(["web2", "web3"], fleet) == []


def test_two_apps_of_one_name() -> None:
    assert sentences([HELLO, HELLO]) == [
        "flask_apps.hello: there are two apps of this name; each app has its own"
    ]


def test_a_map_instead_of_a_list() -> None:
    assert sentences({"hello": {}}) == [
        "flask_apps: must be a list of apps, each with a 'name'; write '- name: hello'"
    ]


def test_secrets_are_checked_by_name() -> None:
    assert sentences([HELLO], {}, {}) == [
        (
            "flask_apps.hello: secret SECRET_KEY has no value; add it to flask_secrets.hello "
            "in the vault file (ansible-vault edit), "
            "make one with python3 -c 'import secrets; print(secrets.token_hex(32))'"
        )
    ]
    assert sentences([HELLO], {}, {"hello": {"SECRET_KEY": "x"}, "helo": {}}) == [
        "flask_secrets.helo: there is no such app, did you mean 'hello'?"
    ]
    assert sentences([hello(config={"SECRET_KEY": "x"})], {}, {"hello": {"SECRET_KEY": "x"}}) == [
        "flask_apps.hello: SECRET_KEY is in config and in flask_secrets; keep the one in flask_secrets"
    ]
    assert plan([hello(secrets=[])], {}, FACTS, {})["services"][0]["secrets"] == []


def test_equal_ports() -> None:
    assert sentences([HELLO], {"ports": {"http": 443}}) == [
        "flask_defaults.ports: http and https are both 443; they need two ports"
    ]


def test_problems_name_the_hosts_that_differ() -> None:
    key = "only this test has this key, 0123456789abcdef"
    good = {"flask_apps": [HELLO], "flask_secrets": {"hello": {"SECRET_KEY": key}}}
    bad = {**good, "flask_apps": [hello(wokers=1)]}
    assert problems(["web1", "web2"], {"web1": good, "web2": good}) == []
    assert problems(["web1", "web2"], {"web1": bad, "web2": bad}) == [
        "flask_apps.hello: unknown key 'wokers', did you mean 'workers'?"
    ]
    assert problems(["web1", "web2"], {"web1": good, "web2": bad}) == [
        "flask_apps.hello: unknown key 'wokers', did you mean 'workers'? (on web2)"
    ]
    assert problems(["web1"], {"web1": {}}) == [
        "flask_apps: is not defined; describe the apps in the inventory, in group_vars/flask/apps.yml"
    ]


_scalars = st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=8)
_values = (
    _scalars | st.lists(_scalars, max_size=2) | st.dictionaries(st.text(max_size=4), _scalars, max_size=2)
)
_keys = st.sampled_from(
    [
        "name",
        "domains",
        "source",
        "wsgi",
        "lock",
        "interpreter",
        "gunicorn",
        "health",
        "static",
        "worker_class",
        "workers",
        "threads",
        "timeout",
        "request_limit",
        "config",
        "secrets",
        "secrets_via",
        "tls",
        "headers",
        "root",
        "hsts",
        "unknown",
    ]
)
_descriptions = st.dictionaries(_keys, _values, max_size=3)


@given(_descriptions, _descriptions)
def test_whatever_people_write_gets_sentences_and_no_traceback(
    app: dict[str, Any], defaults: dict[str, Any]
) -> None:
    found = problems(
        ["web1"], {"web1": {"flask_apps": [{**HELLO, **app}], "flask_defaults": defaults}}, False
    )
    assert [sentence for sentence in found if not sentence.startswith(("flask_apps", "flask_defaults"))] == []


@given(st.text())
def test_a_name_that_is_accepted_is_safe_everywhere(name: str) -> None:
    try:
        resolved = plan([hello(name=name)])
    except AnsibleFilterError:
        return
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert resolved["accounts"][0]["home"] == "/srv/" + name


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ({"needs": ["jti"]}, "needs: 'jti' is not known, did you mean 'jit'?"),
        ({"needs": ["root"]}, "needs: 'root' is not known; the words are jit, proc, subprocess"),
        ({"needs": ["jit", "jit"]}, "needs: 'jit' is there twice"),
        (
            {"needs": ["outgoing"]},
            "needs: 'outgoing' is what network says, and its default 'all' allows; leave it away",
        ),
        ({"network": "local"}, "network: 'local' is not known, did you mean 'localhost'?"),
        ({"network": "vpn"}, "network: 'vpn' is not known; the words are all, localhost, none"),
        ({"network": 4}, "network: must be a word or a list of networks; the words are all, localhost, none"),
        (
            {"network": "192.0.2.0/24"},
            "network: '192.0.2.0/24' is not known; write networks as a list, as in [192.0.2.0/24]",
        ),
        ({"network": []}, "network: is empty; write none, or name the networks to reach"),
        (
            {"network": ["192.0.2.0/33"]},
            "network: '192.0.2.0/33' is not a network; write one like 192.0.2.0/24 or 2001:db8::/32",
        ),
        (
            {"network": ["192.0.2.7/24"]},
            "network: '192.0.2.7/24' is an address within a network; write 192.0.2.0/24",
        ),
        ({"network": ["::/0"]}, "network: '::/0' is every address; write all, without a list"),
        (
            {"network": ["localhost", "192.0.2.0/24"]},
            "network: 'localhost' is a word, and no network of a list; write 127.0.0.0/8 and ::1",
        ),
        (
            {"network": ["none"]},
            "network: 'none' is a word, and no network of a list; it stands alone, without a list",
        ),
    ],
)
def test_mistakes_about_the_sandbox(said: dict[str, Any], sentence: str) -> None:
    assert sentences([hello(**said)]) == [f"flask_apps.hello.{sentence}"]
    assert sentences([hello()], said) == [f"flask_apps.hello.{sentence}"]


def test_the_network_that_an_app_reaches() -> None:
    for said, expected in (
        ("localhost", (False, ["localhost"])),
        ("none", (True, [])),
        (["192.0.2.7", "2001:DB8::/32"], (False, ["192.0.2.7/32", "2001:db8::/32"])),
    ):
        network = plan([hello(network=said)], {}, FACTS)["services"][0]["network"]
        assert (network["private"], network["allow"]) == expected


def test_what_a_service_sees_of_its_neighbours_and_executes() -> None:
    first, second, third = plan(
        [
            hello(interpreter="/opt/python/3.14/bin/python3", static={"/files/": "/srv/files"}),
            hello(name="notes", domains=["notes.example.org"], root="/srv/more", needs=["subprocess"]),
            hello(name="other", domains=["other.example.org"], root="/data"),
        ],
        {},
        FACTS,
    )["services"]
    for service in (first, second, third):
        assert service["hidden"] == ["/data", "/srv"]
    assert first["visible"] == ["/srv/hello", "-/opt/python/3.14", "-/srv/files"]
    assert first["executable"] == ["/usr/lib", "-/usr/local/lib", "-/opt/python/3.14"]
    assert second["visible"] == ["/srv/more/notes"]
    assert second["executable"] == ["/usr", "-/usr/bin/python3"]


@pytest.mark.parametrize("interpreter", ["/srv/bin/python3", "/python3"])
def test_an_interpreter_among_the_apps_does_not_show_them(interpreter: str) -> None:
    service = plan([hello(interpreter=interpreter)], {}, FACTS)["services"][0]
    assert service["visible"] == ["/srv/hello", f"-{interpreter}"]
    assert service["executable"] == ["/usr/lib", "-/usr/local/lib", f"-{interpreter}"]
