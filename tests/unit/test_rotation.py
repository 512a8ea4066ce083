"""A new SECRET_KEY changes only the lines of the file that say it, and no key is lost on the way."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
import yaml
from ansible_collections.flaskworks.server.plugins.plugin_utils import rotation
from ansible_collections.flaskworks.server.plugins.plugin_utils.rotation import RotationError, Standing

A, B, C, D = (letter * 40 for letter in "abcd")

FILE = f"""\
# What only we know.
flask_secrets:
  shop: {{SECRET_KEY: {C}, TOKEN: "x y"}}
  hello:  # the first one
    DATABASE_URL: 'postgres://hello:pa#ss@db/hello'   # the big one
    SECRET_KEY: "{A}"  # signs
    PEM: |
      -----BEGIN-----
      # no comment
"""


def test_only_the_lines_of_the_key_change() -> None:
    text = rotation.announce(FILE, "hello", B)
    note = "# rotate_secret_key.yml: the new key of hello is announced; run it again to go on\n"
    added = f'    SECRET_KEY: "{A}"  # signs\n    SECRET_KEY_FALLBACKS: ["{B}"]\n'
    assert text == FILE.replace(f'    SECRET_KEY: "{A}"  # signs\n', added) + note
    text = rotation.sign(text, "hello")
    exchanged = f'    SECRET_KEY: "{B}"  # signs\n    SECRET_KEY_FALLBACKS: ["{A}"]\n'
    assert text == (
        FILE.replace(f'    SECRET_KEY: "{A}"  # signs\n', exchanged) + note.replace("announced", "signing")
    )
    text = rotation.finish(text, "hello")
    assert text == FILE.replace(f'    SECRET_KEY: "{A}"  # signs\n', exchanged)
    assert rotation.look(text, "hello") == Standing(B, (A,), "")
    assert rotation.look(text, "shop") == Standing(C, (), "")


def test_an_app_on_one_line() -> None:
    text = rotation.finish(rotation.sign(rotation.announce(FILE, "shop", D), "shop"), "shop")
    assert text == FILE.replace(
        f"{{SECRET_KEY: {C}, ", f'{{SECRET_KEY: "{D}", SECRET_KEY_FALLBACKS: ["{C}"], '
    )


@pytest.mark.parametrize("end", ["", "\n"])
def test_a_file_that_ends_with_the_key(end: str) -> None:
    text = rotation.announce(f"flask_secrets:\n  hello:\n    SECRET_KEY: '{A}'{end}", "hello", B)
    assert yaml.safe_load(text) == {
        "flask_secrets": {"hello": {"SECRET_KEY": A, "SECRET_KEY_FALLBACKS": [B]}}
    }


def test_two_keys_that_signed_before_are_kept_and_none_is_lost_on_the_way() -> None:
    text, key = FILE, A
    for new in (B, C, D):
        before = rotation.look(text, "hello")
        text = rotation.announce(text, "hello", new)
        assert rotation.look(text, "hello") == Standing(key, (new, *before.fallbacks), "announced")
        text = rotation.finish(rotation.sign(text, "hello"), "hello")
        assert rotation.look(text, "hello") == Standing(new, (key, *before.fallbacks)[:2], "")
        key = new
    assert rotation.look(text, "hello") == Standing(D, (C, B), "")


def test_a_list_over_several_lines_becomes_one() -> None:
    listed = f"    SECRET_KEY_FALLBACKS:\n      - {C}\n      - '{D}'  # the oldest\n"
    text = FILE.replace("    PEM", listed + "    PEM")
    assert rotation.announce(text, "hello", B).count(f'["{B}", "{C}", "{D}"]  # the oldest\n    PEM') == 1
    commented = text.replace(f"      - {C}\n", f"      - {C} # older\n")
    with pytest.raises(RotationError, match="has a comment within SECRET_KEY_FALLBACKS"):
        rotation.announce(commented, "hello", B)


def test_keys_are_forgotten() -> None:
    text = rotation.finish(rotation.sign(rotation.announce(FILE, "hello", B), "hello"), "hello")
    assert rotation.look(rotation.forget(text, "hello"), "hello") == Standing(B, (), "")
    assert rotation.forget(FILE, "hello") == FILE


def test_nothing_signs_that_was_not_announced() -> None:
    text = rotation.finish(rotation.sign(rotation.announce(FILE, "hello", B), "hello"), "hello")
    for one in (FILE, text):
        with pytest.raises(RotationError, match="announces no new key"):
            rotation.sign(one, "hello")


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("SECRET_KEY: !vault |\n      $ANSIBLE_VAULT;1.1;AES256\n      61", "encrypted by itself"),
        ("SECRET_KEY: \"{{ lookup('file', 'key') }}\"", "comes from elsewhere"),
        (f"SECRET_KEY: >-\n      {A}", "goes over several lines"),
        (f'SECRET_KEY: "{A}\n      {B}"', "goes over several lines"),
        ("SECRET_KEY: 12345", "is not a text in quotes"),
        (f"SECRET_KEY: {A}\n    SECRET_KEY: {B}", "says SECRET_KEY twice"),
        (f"SECRET_KEY: &key {A}\n    OTHER: *key", "has aliases"),
        ("OTHER: x", "does not say flask_secrets.hello.SECRET_KEY"),
        (f"SECRET_KEY: {A}\n    SECRET_KEY_FALLBACKS: {B}", "has a SECRET_KEY_FALLBACKS that is no list"),
        (f"SECRET_KEY: {A}\n    BROKEN: [", "is no YAML"),
    ],
)
def test_what_cannot_be_changed_safely_is_not(line: str, sentence: str) -> None:
    with pytest.raises(RotationError, match=sentence) as raised:
        rotation.announce(f"flask_secrets:\n  hello:\n    {line}\n", "hello", B)
    assert A not in str(raised.value)


def test_a_file_is_replaced_for_its_owner_alone(tmp_path: Path) -> None:
    file, link = tmp_path / "secrets.vault", tmp_path / "link"
    file.write_bytes(b"before")
    file.chmod(0o644)
    link.symlink_to(file)
    earlier = os.umask(0)
    try:
        rotation.replace(str(link), b"after", b"before")
    finally:
        os.umask(earlier)
    assert (file.read_bytes(), stat.S_IMODE(file.stat().st_mode)) == (b"after", 0o600)
    assert link.is_symlink()
    with pytest.raises(RotationError, match="was changed by somebody else meanwhile"):
        rotation.replace(str(file), b"later", b"before")
    assert file.read_bytes() == b"after"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "secrets.vault"]
