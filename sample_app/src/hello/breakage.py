"""Ways to break on purpose, so that a deployment can prove that it notices.

``HELLO_BREAK`` takes one of these, or several with commas between:

================ ===================================================================================
``import``       importing the package fails
``slow:SECONDS`` each process takes so long to build the app
``health``       ``/healthz`` answers 503
``crash:N``      each process answers N requests and exits hard, without an answer, on the next one
``hang``         no request is ever answered, the health check included
================ ===================================================================================
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

LONGEST_START = 3600.0
CRASH_STATUS = 70  # EX_SOFTWARE of sysexits.h


class Counter:
    """A number that several threads may raise."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._value = 0

    def add(self) -> int:
        """Raise by one and return the new value."""
        with self._lock:
            self._value += 1
            return self._value

    @property
    def value(self) -> int:
        return self._value


def at_import(environment: Mapping[str, str]) -> None:
    """Fail when the package must not be importable."""
    if "import" in _words(environment.get("HELLO_BREAK", "")):
        raise ImportError("HELLO_BREAK=import: this app was told to fail on import.")


@dataclass(frozen=True)
class Breakage:
    """What is broken in this process."""

    slow: float = 0.0
    health: bool = False
    crash_after: int | None = None
    hang: bool = False
    _requests: Counter = field(default_factory=Counter, compare=False, repr=False)

    @classmethod
    def parse(cls, text: str) -> Breakage:
        """Understand the value of HELLO_BREAK; raise ValueError with a sentence."""
        slow, crash_after = 0.0, None
        words = _words(text)
        for word in words:
            kind, colon, argument = word.partition(":")
            if kind == "slow" and _is_number(argument) and float(argument) <= LONGEST_START:
                slow = float(argument)
            elif kind == "crash" and argument.isascii() and argument.isdigit():
                crash_after = int(argument)
            elif colon or kind not in {"import", "health", "hang"}:
                raise ValueError(
                    f"HELLO_BREAK does not know {word!r};"
                    " it takes import, slow:SECONDS, health, crash:N and hang."
                )
        return cls(slow=slow, health="health" in words, crash_after=crash_after, hang="hang" in words)

    def at_start(self) -> None:
        """Be slow to start."""
        if self.slow:
            time.sleep(self.slow)

    def at_request(self) -> None:
        """Crash or hang instead of answering."""
        if self.crash_after is not None and self._requests.add() > self.crash_after:
            os._exit(CRASH_STATUS)
        if self.hang:
            while True:  # gevent makes this sleep cooperative; either way nobody gets an answer
                time.sleep(3600)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _is_number(text: str) -> bool:
    return text.isascii() and text.replace(".", "", 1).isdigit()
