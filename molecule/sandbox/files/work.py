"""What apps do all day, and must be able to do in the sandbox. Runs on the host; standard library only."""

from __future__ import annotations

import ctypes
import hashlib
import logging.handlers
import multiprocessing
import os
import shutil
import socket
import sqlite3
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any


def results(shared: str) -> dict[str, Any]:
    """Return what each piece of work has come to: "done", or the error."""
    found = {}
    for name, function in WORK.items():
        try:
            function(shared)
        except Exception as error:  # noqa: BLE001 (any of them is for the test to see)
            found[name] = repr(error)
        else:
            found[name] = "done"
    return found


def database(shared: str) -> None:
    with sqlite3.connect(f"{shared}/app.sqlite") as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE IF NOT EXISTS visits (at REAL)")
        connection.execute("INSERT INTO visits VALUES (?)", (time.time(),))
    connection.close()


def upload(shared: str) -> None:
    with tempfile.NamedTemporaryFile(delete=False) as file:
        file.write(b"x" * 100_000)
    target = Path(shared, "uploads", uuid.uuid4().hex)
    target.parent.mkdir(exist_ok=True)
    shutil.move(file.name, target)
    shutil.copy2(target, f"{target}.copy")
    os.replace(f"{target}.copy", target)


def log(shared: str) -> None:
    handler = logging.handlers.RotatingFileHandler(
        f"/var/log/flask/{Path(shared).parent.name}/work.log", maxBytes=1
    )
    handler.emit(logging.LogRecord("work", logging.INFO, "", 0, "done", None, None))
    handler.close()


def threads(_shared: str) -> None:
    done: list[int] = []
    crowd = [threading.Thread(target=done.append, args=(number,)) for number in range(50)]
    for thread in crowd:
        thread.start()
    for thread in crowd:
        thread.join()
    if len(done) != 50:
        raise RuntimeError(f"{len(done)} of 50")


def processes(_shared: str) -> None:
    """What pools of workers need: a semaphore, a pipe and a process."""
    multiprocessing.get_context("fork").Lock()
    subprocess.run([sys.executable, "-c", "import flask"], check=True)


def names(_shared: str) -> None:
    socket.getaddrinfo("localhost", 80)


def encryption(_shared: str) -> None:
    ssl.create_default_context()
    hashlib.scrypt(b"x", salt=b"y", n=1024, r=8, p=1)


def foreign_functions(_shared: str) -> None:
    length = ctypes.CDLL(None).strlen(b"abc")
    if length != 3:
        raise RuntimeError(length)


def callbacks(_shared: str) -> None:
    """What C calls back is code that is made at run time, so it needs `jit`."""
    integer = ctypes.POINTER(ctypes.c_int)
    compare = ctypes.CFUNCTYPE(ctypes.c_int, integer, integer)(lambda one, two: one[0] - two[0])
    numbers = (ctypes.c_int * 3)(3, 1, 2)
    ctypes.CDLL(None).qsort(numbers, 3, 4, compare)
    if list(numbers) != [1, 2, 3]:
        raise RuntimeError(list(numbers))


def journal(_shared: str) -> None:
    logging.handlers.SysLogHandler("/dev/log").close()


def machine(_shared: str) -> None:
    if not os.cpu_count():
        raise RuntimeError("no processor")


WORK: dict[str, Callable[[str], None]] = {
    "database": database,
    "upload": upload,
    "log": log,
    "threads": threads,
    "processes": processes,
    "names": names,
    "encryption": encryption,
    "foreign functions": foreign_functions,
    "callbacks": callbacks,
    "journal": journal,
    "machine": machine,
}
