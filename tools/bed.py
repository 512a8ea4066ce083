"""The test bed: an engine that answers and the images of the test hosts."""

from __future__ import annotations

import shutil
from pathlib import Path

from tools import engine, images
from tools.steps import apt_install, is_root


def make(log: Path) -> None:
    """Make whatever of the test bed is missing."""
    missing = [
        package
        for program, package in (("ssh", "openssh-client"), ("git", "git"), ("gpg", "gnupg"))
        if not shutil.which(program)
    ]
    if missing and is_root() and shutil.which("apt-get"):
        apt_install(missing, log)
    engine.ensure(log)
    images.ensure(images.SUITES, log)
