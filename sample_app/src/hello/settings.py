"""What the app reads from its environment, checked once at the start."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hello.breakage import Breakage

DEVELOPMENT_KEY = "development"
MOST_HOPS = 8  # nobody has more proxies in a row; a larger number is a typing error


class SettingsError(RuntimeError):
    """The environment does not describe an app that may run."""


@dataclass(frozen=True)
class Settings:
    """The settings of one process."""

    secret_key: str
    secret_key_fallbacks: list[str]
    debug: bool
    forwarded_hops: int
    release: str
    database: Path | None
    migrate: bool
    breakage: Breakage

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Read and check the settings; raise :class:`SettingsError` with a sentence."""
        debug = _switch(environment, "FLASK_DEBUG")
        database = environment.get("DATABASE_PATH")
        release = release_of(Path(__file__).resolve(), Path.cwd(), Path(sys.prefix))
        try:
            breakage = Breakage.parse(environment.get("HELLO_BREAK", ""))
        except ValueError as error:
            raise SettingsError(str(error)) from None
        return cls(
            secret_key=_secret_key(environment, debug),
            secret_key_fallbacks=_fallbacks(environment),
            debug=debug,
            forwarded_hops=_hops(environment.get("FORWARDED_HOPS", "")),
            release=environment.get("FLASK_RELEASE") or (release.name if release else "development"),
            database=Path(database) if database else shared_database(release),
            migrate=_switch(environment, "HELLO_MIGRATE"),
            breakage=breakage,
        )


def release_of(*paths: Path) -> Path | None:
    """Return the directory ``…/releases/<id>`` that the first of *paths* lies in, if any does."""
    for path in paths:
        if "releases" in path.parts[:-1]:
            return Path(*path.parts[: path.parts.index("releases") + 2])
    return None


def shared_database(release: Path | None) -> Path | None:
    """Return the database in the ``shared`` directory beside ``releases``, where there is one."""
    shared = release.parent.parent / "shared" if release else None
    return shared / "hello.db" if shared and shared.is_dir() else None


def _switch(environment: Mapping[str, str], name: str) -> bool:
    value = environment.get(name, "").lower()
    if value in {"", "0", "false", "no", "off"}:
        return False
    if value in {"1", "true", "yes", "on"}:
        return True
    raise SettingsError(f"{name} is {value!r}; it must be 1 or 0.")


def _hops(value: str) -> int:
    text = value.strip() or "0"
    if text.isascii() and text.isdigit() and int(text) <= MOST_HOPS:
        return int(text)
    raise SettingsError(
        f"FORWARDED_HOPS is {value!r};"
        f" it must be the number of proxies in front of the app, 0 to {MOST_HOPS}."
    )


def _secret(environment: Mapping[str, str], name: str) -> str:
    """Return the value of a secret, from NAME or else from the file that NAME_FILE names."""
    file = environment.get(f"{name}_FILE", "")
    if environment.get(name) or not file:
        return environment.get(name, "")
    try:
        return Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{name}_FILE {file} cannot be read: {error}.") from None


def _fallbacks(environment: Mapping[str, str]) -> list[str]:
    """Return the keys that signed sessions before; a session of theirs stays valid."""
    try:
        keys = json.loads(_secret(environment, "SECRET_KEY_FALLBACKS") or "[]")
    except ValueError:
        keys = None
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise SettingsError("SECRET_KEY_FALLBACKS must be a list of keys, as JSON.")
    return keys


def _secret_key(environment: Mapping[str, str], debug: bool) -> str:
    key = _secret(environment, "SECRET_KEY").strip()
    if key:
        return key
    if debug:
        return DEVELOPMENT_KEY
    raise SettingsError("SECRET_KEY is not set; set it (or SECRET_KEY_FILE), or FLASK_DEBUG=1 to develop.")
