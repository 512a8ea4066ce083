"""What a host must be like: what serves is whole and belongs together, and nothing else is left."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

State = dict[str, Any]
"""What look.py tells."""


def fingerprints(directory: Path) -> dict[str, str]:
    """Return what a version of the source consists of: the SHA-256 of each file by its path."""
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


def complaints(state: State, versions: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Say what is wrong with the release that serves; `versions` are the fingerprints of what was shipped."""
    current, record = state["current"], state["record"] or {}
    version = state["static"].strip()
    wrong = [f"{name} is missing" for name in state["missing"]]
    if state["sources"] != versions.get(version):
        wrong.append(f"its code is not that of version {version!r}")
    if record.get("release") != current or record.get("digest", "")[:10] != current.partition("-")[2]:
        wrong.append(f"release.json is of {record.get('release')}, digest {record.get('digest')}")
    if record.get("environment") != state["environment"]:
        wrong.append(f"venv leads to {state['environment']}, not to {record.get('environment')}")
    if (state["marker"] or {}).get("hash") != state["environment"]:
        wrong.append("its environment is not whole")
    demanded = hashlib.sha256(state["installed"].encode()).hexdigest()
    if state["sources"].get("requirements.txt") != demanded:
        wrong.append("its environment was made of other requirements than its code has")
    if state["units"].get(f"flask-load@{current}.socket") != "active/running":
        wrong.append(f"its socket is {state['units'].get(f'flask-load@{current}.socket')}")
    expected = {
        "interpreter": f"/srv/load/environments/{record.get('environment')}/bin/python",
        "directory": f"/srv/load/releases/{current}/src",
        "release": current,
    }
    if state["process"] != expected:
        wrong.append(f"its process is {state['process']}")
    return [f"{current}: {what}" for what in wrong]


def strays(state: State, *, drained: bool) -> list[str]:
    """Say what is left besides what serves; unless `drained`, what still ends its requests may be there."""
    current = state["current"]
    own = {f"flask-load@{current}.socket", f"flask-load@{current}.service"}
    wrong = []
    for unit, how in state["units"].items():
        if unit in own:
            continue
        name = unit.removeprefix("flask-load-drain-").removeprefix("flask-load@").rpartition(".")[0]
        # Its socket is closed when the requests of its service are done.
        service = state["units"].get(f"flask-load@{name}.service", "")
        ending = any(f"flask-load-drain-{name}.{kind}" in state["units"] for kind in ("timer", "service"))
        ending = ending or "deactivating/" in (how + service)
        if how.startswith("inactive/") or (ending and not drained):
            continue
        wrong.append(f"{unit} is {how}")
    if set(state["enabled"]) - own:
        wrong.append(f"at boot start {sorted(set(state['enabled']) - own)}")
    if own - set(state["enabled"]):
        wrong.append(f"at boot do not start {sorted(own - set(state['enabled']))}")
    wrong += [f"releases/{name} is left" for name in state["releases"] if name.startswith(".")]
    wrong += [f"environments/{name} is left" for name in state["environments"] if name not in state["used"]]
    return wrong
