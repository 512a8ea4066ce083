# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Where the collection keeps on the controller what it need not make again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_directory() -> Path:
    """The collection's directory below Ansible's own, or below the user's cache directory."""
    home = os.environ.get("ANSIBLE_HOME")
    base = Path(home) if home else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    path = base / "flaskworks"
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    return path
