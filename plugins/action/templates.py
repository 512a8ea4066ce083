# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Controller side of flaskworks.server.templates: render everything, ask the host once."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase
from ansible_collections.flaskworks.server.plugins.module_utils.transaction import (
    TransactionError,
    expand,
    placeholders,
)
from ansible_collections.flaskworks.server.plugins.modules.templates import (
    ARGUMENTS,
    expectations_of,
    pack,
    rules_of,
)
from ansible_collections.flaskworks.server.plugins.plugin_utils.rendering import (
    Renderer,
    search_path,
)


class ActionModule(ActionBase):
    _supports_check_mode = True
    _supports_diff = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        variables = task_vars or {}
        result: dict[str, Any] = super().run(tmp, variables)
        if self._task.args.get("rendered") is not None:
            raise AnsibleActionFail("'rendered' is set by the action itself; remove it from the task")
        _validation, options = self.validate_argument_spec(ARGUMENTS)
        try:
            options["rendered"] = pack(self._render(options, variables))
        except TransactionError as error:
            raise AnsibleActionFail(str(error)) from error
        options["elements"] = _reduced(options)
        module = self._execute_module("flaskworks.server.templates", module_args=options, task_vars=variables)
        result.update(module)
        return result

    def _render(self, options: dict[str, Any], variables: dict[str, Any]) -> list[str]:
        """Return the texts in the order in which `expand` lists their targets."""
        elements, files = options["elements"], options["files"]
        rules = rules_of(files)
        expectations_of(options["expects"])
        by_name = {element.get("name"): element for element in elements}
        renderers = dict(
            zip(map(id, rules), [self._renderer(file["template"], variables) for file in files], strict=True)
        )
        contents: list[str] = []
        for target in expand(elements, rules):
            seen = {**variables, "elements": elements}
            if target.element:
                seen[options["element_name"]] = by_name[target.element]
            try:
                contents.append(renderers[id(target.rule)].render(seen, target.path))
            except AnsibleError as error:
                whose = f"{target.element}: " if target.element else ""
                raise AnsibleActionFail(f"{whose}{target.path} cannot be rendered: {error}") from error
        return contents

    def _renderer(self, template: str, variables: dict[str, Any]) -> Renderer:
        try:
            path = self._find_needle("templates", template)
        except AnsibleError as error:
            raise AnsibleActionFail(str(error)) from error
        searchpath = search_path(variables.get("ansible_search_path", []), self._loader.get_basedir(), path)
        return Renderer(self._templar, template, path, self._loader.get_text_file_contents(path), searchpath)


def _reduced(options: dict[str, Any]) -> list[dict[str, Any]]:
    """Elements as the host needs them: their names and the keys that paths are made of."""
    patterns = [
        word
        for one in [*options["files"], *options["expects"]]
        for word in [one["path"], one["owner"], one["group"], *one.get("validate", [])]
    ]
    used = {"name", *placeholders(patterns)}
    wanted = {file["only_with"] for file in options["files"] if file["only_with"]}
    return [
        {
            **{key: bool(element.get(key)) for key in wanted},  # the host need not see what it is
            **{key: value for key, value in element.items() if key in used},
        }
        for element in options["elements"]
    ]
