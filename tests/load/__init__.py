"""A load generator that counts every request, for tests of deploys; README.md shows how to use it."""

from __future__ import annotations

from tests.load.generator import Load, Mark, Target
from tests.load.kinds import KINDS, LARGE, SMALL, Kind
from tests.load.records import Record, Stall, Verdict
from tests.load.versions import Versions

__all__ = [
    "KINDS",
    "LARGE",
    "SMALL",
    "Kind",
    "Load",
    "Mark",
    "Record",
    "Stall",
    "Target",
    "Verdict",
    "Versions",
]
