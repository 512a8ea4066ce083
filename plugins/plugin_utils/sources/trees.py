# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a source tree has to hold: requirements, the app's module, static files, links that stay inside."""

from __future__ import annotations

import posixpath
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.flaskworks.server.plugins.module_utils.environment import (
    requirement_lines,
    uses_hashes,
)
from ansible_collections.flaskworks.server.plugins.module_utils.tree import (
    digest,
    is_bytecode,
    landing,
)
from ansible_collections.flaskworks.server.plugins.plugin_utils.sources.base import (
    Entry,
    Source,
    SourceFailure,
    items,
)

LOCKS = ("requirements.lock", "requirements.txt", "pyproject.toml")

Files = tuple[dict[str, "Entry"], str, str]
"""The entries of a tree by path, their digest, and the revision."""


def make_files(entries: list[Entry], revision: str) -> Files:
    files = dict(sorted(_usable(entries), key=lambda pair: pair[0]))
    if not files:
        raise SourceFailure("the source holds no files (is all of it ignored by .gitignore?)")
    return files, digest(items(files.values())), revision


def make_tree(release: Mapping[str, Any], read: Files) -> Source:
    files, content, revision = read
    for static in release.get("static") or ():
        folder = posixpath.normpath(str(static["path"])) + "/"
        if not any(path.startswith(folder) for path in files):
            raise SourceFailure(
                f"static path {static['path']} is not in the source; correct the path, "
                "or see whether .gitignore leaves it out"
            )
        _check_static(folder, files)
    text, origin = _requirements(release["environment"].get("lock"), files)
    uses_hashes(text, origin)
    return Source(
        digest=content,
        revision=revision,
        kind="tree",
        pythonpath=_pythonpath(str(release["wsgi"]), files),
        requirements=text,
        origin=origin,
        wheel=None,
        entries=tuple(files.values()),
    )


def _usable(entries: Sequence[Entry]) -> Iterator[tuple[str, Entry]]:
    links = _links(entries)
    for entry in entries:
        if is_bytecode(entry.path):
            continue
        if entry.target is not None and landing(entry.path, links) is None:
            raise SourceFailure(
                f"the link {entry.path} points to {entry.target}, outside the source; "
                "servers would not have it: replace the link by what it points to"
            )
        yield entry.path, entry


def _links(entries: Iterable[Entry]) -> dict[str, str]:
    return {entry.path: entry.target for entry in entries if entry.target is not None}


def _check_static(folder: str, files: Mapping[str, Entry]) -> None:
    """Static files are copied, so a link among them has to lead to something that is shipped."""
    links = _links(files.values())
    for path in links:
        if not path.startswith(folder):
            continue
        there = landing(path, links) or "."
        if there in links or not (
            there == "." or there in files or any(other.startswith(f"{there}/") for other in files)
        ):
            raise SourceFailure(
                f"the static link {path} points to {links[path]}, which is not in the source; "
                "correct or remove it, or see whether .gitignore leaves it out"
            )


def _requirements(lock: str | None, files: Mapping[str, Entry]) -> tuple[str, str]:
    """The requirements of a tree as one text, and the name of the file they come from."""
    if lock is not None and lock not in files:
        raise SourceFailure(f"environment.lock {lock} is not in the source")
    name = lock or next((known for known in LOCKS if known in files), None)
    if name is None:
        raise SourceFailure(f"the source has none of {', '.join(LOCKS)}; name the lock in environment.lock")
    if posixpath.basename(name) == "pyproject.toml":
        return _project_dependencies(files[name]), name
    return "".join(_inlined(name, files, ())), name


def _project_dependencies(entry: Entry) -> str:
    try:
        project = tomllib.loads(entry.read().decode()).get("project")
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SourceFailure(f"{entry.path} cannot be read: {error}") from error
    if not isinstance(project, dict):
        raise SourceFailure(
            f"{entry.path} has no [project] table; add a requirements.txt or a [project] table"
        )
    if "dependencies" in (project.get("dynamic") or ()):
        raise SourceFailure(
            f"{entry.path} computes its dependencies when it is built (dynamic); "
            "compile them into requirements.lock"
        )
    return "".join(f"{line}\n" for line in project.get("dependencies") or ())


def _inlined(name: str, files: Mapping[str, Entry], above: tuple[str, ...]) -> Iterator[str]:
    """A requirements file with the files it includes (-r) put in their place."""
    if name not in files:
        raise SourceFailure(f"{above[-1]} includes {name}, which is not in the source")
    if name in above:
        raise SourceFailure(f"{name} includes itself")
    for line in requirement_lines(files[name].read().decode(errors="replace")):
        option = re.match(r"^(-r|--requirement|-c|--constraint|-e|--editable)[ =]?\s*(.+)$", line)
        if option is None:
            if re.match(r"^(\.{1,2}(/|$|\[)|/|file:)", line):
                raise SourceFailure(
                    f"{name} installs from a directory ({line}); the code is on the path already"
                )
            yield line + "\n"
        elif option[1] in ("-r", "--requirement"):
            included = posixpath.normpath(posixpath.join(posixpath.dirname(name), option[2]))
            yield from _inlined(included, files, (*above, name))
        elif option[1] in ("-c", "--constraint"):
            raise SourceFailure(f"{name} uses constraints ({line}); compile them into one lock file")
        else:
            raise SourceFailure(
                f"{name} has an editable requirement ({line}); the code is on the path already"
            )


def _pythonpath(wsgi: str, files: Mapping[str, Entry]) -> str:
    top = wsgi.split(":", 1)[0].split(".", 1)[0]
    for folder in (".", "src"):
        prefix = "" if folder == "." else f"{folder}/"
        module, package = f"{prefix}{top}.py", f"{prefix}{top}/"
        if module in files or any(path.startswith(package) and path.endswith(".py") for path in files):
            return folder
    raise SourceFailure(
        f"the module {top!r} of wsgi {wsgi!r} is neither at the top of the source nor under src/; "
        "correct wsgi, or set source.subdirectory to where the project is"
    )
