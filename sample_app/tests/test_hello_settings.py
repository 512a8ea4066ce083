"""The environment is checked once, and every mistake is answered with a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from hello import create_app
from hello.settings import Settings, SettingsError, release_of, shared_database


def test_it_refuses_to_run_without_a_secret() -> None:
    with pytest.raises(SettingsError) as error:
        create_app({})
    assert str(error.value) == (
        "SECRET_KEY is not set; set it (or SECRET_KEY_FILE), or FLASK_DEBUG=1 to develop."
    )


def test_debug_mode_needs_no_secret() -> None:
    app = create_app({"FLASK_DEBUG": "1"})
    assert app.debug is True
    assert app.config["SECRET_KEY"] == "development"
    assert app.config["SESSION_COOKIE_SECURE"] is False


def test_the_debugger_of_the_shell_does_not_leak_into_production(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLASK_DEBUG", "1")
    assert create_app({"SECRET_KEY": "k"}).debug is False


def test_the_secret_may_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("from-a-file\n")
    assert Settings.from_environment({"SECRET_KEY_FILE": str(file)}).secret_key == "from-a-file"
    both = {"SECRET_KEY_FILE": str(file), "SECRET_KEY": "from-a-variable"}
    assert Settings.from_environment(both).secret_key == "from-a-variable"


def test_an_unreadable_secret_file_is_named() -> None:
    with pytest.raises(SettingsError, match="SECRET_KEY_FILE /nowhere/key cannot be read"):
        Settings.from_environment({"SECRET_KEY_FILE": "/nowhere/key"})


def test_keys_that_signed_before(tmp_path: Path) -> None:
    assert Settings.from_environment({"SECRET_KEY": "k"}).secret_key_fallbacks == []
    file = tmp_path / "keys"
    file.write_text('["b", "c"]')
    for given in ({"SECRET_KEY_FALLBACKS": '["b", "c"]'}, {"SECRET_KEY_FALLBACKS_FILE": str(file)}):
        app = create_app({"SECRET_KEY": "k", **given})
        assert app.config["SECRET_KEY_FALLBACKS"] == ["b", "c"]
    for wrong in ("b", '"b"', "[1]"):
        with pytest.raises(SettingsError, match="SECRET_KEY_FALLBACKS must be a list of keys, as JSON"):
            Settings.from_environment({"SECRET_KEY": "k", "SECRET_KEY_FALLBACKS": wrong})


def test_the_cookies_of_production() -> None:
    config = create_app({"SECRET_KEY": "k"}).config
    assert config["SESSION_COOKIE_NAME"] == "__Host-hello"
    assert config["SESSION_COOKIE_SECURE"] is True
    assert config["SESSION_COOKIE_HTTPONLY"] is True
    assert config["SESSION_COOKIE_SAMESITE"] == "Lax"


@pytest.mark.parametrize(("text", "hops"), [("", 0), ("0", 0), ("1", 1), (" 2 ", 2)])
def test_hops(text: str, hops: int) -> None:
    assert Settings.from_environment({"SECRET_KEY": "k", "FORWARDED_HOPS": text}).forwarded_hops == hops


@pytest.mark.parametrize("text", ["-1", "one", "9", "1.0", "²"])
def test_hops_that_are_none(text: str) -> None:
    with pytest.raises(SettingsError, match="it must be the number of proxies in front of the app, 0 to 8"):
        Settings.from_environment({"SECRET_KEY": "k", "FORWARDED_HOPS": text})


def test_a_switch_is_on_or_off() -> None:
    with pytest.raises(SettingsError, match="HELLO_MIGRATE is 'maybe'; it must be 1 or 0"):
        Settings.from_environment({"SECRET_KEY": "k", "HELLO_MIGRATE": "maybe"})


def test_an_unknown_breakage_is_refused() -> None:
    with pytest.raises(SettingsError, match="HELLO_BREAK does not know 'healt'"):
        Settings.from_environment({"SECRET_KEY": "k", "HELLO_BREAK": "healt"})


@pytest.mark.parametrize(
    ("paths", "release"),
    [
        (
            ["/srv/hello/releases/20261120T120000Z-01/src/src/hello/a.py"],
            "/srv/hello/releases/20261120T120000Z-01",
        ),
        (["/srv/hello/releases/20261120T120000Z-01"], "/srv/hello/releases/20261120T120000Z-01"),
        (["/opt/hello/a.py", "/srv/hello/releases/r1/src"], "/srv/hello/releases/r1"),
        (["/home/ada/hello/src/hello/settings.py"], None),
        (["/srv/hello/releases"], None),
    ],
)
def test_the_release_is_found_in_the_path(paths: list[str], release: str | None) -> None:
    assert release_of(*map(Path, paths)) == (Path(release) if release else None)


def test_the_database_of_a_release_is_shared(tmp_path: Path) -> None:
    release = tmp_path / "releases" / "r1"
    assert shared_database(release) is None
    (tmp_path / "shared").mkdir()
    assert shared_database(release) == tmp_path / "shared" / "hello.db"
    assert shared_database(None) is None


def test_the_database_may_be_anywhere() -> None:
    settings = Settings.from_environment({"SECRET_KEY": "k", "DATABASE_PATH": "/data/x.db"})
    assert settings.database == Path("/data/x.db")


def test_without_a_release_it_is_development() -> None:
    assert Settings.from_environment({"SECRET_KEY": "k"}).release == "development"
    assert Settings.from_environment({"SECRET_KEY": "k", "FLASK_RELEASE": "r1"}).release == "r1"
