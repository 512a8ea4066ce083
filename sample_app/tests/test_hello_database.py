"""Migrations are applied once, entirely, and in order."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hello import create_app, database


def test_migrating_twice_does_nothing_the_second_time(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "hello.db"
    assert database.migrate(path) == ["0001_guest_book", "0002_release"]
    assert database.migrate(path) == []
    database.require(path)


def test_two_at_once_apply_each_migration_once(tmp_path: Path) -> None:
    path = tmp_path / "hello.db"
    with ThreadPoolExecutor(8) as pool:
        applied = [name for names in pool.map(lambda _: database.migrate(path), range(8)) for name in names]
    assert sorted(applied) == ["0001_guest_book", "0002_release"]


def test_a_broken_migration_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "0001_good.sql").write_text("CREATE TABLE good (x);\n")
    (tmp_path / "0002_bad.sql").write_text("CREATE TABLE half (x);\nINSERT INTO nowhere VALUES (1);\n")
    path = tmp_path / "hello.db"
    with pytest.raises(database.NotReadyError, match=r"hello\.db cannot be migrated: no such table: nowhere"):
        database.migrate(path, tmp_path)
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT name FROM sqlite_master ORDER BY name").fetchall() == [
        ("good",),
        ("migration",),
    ]
    assert connection.execute("SELECT number FROM migration").fetchall() == [(1,)]
    (tmp_path / "0002_bad.sql").write_text("CREATE TABLE half (x);\n")
    assert database.migrate(path, tmp_path) == ["0002_bad"]


def test_a_migration_must_be_whole(tmp_path: Path) -> None:
    (tmp_path / "0001_open.sql").write_text("CREATE TABLE open (x)\n")
    with pytest.raises(ValueError, match="A migration ends inside a statement"):
        database.migrate(tmp_path / "hello.db", tmp_path)


def test_a_comment_may_end_a_migration(tmp_path: Path) -> None:
    (tmp_path / "0001_note.sql").write_text("CREATE TABLE noted (x);\n-- that is all\n\n")
    assert database.migrate(tmp_path / "hello.db", tmp_path) == ["0001_note"]


def test_a_database_of_a_newer_release_is_fine(tmp_path: Path) -> None:
    path = tmp_path / "hello.db"
    database.migrate(path)
    connection = sqlite3.connect(path)
    connection.execute("INSERT INTO migration VALUES (99, '0099_later', 'x')")
    connection.commit()
    database.require(path)


def test_a_database_of_an_older_release_is_not(tmp_path: Path) -> None:
    path = tmp_path / "hello.db"
    database.migrate(path)
    connection = sqlite3.connect(path)
    connection.execute("DELETE FROM migration WHERE number = 2")
    connection.commit()
    with pytest.raises(
        database.NotReadyError, match=r"not migrated \(missing: 0002\); run: flask --app hello migrate"
    ):
        database.require(path)


def test_an_empty_database_is_not_migrated(tmp_path: Path) -> None:
    path = tmp_path / "hello.db"
    path.touch()
    with pytest.raises(database.NotReadyError, match=r"not migrated \(missing: 0001\)"):
        database.require(path)


def test_a_read_only_database_is_not_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "hello.db"
    database.migrate(path)
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(database.NotReadyError, match="The database is not writable"):
        database.require(path)


def test_the_newest_entries_come_first(tmp_path: Path) -> None:
    path = tmp_path / "hello.db"
    database.migrate(path)
    for number in range(7):
        database.write(path, "Ada", f"line {number}", "r1")
    lines = [entry.message for entry in database.entries(path)]
    assert lines == ["line 6", "line 5", "line 4", "line 3", "line 2"]


def test_the_command(environment: dict[str, str]) -> None:
    runner = create_app(environment | {"HELLO_MIGRATE": "0"}).test_cli_runner()
    assert runner.invoke(args=["migrate"]).output == "applied 0001_guest_book\napplied 0002_release\n"
    assert runner.invoke(args=["migrate"]).output == "nothing to apply\n"


def test_the_command_fails_with_a_sentence(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = str(tmp_path / "file" / "hello.db")
    app = create_app(environment | {"HELLO_MIGRATE": "0", "DATABASE_PATH": path})
    result = app.test_cli_runner().invoke(args=["migrate"])
    assert result.exit_code == 1
    assert result.output.startswith(f"Error: The database {path} cannot be migrated: ")
    assert result.output.endswith(" DATABASE_PATH tells where it is.\n")
