# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a host is asked to release: one frozen value per app, made from the plan by the action."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

HOOKS = ("migrate", "before_activate", "after_activate")
"""The kinds of hooks, in their order; the last runs after the switch."""


class ReleaseFailure(Exception):
    """Something that stops one app; the text is a sentence for the operator."""


def in_words(error: OSError) -> str:
    """What went wrong and with which file, also where many files did (shutil.Error)."""
    if error.strerror:
        return f"{error.strerror}: {error.filename}"
    several = error.args[0] if error.args else None
    if isinstance(several, list):
        return "; ".join(str(one[-1]) for one in several)
    return str(error)


@dataclass(frozen=True)
class Source:
    """The code: its digest, where it came from, and what it needs."""

    digest: str
    revision: str
    kind: str  # tree or wheel
    pythonpath: str | None  # "." or "src"; None for a wheel
    requirements: str
    origin: str
    wheel: str | None


@dataclass(frozen=True)
class Health:
    """When a release counts as healthy; times in seconds."""

    path: str
    status: int
    timeout: float
    interval: float
    successes: int


@dataclass(frozen=True)
class Static:
    """A directory of the source that proxies serve under an address."""

    url: str
    path: str


@dataclass(frozen=True)
class Hooks:
    """Commands beside a deploy, each a line that systemd splits; the timeout of one command in seconds."""

    migrate: tuple[str, ...] = ()
    before_activate: tuple[str, ...] = ()
    after_activate: tuple[str, ...] = ()
    timeout: float = 600

    def commands(self, kind: str) -> tuple[str, ...]:
        """The commands of one of `HOOKS`."""
        found: dict[str, tuple[str, ...]] = {
            "migrate": self.migrate,
            "before_activate": self.before_activate,
            "after_activate": self.after_activate,
        }
        return found[kind]


@dataclass(frozen=True)
class Release:
    """Everything about one app that a host needs to know to release it; times in seconds."""

    name: str
    unit: str
    account: str
    home: str
    files: tuple[str, ...]
    environment_file: str
    credentials_file: str | None
    unit_files: tuple[str, ...]
    source: Source
    static: tuple[Static, ...]
    health: Health
    origin: str  # scheme, host, port and prefix that visitors ask for
    keep_releases: int
    linger: float
    lock_wait: float
    watch: float
    hooks: Hooks
    environments: str
    interpreter: str
    server: str
    output: str  # file that has what the service says; "-" for the journal

    @property
    def releases(self) -> str:
        """Where the releases are."""
        return os.path.join(self.home, "releases")

    def units(self, release: str) -> tuple[str, str]:
        """The socket and the service of one release."""
        return f"{self.unit}@{release}.socket", f"{self.unit}@{release}.service"

    def drain(self, release: str) -> str:
        """The name (without suffix) of the timer that stops a release which no longer serves."""
        return f"{self.unit}-drain-{release}"

    def expiry(self, release: str) -> str:
        """The name (without suffix) of the timer that stops a candidate which nobody activates."""
        return f"{self.unit}-expiry-{release}"

    def hook(self, kind: str) -> str:
        """How the names of the units begin that run hooks of one kind."""
        return f"{self.unit}-{kind}"


NO_SOURCE: Mapping[str, Any] = {  # for what needs no code: what is on the host is enough
    "digest": "",
    "revision": "",
    "kind": "tree",
    "pythonpath": None,
    "requirements": "",
    "origin": "",
    "wheel": None,
}


def parse(data: Mapping[str, Any]) -> Release:
    """Make the value of one app from what the action sends."""
    source, health, environment = data["source"], data["health"], data["environment"]
    return Release(
        name=data["name"],
        unit=data["unit"],
        account=data["account"],
        home=data["home"],
        files=tuple(data["files"]),
        environment_file=data["environment_file"],
        credentials_file=data["credentials_file"],
        unit_files=tuple(data["unit_files"]),
        source=Source(
            digest=source["digest"],
            revision=source["revision"],
            kind=source["kind"],
            pythonpath=source["pythonpath"],
            requirements=source["requirements"],
            origin=source["origin"],
            wheel=source["wheel"],
        ),
        static=tuple(Static(one["url"], one["path"]) for one in data["static"]),
        health=Health(
            path=health["path"],
            status=int(health["status"]),
            timeout=float(health["timeout"]),
            interval=float(health["interval"]),
            successes=int(health["successes"]),
        ),
        origin=data["origin"],
        keep_releases=int(data["keep_releases"]),
        linger=float(data["linger"]),
        lock_wait=float(data["lock_wait"]),
        watch=float(data["watch"]),
        hooks=Hooks(
            migrate=tuple(data["hooks"]["migrate"]),
            before_activate=tuple(data["hooks"]["before_activate"]),
            after_activate=tuple(data["hooks"]["after_activate"]),
            timeout=float(data["hooks"]["timeout"]),
        ),
        environments=environment["directory"],
        interpreter=environment["interpreter"],
        server=environment["server"],
        output=data["output"],
    )
