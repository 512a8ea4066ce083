# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The steps of a new SECRET_KEY, as changes of the few lines of a file that say it. No Ansible here.

A session that one host signs, another one must believe, also while hosts are switched one after the other. So
a new key is shipped twice: first every host believes it, then every host signs with it. How far that has come
stands in the file itself, as a comment: a run that was interrupted goes on there. Without the comment a run
begins with another key, which costs a release and no session.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import yaml

from .problems import FALLBACKS

KEY = "SECRET_KEY"
KEPT = 2
"""Keys that signed before and are still believed when a rotation has ended."""

ANNOUNCED, SIGNING = "announced", "signing"
_NOTE = "# rotate_secret_key.yml: the new key of {app} is {state}; run it again to go on"
_NOTES = re.compile(
    r"^# rotate_secret_key\.yml: the new key of (\S+) is (announced|signing);[^\n]*(?:\n|\Z)", re.MULTILINE
)
_TEXT = "tag:yaml.org,2002:str"


class RotationError(Exception):
    """Why a file is not changed, as the rest of a sentence that begins with its name."""


@dataclass(frozen=True)
class Standing:
    """What a file says of the keys of an app; `state` is "" where no rotation is under way."""

    key: str
    fallbacks: tuple[str, ...]
    state: str


class _Loader(yaml.SafeLoader):
    """Reads any file for comparison: what has a tag of somebody's is that tag and its value."""


def _opaque(_loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> tuple[str, str]:
    return suffix, str(node.value)


_Loader.add_multi_constructor("!", _opaque)


def names(text: str) -> list[str]:
    """The apps that a file has secrets of."""
    try:
        found = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError:
        return []
    values = found.get("flask_secrets") if isinstance(found, dict) else None
    return [str(name) for name in values] if isinstance(values, dict) else []


def look(text: str, app: str) -> Standing:
    """What a file says of an app.

    Raises:
        RotationError: when the lines that say it cannot be changed without a look at them.
    """
    place = _place(text, app)
    state = next((state for name, state in _NOTES.findall(text) if name == app), "")
    return Standing(place.key.value, tuple(place.believed), state)


def announce(text: str, app: str, new: str) -> str:
    """Have a new key believed, while the old one goes on signing."""
    found = look(text, app)
    return _changed(text, app, found.key, [new, *found.fallbacks], ANNOUNCED)


def sign(text: str, app: str) -> str:
    """Have the announced key sign, and the one that signed before believed."""
    found = look(text, app)
    if found.state != ANNOUNCED or not found.fallbacks:
        raise RotationError("announces no new key; run playbooks/rotate_secret_key.yml from its beginning")
    new, *before = found.fallbacks
    return _changed(text, app, new, [found.key, *before][:KEPT], SIGNING)


def finish(text: str, app: str) -> str:
    """Note that a rotation has ended."""
    found = look(text, app)
    return _changed(text, app, found.key, found.fallbacks, "")


def forget(text: str, app: str) -> str:
    """Have no key believed but the one that signs."""
    found = look(text, app)
    return _changed(text, app, found.key, [], "") if found.fallbacks else text


# -- the lines ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Place:
    """Where the two values stand. `believed_at` are the first and last character, or None."""

    key: yaml.ScalarNode
    column: int
    flow: bool
    believed: list[str]
    believed_at: tuple[int, int] | None


def _place(text: str, app: str) -> _Place:
    try:
        aliased = any(
            isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=yaml.SafeLoader)
        )
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" (line {mark.line + 1})" if mark else ""
        raise RotationError(f"is no YAML{line}; correct it with ansible-vault edit") from None
    if aliased:
        raise RotationError("has aliases (*name), so that one line may be the key of several apps")
    node: yaml.Node | None = root
    for name in ("flask_secrets", app):
        found = _entry(node, name)
        node = found[1] if found else None
    found = _entry(node, KEY)
    if found is None or not isinstance(node, yaml.MappingNode):
        raise RotationError(f"does not say flask_secrets.{app}.{KEY} in so many words")
    key = _literal(found[1], KEY)
    place = _Place(key, found[0].start_mark.column, bool(node.flow_style), [], None)
    believed = _entry(node, FALLBACKS)
    if believed is None:
        return place
    values = believed[1]
    if not isinstance(values, yaml.SequenceNode):
        raise RotationError(f"has a {FALLBACKS} that is no list")
    texts = [str(_literal(one, FALLBACKS).value) for one in values.value]
    begin = values.start_mark.index
    end = values.end_mark.index if values.flow_style else values.value[-1].end_mark.index
    if "#" in re.sub(r"\"[^\"]*\"|'[^']*'", "", text[begin:end]):
        raise RotationError(f"has a comment within {FALLBACKS}; write that list on one line")
    return _Place(key, place.column, place.flow, texts, (begin, end))


def _entry(node: yaml.Node | None, name: str) -> tuple[yaml.Node, yaml.Node] | None:
    if not isinstance(node, yaml.MappingNode):
        return None
    found: list[tuple[yaml.Node, yaml.Node]] = [pair for pair in node.value if pair[0].value == name]
    if len(found) > 1:
        raise RotationError(f"says {name} twice; remove one of them")
    return found[0] if found else None


def _literal(node: yaml.Node, name: str) -> yaml.ScalarNode:
    """A text that stands there itself, on one line."""
    if isinstance(node, yaml.ScalarNode) and node.tag == "!vault":
        raise RotationError(f"has a {name} that is encrypted by itself (!vault)")
    if not isinstance(node, yaml.ScalarNode) or node.tag != _TEXT:
        raise RotationError(f"has a {name} that is not a text in quotes")
    if "{{" in node.value or "{%" in node.value:
        raise RotationError(f"has a {name} that comes from elsewhere ({{{{ … }}}})")
    if node.style in ("|", ">") or node.start_mark.line != node.end_mark.line:
        raise RotationError(f"has a {name} that goes over several lines")
    return node


def _changed(text: str, app: str, key: str, fallbacks: Sequence[str], state: str) -> str:
    """The text with these values, and nothing else of it touched."""
    place = _place(text, app)
    edits: list[tuple[int, int, str]] = []
    if key != place.key.value:
        edits.append((place.key.start_mark.index, place.key.end_mark.index, json.dumps(key)))
    line = json.dumps(list(fallbacks))
    if place.believed_at and list(fallbacks) != place.believed:
        edits.append((*place.believed_at, line))
    elif place.believed_at is None and fallbacks:
        edits.append(_addition(text, place, line))
    changed = text
    for begin, end, new in sorted(edits, reverse=True):
        changed = changed[:begin] + new + changed[end:]
    changed = _noted(changed, app, state)
    wanted = yaml.load(text, Loader=_Loader)
    wanted["flask_secrets"][app][KEY] = key
    if fallbacks or place.believed_at:
        wanted["flask_secrets"][app][FALLBACKS] = list(fallbacks)
    try:
        right = yaml.load(changed, Loader=_Loader) == wanted
    except yaml.YAMLError:
        right = False
    if not right:
        raise RotationError("is written in a way that these lines cannot be exchanged in")
    return changed


def _addition(text: str, place: _Place, line: str) -> tuple[int, int, str]:
    end = place.key.end_mark.index
    if place.flow:
        return end, end, f", {FALLBACKS}: {line}"
    stop = text.find("\n", end)
    stop = len(text) if stop < 0 else stop
    return stop, stop, f"\n{' ' * place.column}{FALLBACKS}: {line}"


def _noted(text: str, app: str, state: str) -> str:
    text = _NOTES.sub(lambda found: "" if found[1] == app else found[0], text)
    if not state:
        return text
    return text + ("" if text.endswith("\n") else "\n") + _NOTE.format(app=app, state=state) + "\n"


# -- the file -------------------------------------------------------------------------------------


def replace(path: str, content: bytes, before: bytes) -> None:
    """Replace a file by another content, atomically and for its owner alone.

    Raises:
        RotationError: when it is not any more what it was before.
    """
    path = os.path.realpath(path)
    folder = os.path.dirname(path)
    partial = os.path.join(folder, f".{os.path.basename(path)}.{secrets.token_hex(8)}~")
    handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            known = os.stat(path)
            with suppress(PermissionError):
                os.fchown(handle, known.st_uid, known.st_gid)
            file.write(content)
            file.flush()
            os.fsync(handle)
        with open(path, "rb") as now:
            if now.read() != before:
                raise RotationError("was changed by somebody else meanwhile; run again")
        os.rename(partial, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(partial)
        raise
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def plain(value: Any) -> str | None:
    """The text of a value of Ansible's, without its tags."""
    return str(value) if isinstance(value, str) else None
