# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a release is made of, gathered on the controller.

A source is read here, digested, and packed into a bundle only when a host asks for it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible_collections.flaskworks.server.plugins.module_utils.environment import EnvironmentFailure
from ansible_collections.flaskworks.server.plugins.plugin_utils.sources.archive import read_archive
from ansible_collections.flaskworks.server.plugins.plugin_utils.sources.base import (
    Entry,
    Source,
    SourceFailure,
)
from ansible_collections.flaskworks.server.plugins.plugin_utils.sources.directory import read_directory
from ansible_collections.flaskworks.server.plugins.plugin_utils.sources.download import file_sha256
from ansible_collections.flaskworks.server.plugins.plugin_utils.sources.git import read_git
from ansible_collections.flaskworks.server.plugins.plugin_utils.sources.packages import read_package
from ansible_collections.flaskworks.server.plugins.plugin_utils.sources.trees import (
    Files,
    make_files,
    make_tree,
)


def gather(release: Mapping[str, Any], cache: Path, memory: dict[str, Files] | None = None) -> Source:
    """Read the source of one release of the plan; ``memory`` is shared by apps of one source."""
    name = str(release["name"])
    wanted = release["source"]
    memory = {} if memory is None else memory
    key = json.dumps(wanted, sort_keys=True, default=str)
    try:
        if key in memory:
            return make_tree(release, memory[key])
        if wanted.get("git"):
            memory[key] = make_files(*read_git(wanted, cache))
            return make_tree(release, memory[key])
        if wanted.get("archive"):
            memory[key] = make_files(*read_archive(wanted, cache))
            return make_tree(release, memory[key])
        if wanted.get("package"):
            return _wheel(*read_package(wanted, cache))
        path = Path(str(wanted.get("path") or "")).expanduser()
        if not wanted.get("path") or not path.exists():
            raise SourceFailure(f"source.path {path} does not exist on the controller; correct the path")
        path = path.joinpath(wanted["subdirectory"]) if wanted.get("subdirectory") else path
        if path.suffix == ".whl" and path.is_file():
            return _wheel(path, file_sha256(path))
        if not path.is_dir():
            raise SourceFailure(f"source.path {path} is neither a directory nor a wheel")
        memory[key] = make_files(*read_directory(path))
        return make_tree(release, memory[key])
    except (SourceFailure, EnvironmentFailure) as error:
        raise SourceFailure(f"{name}: {error}") from error
    except OSError as error:
        raise SourceFailure(f"{name}: the source cannot be read: {error}") from error


def _wheel(path: Path, digest: str) -> Source:
    content = path.read_bytes()
    entry = Entry(path.name, read=lambda: content)
    return Source(
        digest=digest,
        revision="-".join(path.name.split("-")[:2]),
        kind="wheel",
        pythonpath=None,
        requirements="",
        origin=path.name,
        wheel=path.name,
        entries=(entry,),
    )
