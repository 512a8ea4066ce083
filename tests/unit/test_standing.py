"""After a failed deploy: what each host serves."""

from __future__ import annotations

from typing import Any

from ansible_collections.flaskworks.server.plugins.filter.standing import standing

OLD = "20261120T101500Z-0123456789"
NEW = "20261121T101500Z-abcdef0123"
AGAIN = "Correct what failed and deploy again; what serves its new release already is left alone."


def staged(**more: Any) -> dict[str, Any]:
    return {"apps": {"hello": {"release": NEW, "previous": OLD, "staged": True}}, **more}


def serves(release: str | None) -> dict[str, Any]:
    return {"apps": {"hello": {"release": release}}}


def tell(**hosts: tuple[dict[str, Any], ...]) -> list[str]:
    names = ("__deploy_staged", "__deploy_activated", "__deploy_withdrawn", "__deploy_hooked")
    variables = {host: dict(zip(names, results, strict=False)) for host, results in hosts.items()}
    return standing(list(hosts), variables).split("\n")


def test_a_roll_back_is_called_so() -> None:
    variables = {"web1": {"__deploy_staged": {"failed": True}}}
    assert standing(["web1"], variables, "roll back") == (
        "The roll back failed on web1. No host has switched: each serves what it served before."
    )


def test_no_host_has_switched() -> None:
    broken = {"failed": True, "apps": {"hello": {"release": None, "previous": OLD, "staged": False}}}
    assert tell(web1=(staged(), {}, serves(OLD)), web2=(broken, {}, serves(OLD))) == [
        "The deploy failed on web2. No host has switched: each serves what it served before."
    ]


def test_a_host_that_failed_after_others_switched() -> None:
    lost = {"failed": True, "apps": {"hello": {"release": NEW, "previous": OLD}}}
    assert tell(
        web1=(staged(), serves(NEW), serves(NEW)),
        web2=(staged(), lost, serves(OLD)),
    ) == [
        "The deploy failed on web2. What each host serves now:",
        f"  hello  web1  {NEW} (new)",
        f"  hello  web2  {OLD}",
        AGAIN,
    ]


def test_batches_before_and_after_the_one_that_failed() -> None:
    broken = {"failed": True, "apps": {"hello": {"release": None, "previous": OLD, "staged": False}}}
    assert tell(web1=(staged(), serves(NEW)), web2=(broken, {}, serves(OLD)), longer3=()) == [
        "The deploy failed on web2. What each host serves now:",
        f"  hello  web1     {NEW} (new)",
        f"  hello  web2     {OLD}",
        "  *  longer3  what it served before; its turn had not come",
        AGAIN,
    ]


def test_a_host_that_vanished_during_the_switch() -> None:
    assert tell(
        web1=(staged(), serves(NEW), serves(NEW)),
        web2=(staged(), {"unreachable": True}),
    ) == [
        "The deploy failed on web2. What each host serves now:",
        f"  hello  web1  {NEW} (new)",
        f"  hello  web2  {OLD} or {NEW}; it cannot be reached",
        AGAIN,
    ]


def test_a_host_that_vanished_before_anything_was_staged() -> None:
    assert tell(web1=(staged(), {}, serves(OLD)), web2=({"unreachable": True},)) == [
        "The deploy failed on web2. No host has switched: each serves what it served before."
    ]


def test_a_host_that_vanished_during_a_hook() -> None:
    assert tell(web1=(staged(), {}, serves(OLD)), web2=(staged(), {}, {}, {"unreachable": True})) == [
        "The deploy failed on web2. No host has switched: each serves what it served before."
    ]


def test_a_host_that_vanished_after_its_switch() -> None:
    assert tell(
        web1=(staged(), serves(NEW), serves(NEW)),
        web2=(staged(), serves(NEW), {}, {"unreachable": True}),
    )[1:3] == [f"  hello  web1  {NEW} (new)", f"  hello  web2  {NEW} (new)"]


def test_a_host_that_had_nothing_to_do_and_one_without_a_release() -> None:
    live = {"apps": {"hello": {"release": NEW, "previous": NEW, "staged": False}}}
    broken = {"failed": True, "apps": {"hello": {"release": None, "previous": None, "staged": False}}}
    assert tell(
        web1=(live, {"apps": {}}, serves(NEW)),
        web2=(staged(), serves(NEW), serves(NEW)),
        web3=(broken, {}, serves(None)),
    ) == [
        "The deploy failed on web3. What each host serves now:",
        f"  hello  web1  {NEW}",
        f"  hello  web2  {NEW} (new)",
        "  hello  web3  nothing",
        AGAIN,
    ]
