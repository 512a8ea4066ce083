"""Specs, defaults and plan say the same thing."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.flaskworks.server.plugins.filter.plan import plan

ROOT = Path(__file__).parents[2]
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir() if path.is_dir())

# Which list of the plan each input of a role takes.
INPUTS = {
    "app_accounts": "accounts",
    "gunicorn_services": "services",
    "tls_certificates": "certificates",
    "nginx_sites": "sites",
    "nginx_policy": "policy",
    "apache_sites": "sites",
    "apache_policy": "policy",
    "logrotate_logs": "logs",
    "deploy_releases": "releases",
}


def _spec(role: str, entry_point: str = "main") -> dict[str, Any]:
    specs: dict[str, Any] = yaml.safe_load((ROOT / "roles" / role / "meta/argument_specs.yml").read_text())
    options: dict[str, Any] = specs["argument_specs"][entry_point].get("options", {})
    return options


def _variables(role: str, directory: str) -> dict[str, Any]:
    path = ROOT / "roles" / role / directory / "main.yml"
    return (yaml.safe_load(path.read_text()) or {}) if path.exists() else {}


PLAN = plan(
    [
        {
            "name": "hello",
            "domains": ["hello.example.org", "www.hello.example.org"],
            "source": {"path": "/code/hello"},
            "wsgi": "hello:create_app()",
            "health": "/healthz",
            "liveness": True,
            "static": {"/static/": "static", "/media/": "/srv/media"},
            "config": {"A": "b"},
            "allow": ["192.0.2.0/24"],
            "basic_auth": {"ops": "$6$salt$" + "x" * 86},
            "trusted_proxies": ["10.0.0.1"],
            "rate_limit": {"rate": "10/s"},
            "raw": {"nginx": "return 410;"},
        },
        {
            "name": "reports",
            "domains": ["hello.example.org", "www.hello.example.org"],
            "prefix": "/reports",
            "source": {"path": "/code/reports"},
            "wsgi": "reports:app",
            "health": "/healthz",
            "static": {"/static/": "static", "/media/": "/srv/media"},
        },
    ]
)


@pytest.mark.parametrize("role", ROLES)
def test_inputs_are_named_for_their_role(role: str) -> None:
    assert [name for name in _spec(role) if not name.startswith(f"{role}_")] == []


@pytest.mark.parametrize("role", ROLES)
def test_defaults_equal_the_spec(role: str) -> None:
    """A default in the spec is the literal; one that comes from the plan is required instead."""
    spec, defaults, internal = _spec(role), _variables(role, "defaults"), _variables(role, "vars")
    assert sorted(defaults) == sorted(spec)
    for name, value in defaults.items():
        secrets = ", flask_secrets | default({})" if name == "gunicorn_services" else ""
        if name in INPUTS:
            plan_line = (
                "(flask_apps | flaskworks.server.plan(flask_defaults | "
                f"default({{}}), ansible_facts{secrets}))"
            )
            assert value == f"{{{{ {plan_line}.{INPUTS[name]} }}}}"
            assert spec[name]["required"] is True, name
        elif name in ("gunicorn_secrets", "tls_secrets"):
            assert (value, spec[name]["default"]) == ("{{ flask_secrets | default({}) }}", {})
        elif value == f"{{{{ __{name} }}}}" and "{{" not in str(internal[f"__{name}"]):
            assert spec[name]["default"] == internal[f"__{name}"], name
        elif "{{" in str(value) and value != spec[name].get("default"):
            assert "default" not in spec[name], name
        else:
            assert spec[name]["default"] == value, name


@pytest.mark.parametrize("role", ROLES)
def test_a_readme_fits_on_a_screen(role: str) -> None:
    assert len((ROOT / "roles" / role / "README.md").read_text().splitlines()) <= 40


@pytest.mark.parametrize(("variable", "key"), INPUTS.items())
def test_the_spec_of_an_input_has_exactly_the_keys_of_the_plan(variable: str, key: str) -> None:
    role = variable.split("_", 1)[0]
    _compare(_spec(role)[variable], PLAN[key], variable)


def test_both_proxies_take_the_same() -> None:
    def told(role: str, variable: str) -> Any:
        text = json.dumps(_spec(role)[f"{role}_{variable}"])
        return json.loads(text.replace(f"{role}_", "").replace("nginx", "Apache"))

    for variable in ("sites", "policy"):
        assert told("apache", variable) == told("nginx", variable)


@pytest.mark.parametrize(
    ("role", "unused"),
    # Apache opens a connection for every request: it cannot bound the life of a kept one.
    [("nginx", set()), ("apache", {"keepalive"})],
)
def test_a_proxy_uses_all_that_it_takes(role: str, unused: set[str]) -> None:
    texts = [path.read_text() for path in (ROOT / "roles" / role).glob("templates/*.j2")]
    written = "\n".join([*texts, (ROOT / "roles" / role / "vars/main.yml").read_text()])
    spec = _spec(role)
    sites, policy = spec[f"{role}_sites"]["options"], spec[f"{role}_policy"]["options"]
    assert {
        name
        for name in sites
        if not re.search(rf"\b({role}_site|mount)\.{name}\b|attribute='{name}'", written)
    } == unused
    assert {name for name in policy if not re.search(rf"\b{role}_policy\.{name}\b", written)} == set()
    for name in sites["static"]["options"]:
        assert re.search(rf"\bstatic\.{name}\b", written), name
    for name in policy["tls"]["options"]:
        assert f"{role}_policy.tls.{name}" in written, name


def _compare(option: dict[str, Any], value: Any, where: str) -> None:
    if isinstance(value, list):
        assert option["type"] == "list", where
        assert "elements" in option, where
        if value and isinstance(value[0], dict):
            assert option["elements"] == "dict", where
            _compare({**option, "type": "dict"}, value[0], f"{where}[]")
    elif isinstance(value, dict) and "options" in option:
        assert option["type"] == "dict", where
        assert sorted(option["options"]) == sorted(value), where
        for name, element in value.items():
            _compare(option["options"][name], element, f"{where}.{name}")
    elif isinstance(value, dict):
        # Only dictionaries whose keys people choose may go without options.
        assert where.endswith(".environment"), where
    else:
        types = {
            bool: {"bool"},
            int: {"int", "float"},
            float: {"float"},
            str: {"str", "path"},
            type(None): {"str", "path"},
        }
        assert option["type"] in types[type(value)], where


def test_the_group_of_the_sockets_is_the_same_everywhere() -> None:
    """The role app makes it, gunicorn gives the sockets to it, and the proxy joins it."""
    assert [
        _variables("app", "defaults")["app_proxy_group"],
        _variables("gunicorn", "defaults")["gunicorn_socket_group"],
        PLAN["policy"]["proxy_group"],
    ] == ["flask-proxy"] * 3


def test_the_example_of_the_readme_is_the_one_that_is_converged() -> None:
    example = (ROOT / "inventories/prod/group_vars/flask/apps.yml").read_text().removeprefix("---\n")
    assert f"```yaml\n{example}```" in (ROOT / "README.md").read_text()
