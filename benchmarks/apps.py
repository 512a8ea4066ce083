"""Inventories of the benchmarks: the sample app, or many tiny apps, with code that can be changed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.plays import ROOT

DOMAIN = "hello.example.org"
KEY = "only-for-benchmarks-0123456789abcdefghijklmnopqrstuvwxyz"

_TINY = '''"""One of many apps."""

from flask import Flask

REVISION = {revision}

app = Flask(__name__)


@app.get("/healthz")
def health() -> str:
    return f"revision {{REVISION}}"
'''


class Inventory:
    """An inventory in a directory of its own; nothing of it lies in the clone."""

    def __init__(self, directory: Path, *hosts: Mapping[str, Any]) -> None:
        self.directory = directory
        self.sources = directory.parent / f"{directory.name}-sources"
        (directory / "group_vars" / "flask").mkdir(parents=True)
        self.sources.mkdir()
        names = ["bench", *(f"bench-{number}" for number in range(2, len(hosts) + 1))]
        described = {name: dict(host) for name, host in zip(names, hosts, strict=True)}
        _write(directory / "hosts.json", {"flask": {"hosts": described}})

    def describe_sample_app(self) -> None:
        """Describe the sample app as the README does, with a copy of its code."""
        shutil.copytree(
            ROOT / "sample_app",
            self.sources / "hello",
            ignore=shutil.ignore_patterns("__pycache__", ".*_cache"),
        )
        app = {
            "name": "hello",
            "domains": [DOMAIN],
            "source": {"path": str(self.sources / "hello")},
            "wsgi": "hello:create_app()",
            "health": "/healthz",
            "static": {"/static/": "src/hello/static"},
            "config": {"HELLO_MIGRATE": "1"},
        }
        self._describe({}, [app], {"hello": {"SECRET_KEY": KEY}})

    def change_sample_app(self, revision: int) -> None:
        """Change one line of code, as a developer would between two deploys."""
        (self.sources / "hello" / "src" / "hello" / "revision.py").write_text(f"REVISION = {revision}\n")

    def describe_tiny_apps(self, number: int) -> None:
        """Describe this many apps, each with its own code and all with the same lock file."""
        apps = []
        for name in tiny_names(number):
            source = self.sources / name
            source.mkdir(exist_ok=True)
            shutil.copy(ROOT / "sample_app" / "requirements.lock", source / "requirements.lock")
            if not (source / "tiny.py").exists():
                (source / "tiny.py").write_text(_TINY.format(revision=0))
            app = {"name": name, "domains": [f"{name}.example.org"], "source": {"path": str(source)}}
            apps.append({**app, "wsgi": "tiny:app", "health": "/healthz"})
        # One worker: a host of 50 apps shall hold old and new releases at once.
        secrets = {name: {"SECRET_KEY": KEY} for name in tiny_names(number)}
        self._describe({"workers": 1, "threads": 2}, apps, secrets)

    def change_tiny_apps(self, names: list[str], revision: int) -> None:
        """Change the code of these apps."""
        for name in names:
            (self.sources / name / "tiny.py").write_text(_TINY.format(revision=revision))

    def _describe(
        self, defaults: Mapping[str, Any], apps: Sequence[Mapping[str, Any]], secrets: Mapping[str, Any]
    ) -> None:
        description = {"flask_defaults": defaults, "flask_apps": apps, "flask_secrets": secrets}
        _write(self.directory / "group_vars" / "flask" / "apps.json", description)


def tiny_names(number: int) -> list[str]:
    """Return the names of the first `number` tiny apps."""
    return [f"tiny-{index:02d}" for index in range(1, number + 1)]


def _write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")
