"""Runs on the host, as root: what is there of the app, as one line of JSON. Standard library only."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import subprocess
import sys
from typing import Any

HOME = "/srv/load"


def main() -> None:
    """Print what there is."""
    current = os.path.realpath(f"{HOME}/current")
    venv = os.path.realpath(f"{current}/venv")
    units = {}
    shown = _run("systemctl", "list-units", "--all", "--plain", "--no-legend", "flask-load@*", "flask-load-*")
    for line in shown.splitlines():
        name, _load, active, sub = line.split()[:4]
        units[name] = f"{active}/{sub}"
    service = f"flask-load@{os.path.basename(current)}.service"
    pid = _run("systemctl", "show", "--property=MainPID", "--value", service).strip()
    told = {
        "current": os.path.basename(current),
        "record": _json(f"{current}/release.json"),
        "sources": _sums(f"{current}/src"),
        "static": _text(f"{current}/static/static/release.txt"),
        "missing": [
            name
            for name in ("environment", "gunicorn.conf.py", "gunicorn.sock", "venv/bin/gunicorn", ".flushed")
            if not os.path.exists(f"{current}/{name}")
        ],
        "environment": os.path.basename(venv),
        "marker": _json(f"{venv}/.complete"),
        "installed": _text(f"{venv}/requirements.txt"),
        "process": _process(pid),
        "units": units,
        "enabled": sorted(
            {os.path.basename(path) for path in glob.glob("/etc/systemd/system/*.wants/flask-load@*")}
        ),
        "releases": sorted(os.listdir(f"{HOME}/releases")),
        "environments": sorted(
            name for name in os.listdir(f"{HOME}/environments") if not name.endswith(".lock")
        ),
        "used": sorted(
            {os.path.basename(os.path.realpath(path)) for path in glob.glob(f"{HOME}/releases/*/venv")}
        ),
        "history": [json.loads(line) for line in _text(f"{HOME}/history.jsonl").splitlines()[-3:]],
    }
    json.dump(told, sys.stdout)


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError:
        return ""


def _json(path: str) -> Any:
    return json.loads(_text(path) or "null")


def _sums(root: str) -> dict[str, str]:
    found = {}
    for above, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name != "__pycache__"]
        for name in names:
            path = os.path.join(above, name)
            with open(path, "rb") as file:
                found[os.path.relpath(path, root)] = hashlib.sha256(file.read()).hexdigest()
    return found


def _process(pid: str) -> dict[str, str]:
    """What the service's first process runs; empty while there is none."""
    try:
        with open(f"/proc/{pid}/cmdline", encoding="utf-8") as file:
            words = file.read().split("\0")
        with open(f"/proc/{pid}/environ", encoding="utf-8") as file:
            variables = dict(entry.split("=", 1) for entry in file.read().split("\0") if "=" in entry)
        return {
            "interpreter": words[0],
            "directory": os.readlink(f"/proc/{pid}/cwd"),
            "release": variables.get("FLASK_RELEASE", ""),
        }
    except OSError:
        return {}


if __name__ == "__main__":
    main()
