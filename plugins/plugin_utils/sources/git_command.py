# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Run git as a program does: without prompts, and in no repository but the one that is meant."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from ansible_collections.flaskworks.server.plugins.plugin_utils.sources.base import SourceFailure

GIT_TIME = 600  # seconds that one git command may take
# Read a clone that belongs to another user too, without running what its configuration names.
TRUST = ("-c", "safe.directory=*", "-c", "core.fsmonitor=false")
# What `git rev-parse --local-env-vars` names, set when a hook runs this. GIT_CONFIG_COUNT stays: it belongs
# to no repository, and is how credentials are handed to the git of a pipeline.
GIT_LOCAL = frozenset(
    {
        "GIT_ALTERNATE_OBJECT_DIRECTORIES",
        "GIT_COMMON_DIR",
        "GIT_CONFIG",
        "GIT_CONFIG_PARAMETERS",
        "GIT_DIR",
        "GIT_GRAFT_FILE",
        "GIT_IMPLICIT_WORK_TREE",
        "GIT_INDEX_FILE",
        "GIT_INTERNAL_SUPER_PREFIX",
        "GIT_NO_REPLACE_OBJECTS",
        "GIT_OBJECT_DIRECTORY",
        "GIT_PREFIX",
        "GIT_REPLACE_REF_BASE",
        "GIT_SHALLOW_FILE",
        "GIT_WORK_TREE",
    }
)


def run_git(
    arguments: Sequence[str],
    where: Path,
    *,
    fails: bool = False,
    given: bytes | None = None,
    hint: str = "",
    environment: Mapping[str, str] | None = None,
) -> bytes | None:
    """Run git without prompts; None instead of an error when ``fails`` says that is an answer too."""
    settings = {key: value for key, value in os.environ.items() if key not in GIT_LOCAL}
    settings.update(GIT_TERMINAL_PROMPT="0", LC_ALL="C.UTF-8", GIT_OPTIONAL_LOCKS="0")
    settings.setdefault("GIT_SSH_COMMAND", "ssh -o BatchMode=yes")
    settings.update(environment or {})
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=where,
            env=settings,
            input=given,
            capture_output=True,
            timeout=GIT_TIME,
            check=False,
        )
    except FileNotFoundError:
        raise SourceFailure(
            "git is missing on the controller; sources are read with it: install git"
        ) from None
    except subprocess.TimeoutExpired:
        raise SourceFailure(f"git {arguments[0]} had not finished after {GIT_TIME} s") from None
    if done.returncode == 0:
        return done.stdout
    if fails:
        return None
    told = done.stderr.decode(errors="replace").strip()
    raise SourceFailure(f"{hint or 'git could not read the source'}: {told}")
