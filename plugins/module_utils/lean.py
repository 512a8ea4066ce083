# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The host's half of a lean call: a module runs without Ansible's module framework.

Loading that costs more than the work of most calls. The module itself is the same file: where it imports
``AnsibleModule`` it gets the one below, which knows what a module needs whose action has made its arguments:
parameters, check mode, the line in the system's log, the answer.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import syslog
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, NoReturn

Convert = Callable[[Any], Any]

_TYPES: Mapping[str, tuple[tuple[type, ...], Convert]] = {
    "str": ((str,), str),
    "int": ((int,), int),
    "float": ((float, int), float),
    "bool": ((bool,), lambda value: {"true": True, "false": False}[str(value).lower()]),
    "list": ((list,), lambda value: [part.strip() for part in value.split(",") if part.strip()]),
    "dict": ((dict,), dict),
}


class Call:
    """One call: what the controller sends, and where the answer goes."""

    def __init__(self, name: str, arguments: Mapping[str, Any], mark: str, answers: BinaryIO) -> None:
        self.name = name
        self.settings = {key: value for key, value in arguments.items() if key.startswith("_ansible_")}
        self.arguments = {key: value for key, value in arguments.items() if key not in self.settings}
        self._mark, self._answers = mark, answers

    def answer(self, result: Mapping[str, Any]) -> None:
        """Send the result, behind the mark by which the controller tells it from whatever else is said."""
        self._answers.write(f"\n{self._mark}{json.dumps(result)}\n".encode())
        self._answers.flush()


_call: Call | None = None


class AnsibleModule:
    """What a module imports under this name when it is called the lean way."""

    def __init__(
        self, argument_spec: Mapping[str, Mapping[str, Any]], supports_check_mode: bool = False, **_rules: Any
    ) -> None:
        if _call is None:
            raise RuntimeError("this AnsibleModule is for lean calls only")
        self._call, settings = _call, _call.settings
        self._warnings: list[str] = []
        self._deprecations: list[dict[str, Any]] = []
        self.check_mode = bool(settings.get("_ansible_check_mode"))
        self.no_log = bool(settings.get("_ansible_no_log"))
        self.params: dict[str, Any] = {}
        if self.check_mode and not supports_check_mode:
            self.exit_json(skipped=True, msg=f"{self._call.name} does not support check mode")
        strange = sorted(set(self._call.arguments) - set(argument_spec))
        if strange:
            self.fail_json(msg=f"Unsupported parameters for ({self._call.name}) module: {', '.join(strange)}")
        for name, option in argument_spec.items():
            self.params[name] = self._value(name, option)
        self._log_invocation()

    def _value(self, name: str, option: Mapping[str, Any]) -> Any:
        value = self._call.arguments.get(name)
        if value is None:
            value = option.get("default")
        if value is None:
            if option.get("required"):
                self.fail_json(msg=f"missing required arguments: {name}")
            return None
        kind = option.get("type", "str")
        types, convert = _TYPES.get(kind, ((object,), lambda given: given))
        if not isinstance(value, types):
            try:
                value = convert(value)
            except (AttributeError, KeyError, TypeError, ValueError):
                self.fail_json(msg=f"argument '{name}' is of type {type(value).__name__}, not {kind}")
        choices = option.get("choices")
        if choices and value not in choices:
            self.fail_json(msg=f"value of {name} must be one of: {', '.join(choices)}, got: {value}")
        return value

    def _log_invocation(self) -> None:
        self.log("Invoked")

    def log(self, text: str) -> None:
        """Write one line to the system's log, as AnsibleModule does."""
        if self.no_log:
            return
        settings = self._call.settings
        info = settings.get("_ansible_target_log_info")
        facility = getattr(syslog, str(settings.get("_ansible_syslog_facility")), syslog.LOG_USER)
        syslog.openlog(f"ansible-{self._call.name}", 0, facility)
        syslog.syslog(syslog.LOG_INFO, " ".join(filter(None, (info, text))))

    def warn(self, text: str) -> None:
        """Have the controller show a warning."""
        self._warnings.append(text)

    def deprecate(self, msg: str, version: str | None = None, **more: Any) -> None:
        """Have the controller show that something will not be there for ever."""
        self._deprecations.append({"msg": msg, "version": version, **more})

    def exit_json(self, **result: Any) -> NoReturn:
        """End with this result."""
        self._end({"changed": False, **result}, 0)

    def fail_json(self, msg: str, **result: Any) -> NoReturn:
        """End as failed, with a sentence for the operator."""
        self._end({"failed": True, "msg": msg, "changed": False, **result}, 1)

    def _end(self, result: dict[str, Any], status: int) -> NoReturn:
        for key, told in (("warnings", self._warnings), ("deprecations", self._deprecations)):
            if told:
                result[key] = [*result.get(key, []), *told]
        if not self._call.settings.get("_ansible_inject_invocation"):
            result.pop("invocation", None)
        self._call.answer(result)
        sys.exit(status)


def run(name: str, mark: str) -> None:
    """Run the module of that name with the arguments that wait on standard input.

    What the module or a program that it calls writes to standard output goes to standard error.
    """
    global _call  # noqa: PLW0603 - a process makes one call, and modules take no argument
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        _call = Call(name, json.load(sys.stdin.buffer), mark, answers)
        module = importlib.import_module(
            f"{__package__.rpartition('.')[0]}.modules.{name.rpartition('.')[2]}"
        )
        with open(os.devnull, "rb") as nothing:
            os.dup2(nothing.fileno(), 0)
        module.main()
    except Exception as error:  # noqa: BLE001 - whatever it is, the operator gets to see it
        import traceback

        text = f"{name} ended with an error that it does not know: {type(error).__name__}: {error}"
        failed = {"failed": True, "changed": False, "msg": text, "exception": traceback.format_exc()}
        Call(name, {}, mark, answers).answer(failed)
        sys.exit(1)
