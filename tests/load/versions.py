"""Versions of the app under load: a copy of its code that a test changes and breaks."""

from __future__ import annotations

import shutil
from pathlib import Path

APP = Path(__file__).parent / "app"


class Versions:
    """The source of an app, in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        shutil.copytree(APP, directory, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)

    def write(self, version: str, broken: str = "") -> None:
        """Make the source say this version of itself, broken in one way: "import", "health" or "hang"."""
        package = self.directory / "src" / "loaded"
        (package / "version.py").write_text(f"VERSION = {version!r}\nBROKEN = {broken!r}\n")
        (package / "static" / "release.txt").write_text(version + "\n")
