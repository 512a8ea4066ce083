"""What goes wrong on purpose, and what a host must be like afterwards; for the scenario `faults`."""

from __future__ import annotations

from tests.faults.operator import Operator
from tests.faults.state import State, complaints, strays

__all__ = ["Operator", "State", "complaints", "strays"]
