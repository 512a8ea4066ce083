# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Render one template for many elements exactly as ansible.builtin.template would."""

from __future__ import annotations

import datetime
import functools
import platform
import pwd
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.module_utils.common.text.converters import to_text
from ansible.template import Templar, trust_as_template


def template_variables(name: str, path: str, destination: str) -> dict[str, Any]:
    """Variables that ansible.builtin.template adds, `ansible_managed` apart."""
    found = Path(path).stat()
    try:
        owner: str | int = pwd.getpwuid(found.st_uid).pw_name
    except KeyError:
        owner = found.st_uid
    return {
        "template_host": platform.node(),
        "template_path": name,
        "template_mtime": datetime.datetime.fromtimestamp(found.st_mtime),  # noqa: DTZ006 - as ansible-core does
        "template_uid": owner,
        "template_run_date": datetime.datetime.now(),  # noqa: DTZ005 - as ansible-core does
        "template_destpath": destination,
        "template_fullpath": path,
    }


def managed_text(path: str) -> Any:
    """The configured `ansible_managed`, itself a template. Its setting goes away in ansible-core 2.23."""
    text = getattr(constants, "DEFAULT_MANAGED_STR", "Ansible managed")
    text = text.format(host="{{ template_host }}", uid="{{ template_uid }}", file="{{ template_path }}")
    return trust_as_template(time.strftime(text, time.localtime(Path(path).stat().st_mtime)))


def search_path(inherited: Iterable[str], base: str, path: str) -> list[str]:
    """Where includes of the template at `path` are looked for."""
    found: list[str] = []
    for directory in [*inherited, base, str(Path(path).parent)]:
        found += [f"{directory}/templates", directory]
    return found


class Renderer:
    """One template, compiled once."""

    def __init__(self, templar: Templar, name: str, path: str, source: str, searchpath: list[str]) -> None:
        self._name = name
        self._path = path
        self._source = trust_as_template(source)
        self._templar = templar.copy_with_new_env(searchpath=searchpath)
        self._managed = managed_text(path)
        _compile_once(self._templar)

    def render(self, variables: Mapping[str, Any], destination: str) -> str:
        # A user's own ansible_managed wins, so the default comes first.
        self._templar.available_variables = {
            "ansible_managed": self._managed,
            **variables,
            **template_variables(self._name, self._path, destination),
        }
        overrides = {"trim_blocks": True, "lstrip_blocks": False, "newline_sequence": "\n"}
        result = self._templar.template(self._source, escape_backslashes=False, overrides=overrides)
        return "" if result is None else str(to_text(result, nonstring="simplerepr"))


def _compile_once(templar: Templar) -> None:
    """Keep compiled templates: ansible-core compiles anew for every rendering, 8 ms a page.

    Fifty apps with five files are two seconds of that. The engine is private to ansible-core, so a
    version that names it otherwise is merely slower.
    """
    engine = getattr(templar, "_engine", None)
    compile_template = getattr(engine, "_compile_template", None)
    if callable(compile_template):
        # union-attr: mypy forgets that an engine that has the method is not None.
        engine._compile_template = functools.cache(compile_template)  # type: ignore[union-attr]
