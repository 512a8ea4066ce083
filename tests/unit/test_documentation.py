"""What the pages show is what there is."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from ansible_collections.flaskworks.server.plugins.plugin_utils.problems import problems
from flask import Flask, request, url_for

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]

MISTAKES = """
- name: hello
  domains: [hello.example.org]
  source: {path: /code/hello}
  wsgi: hello:app
  wokers: 3
  helth: /healthz
  worker_class: gthraed
- name: reports
  domains: [reports.example.org, hello.example.org]
  source: {path: /code/reports, git: https://git.example.org/reports.git}
  wsgi: reports:app
  worker_class: sync
  threads: 4
"""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_decision_is_listed() -> None:
    directory = ROOT / "docs/decisions"
    listed = re.findall(r"\]\(([^)]+)\)", (directory / "README.md").read_text())
    assert sorted(listed) == sorted(path.name for path in directory.glob("*.md") if path.name != "README.md")


def test_hosts_of_the_readme_are_those_of_the_inventory() -> None:
    hosts = (ROOT / "inventories/prod/hosts.yml").read_text().removeprefix("---\n")
    assert f"```yaml\n{hosts}```" in (ROOT / "README.md").read_text()


def test_operations_shows_mistakes_as_they_are_told() -> None:
    told = problems(["web1"], {"web1": {"flask_apps": yaml.safe_load(MISTAKES)}}, secrets=False)
    assert len(told) == 6
    assert "```\n" + "\n".join(told) + "\n```" in (ROOT / "docs/operations.md").read_text()


@pytest.mark.parametrize(
    ("hops", "seen"),
    [("1", "https 198.51.100.7 /reports/static/style.css"), ("0", "http 127.0.0.1 /static/style.css")],
)
def test_lines_for_apps_believe_the_proxy(monkeypatch: pytest.MonkeyPatch, hops: str, seen: str) -> None:
    found = re.search(r"```python\n(.+?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert found
    app = Flask("hello")

    def view() -> str:
        return f"{request.scheme} {request.remote_addr} {url_for('static', filename='style.css')}"

    app.add_url_rule("/", view_func=view)
    monkeypatch.setenv("FORWARDED_HOPS", hops)
    lines = "from werkzeug.middleware.proxy_fix import ProxyFix\n" + found[1]
    exec(compile(lines, "README.md", "exec"), {"app": app, "os": os})
    forwarded = {
        "X-Forwarded-For": "198.51.100.7",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Prefix": "/reports",
    }
    assert app.test_client().get("/", headers=forwarded).text == seen


def test_targets_of_contributing_exist() -> None:
    wanted = set(re.findall(r"make ([a-z-]+)", (ROOT / "CONTRIBUTING.md").read_text()))
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert wanted <= set(re.findall(r"^  make ([a-z-]+)", listed, re.MULTILINE))
