"""The guest book in SQLite, and its migrations: numbered SQL files applied in order."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

MIGRATIONS = Path(__file__).parent / "migrations"
WAIT = 30.0  # seconds to wait for another writer; a second migration waits for the first one
REMEDY = "run: flask --app hello migrate"


class NotReadyError(Exception):
    """The database cannot be used; the text says why."""


@dataclass(frozen=True)
class Entry:
    """One line of the guest book."""

    name: str
    message: str
    written_at: str
    release: str


@contextmanager
def _connect(path: Path, mode: str) -> Iterator[sqlite3.Connection]:
    """Open *path*; transactions are begun and ended explicitly."""
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}", uri=True, timeout=WAIT, isolation_level=None
    )
    try:
        yield connection
    finally:
        connection.close()


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Hold the write lock from the first statement to the last; all of them count or none."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def known(directory: Path = MIGRATIONS) -> dict[int, Path]:
    """Return the migrations by number, in order."""
    return {int(file.name.split("_", 1)[0]): file for file in sorted(directory.glob("[0-9]*_*.sql"))}


def migrate(path: Path, directory: Path = MIGRATIONS) -> list[str]:
    """Apply what is missing and return the names; nothing is ever half applied or applied twice."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _connect(path, "rwc") as connection:
            return _apply(connection, directory)
    except (OSError, sqlite3.Error) as error:
        raise NotReadyError(
            f"The database {path} cannot be migrated: {error}. DATABASE_PATH tells where it is."
        ) from error


def require(path: Path) -> None:
    """Raise :class:`NotReadyError` unless the database is reachable, migrated and writable."""
    missing = sorted(set(known()) - set(_read_applied(path)))
    if missing:
        raise NotReadyError(f"The database is not migrated (missing: {missing[0]:04d}); {REMEDY}.")
    if not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)):
        raise NotReadyError("The database is not writable.")


def entries(path: Path, limit: int = 5) -> list[Entry]:
    """Return the newest entries, the newest first."""
    with _connect(path, "ro") as connection:
        rows = connection.execute(
            "SELECT name, message, written_at, release FROM guest_book ORDER BY id DESC LIMIT ?", (limit,)
        )
        return [Entry(*row) for row in rows]


def write(path: Path, name: str, message: str, release: str) -> None:
    """Add an entry."""
    with _connect(path, "rw") as connection, _transaction(connection):
        connection.execute(
            "INSERT INTO guest_book (name, message, written_at, release) VALUES (?, ?, ?, ?)",
            (name, message, _now(), release),
        )


def _apply(connection: sqlite3.Connection, directory: Path) -> list[str]:
    done = []
    for number, file in known(directory).items():
        with _transaction(connection):
            if number not in _applied(connection):
                for statement in _statements(file.read_text(encoding="utf-8")):
                    connection.execute(statement)
                connection.execute(
                    "CREATE TABLE IF NOT EXISTS migration"
                    " (number INTEGER PRIMARY KEY, name TEXT NOT NULL, applied_at TEXT NOT NULL)"
                )
                connection.execute("INSERT INTO migration VALUES (?, ?, ?)", (number, file.stem, _now()))
                done.append(file.stem)
    return done


def _read_applied(path: Path) -> list[int]:
    if not path.exists():
        raise NotReadyError(f"The database does not exist; {REMEDY}.")
    try:
        with _connect(path, "ro") as connection:
            return _applied(connection)
    except sqlite3.Error as error:
        raise NotReadyError(f"The database cannot be read: {error}.") from None


def _applied(connection: sqlite3.Connection) -> list[int]:
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'migration'").fetchone():
        return []
    return [number for (number,) in connection.execute("SELECT number FROM migration ORDER BY number")]


def _statements(script: str) -> Iterator[str]:
    """Split a script: executescript() would commit the transaction around it."""
    statement = ""
    for line in script.splitlines(keepends=True):
        if not statement and (not line.strip() or line.startswith("--")):
            continue
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    if statement:
        raise ValueError(f"A migration ends inside a statement: {statement.strip()!r}.")


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
