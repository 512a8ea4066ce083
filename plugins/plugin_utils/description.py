# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What people write, checked against the documentation of the plan.

The schema is read from the documentation of the filter, so the reference and the validator are one text.
This module knows types, choices and unknown keys; `plan` knows what apps mean.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_TYPE_NAMES = {
    "str": "a string",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "list": "a list",
    "dict": "a dictionary",
}


class DescriptionError(ValueError):
    """Everything that is wrong with a description.

    Attributes:
        problems: one sentence each, naming the app and the way out.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = [_printable(problem) for problem in problems]
        super().__init__("\n".join(self.problems))


def _printable(text: str) -> str:
    """Return `text` on one line: what people wrote may hold line breaks and control characters."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


@dataclass(frozen=True)
class Option:
    """One documented key."""

    type: str
    required: bool = False
    default: Any = None
    choices: tuple[Any, ...] = ()
    elements: str | None = None
    options: Mapping[str, Option] = field(default_factory=dict)


@dataclass(frozen=True)
class Schema:
    """The keys of an app and those of the defaults."""

    app: Mapping[str, Option]
    defaults: Mapping[str, Option]


def read_schema(documentation: Mapping[str, Any]) -> Schema:
    """Return the schema of the `options` of the filter's documentation."""
    return Schema(
        app=_options(documentation["_input"]["suboptions"]),
        defaults=_options(documentation["defaults"]["suboptions"]),
    )


def _options(documentation: Mapping[str, Any]) -> dict[str, Option]:
    return {
        name: Option(
            type=text["type"],
            required=text.get("required", False),
            default=text.get("default"),
            choices=tuple(text.get("choices", ())),
            elements=text.get("elements"),
            options=_options(text.get("suboptions", {})),
        )
        for name, text in documentation.items()
    }


def plain(value: object) -> Any:
    """Return `value` as plain Python data: dictionaries, lists, strings, numbers, booleans and None.

    Ansible hands over lazy containers and tagged strings; the plan must not carry them on.
    """
    if isinstance(value, Mapping):
        return {plain(key): plain(element) for key, element in value.items()}
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Sequence):
        return [plain(element) for element in value]
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    return str(value)


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return ``, did you mean 'x'?`` when something known resembles `word`, and an empty string otherwise."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f", did you mean '{close[0]}'?" if close else ""


def check(
    value: Mapping[str, Any], options: Mapping[str, Option], where: str, problems: list[str]
) -> dict[str, Any]:
    """Return `value` with the documented types; what does not fit is reported in `problems` and left out.

    Keys that are None count as not given. Defaults are not filled in: `fill` does.
    """
    checked: dict[str, Any] = {}
    meant: set[str] = set()
    for key, element in value.items():
        if not isinstance(key, str) or key not in options:
            meant.update(difflib.get_close_matches(str(key), list(options), n=1))
            hint = suggestion(str(key), options) or f"; the keys are {', '.join(sorted(options))}"
            problems.append(f"{where}: unknown key '{key}'{hint}")
        elif element is not None:
            typed = _typed(element, options[key], f"{where}.{key}", problems)
            if typed is not None:
                checked[key] = typed
    problems.extend(
        f"{where}: '{key}' is missing; it is required"
        for key, option in options.items()
        if option.required and value.get(key) is None and key not in meant
    )
    return checked


def fill(value: Mapping[str, Any], options: Mapping[str, Option]) -> dict[str, Any]:
    """Return `value` with every documented key, taking the defaults for those not given."""
    filled: dict[str, Any] = {}
    for key, option in options.items():
        element = value.get(key, option.default)
        if option.type == "dict" and option.options and isinstance(element, Mapping):
            element = fill(element, option.options)
        filled[key] = element
    return filled


def merge(defaults: Mapping[str, Any], value: Mapping[str, Any]) -> dict[str, Any]:
    """Return `defaults` overridden by `value`; dictionaries of both are merged one level deep."""
    merged = {**defaults, **value}
    for key in defaults.keys() & value.keys():
        if isinstance(defaults[key], Mapping) and isinstance(value[key], Mapping):
            merged[key] = {**defaults[key], **value[key]}
    return merged


def _typed(value: Any, option: Option, where: str, problems: list[str]) -> Any:
    kind = option.type
    typed = _scalar(value, kind)
    if kind in ("list", "dict", "raw"):
        typed = value if kind == "raw" or isinstance(value, list if kind == "list" else dict) else None
    if typed is None:
        hint = ""
        if kind == "str" and isinstance(value, bool):
            hint = "; quote it"
        elif kind == "list" and isinstance(value, str):
            hint = f"; write [{value}]"
        problems.append(f"{where}: must be {_TYPE_NAMES[kind]}, not {_shown(value)}{hint}")
        return None
    if option.choices and typed not in option.choices:
        hint = (
            suggestion(str(typed), map(str, option.choices))
            or f"; it is one of {', '.join(map(str, option.choices))}"
        )
        problems.append(f"{where}: '{typed}' is not known{hint}")
        return None
    if kind == "list" and option.elements:
        elements = [
            _typed(element, Option(type=option.elements), f"{where}[{index}]", problems)
            for index, element in enumerate(value)
        ]
        return [element for element in elements if element is not None]
    if kind == "dict" and option.options:
        return check(value, option.options, where, problems)
    return typed


def _scalar(value: Any, kind: str) -> Any:
    """Return `value` as `kind`, accepting the spellings that templating produces ("3" for 3), or None."""
    if isinstance(value, bool):
        return value if kind == "bool" else None
    if kind == "str" and isinstance(value, (str, int, float)):
        return str(value)
    if kind == "int":
        if isinstance(value, int):
            return value
        return int(value) if isinstance(value, str) and re.fullmatch(r"-?\d{1,18}", value.strip()) else None
    if kind == "float":
        if isinstance(value, (int, float)):
            return float(value)
        return (
            float(value)
            if isinstance(value, str) and re.fullmatch(r"\d{1,9}(\.\d{1,9})?", value.strip())
            else None
        )
    return None


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
