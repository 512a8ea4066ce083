"""What the scenario `faults` takes for wrong on a host."""

from __future__ import annotations

from typing import Any

import pytest

from tests.faults.state import complaints, strays

NAME = "20261121T101500Z-0123456789"
OLD = "20261121T101400Z-abcdef0123"
EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
VERSIONS = {"two": {"requirements.txt": EMPTY, "src/loaded/version.py": "f00"}}


def state(**changes: Any) -> dict[str, Any]:
    return {
        "current": NAME,
        "record": {"release": NAME, "digest": "0123456789abcdef", "environment": "cafe"},
        "sources": {"requirements.txt": EMPTY, "src/loaded/version.py": "f00"},
        "static": "two\n",
        "missing": [],
        "environment": "cafe",
        "marker": {"hash": "cafe"},
        "installed": "",
        "process": {
            "interpreter": "/srv/load/environments/cafe/bin/python",
            "directory": f"/srv/load/releases/{NAME}/src",
            "release": NAME,
        },
        "units": {
            f"flask-load@{NAME}.socket": "active/running",
            f"flask-load@{NAME}.service": "active/running",
        },
        "enabled": [f"flask-load@{NAME}.service", f"flask-load@{NAME}.socket"],
        "releases": [OLD, NAME],
        "environments": ["cafe"],
        "used": ["cafe"],
        **changes,
    }


def test_nothing_is_wrong_with_a_whole_release() -> None:
    assert complaints(state(), VERSIONS) == []
    assert strays(state(), drained=True) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"missing": [".flushed"]}, ".flushed is missing"),
        ({"static": "one\n"}, "its code is not that of version 'one'"),
        ({"record": None}, "release.json is of None, digest None"),
        ({"environment": "beef"}, "venv leads to beef, not to cafe"),
        ({"marker": None}, "its environment is not whole"),
        ({"installed": "flask\n"}, "its environment was made of other requirements than its code has"),
        ({"process": {}}, "its process is {}"),
        ({"units": {}}, "its socket is None"),
    ],
)
def test_what_does_not_belong_together_is_told(changes: dict[str, Any], said: str) -> None:
    assert f"{NAME}: {said}" in complaints(state(**changes), VERSIONS)


def test_a_release_that_still_drains_is_no_stray_until_it_should_have_ended() -> None:
    units = {
        **state()["units"],
        f"flask-load@{OLD}.service": "active/running",
        f"flask-load-drain-{OLD}.timer": "active/waiting",
    }
    assert strays(state(units=units), drained=False) == []
    assert strays(state(units=units), drained=True) == [
        f"flask-load@{OLD}.service is active/running",
        f"flask-load-drain-{OLD}.timer is active/waiting",
    ]


def test_a_socket_whose_service_ends_its_requests_is_no_stray() -> None:
    units = {
        f"flask-load@{OLD}.service": "deactivating/stop-sigterm",
        f"flask-load@{OLD}.socket": "active/running",
    }
    assert strays(state(units=units), drained=False) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"units": {f"flask-load@{OLD}.service": "failed/failed"}},
            f"flask-load@{OLD}.service is failed/failed",
        ),
        (
            {"units": {"flask-load-migrate-x.service": "activating/start"}},
            "flask-load-migrate-x.service is activating/start",
        ),
        ({"releases": [".partial-x", NAME]}, "releases/.partial-x is left"),
        ({"environments": ["cafe", "beef"]}, "environments/beef is left"),
        ({"enabled": []}, f"at boot do not start ['flask-load@{NAME}.service', 'flask-load@{NAME}.socket']"),
    ],
)
def test_what_is_left_is_told(changes: dict[str, Any], said: str) -> None:
    assert strays(state(**changes), drained=False) == [said]
