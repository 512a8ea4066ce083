# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The host's part, with the real openssl command: keys, the atomic switch, what killed runs leave."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from ansible_collections.flaskworks.server.plugins.module_utils import key_pairs as kp
from ansible_collections.flaskworks.server.plugins.module_utils.pending_apply import PendingApply
from ansible_collections.flaskworks.server.plugins.plugin_utils import authority as ca

ME = os.geteuid()


@pytest.fixture
def pair(tmp_path: Path) -> kp.Pair:
    return kp.Pair("hello", str(tmp_path / "etc" / "tls" / "hello"))


def sign(tmp_path: Path, request: str, days: int = 90) -> str:
    authority = ca.find_or_create(tmp_path / "authority")
    key = ca.signing_key(tmp_path / "authority")
    return ca.issue(authority, key, request, "hello", ["hello.example.org"], days=days)


def issued(tmp_path: Path, pair: kp.Pair) -> str:
    """Go through both steps; the pair that was live before."""
    request = kp.prepare([pair])[pair.name]
    _names, previous = kp.install([kp.Material(pair, sign(tmp_path, request))])
    return previous[pair.name]


def store(pair: kp.Pair) -> list[str]:
    return sorted(entry for entry in os.listdir(pair.store) if entry != ".lock")


def test_nothing_there_is_missing_and_creates_nothing(tmp_path: Path, pair: kp.Pair) -> None:
    assert kp.inspect(pair)["fault"] == "is missing"
    assert list(tmp_path.iterdir()) == []


def test_the_waiting_key_is_closed_from_the_start(pair: kp.Pair) -> None:
    before = os.umask(0)
    try:
        kp.prepare([pair])
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(pair.pending_key).st_mode) == 0o600
    assert b"BEGIN PRIVATE KEY" in Path(pair.pending_key).read_bytes()


def test_a_narrow_umask_closes_no_directory(pair: kp.Pair) -> None:
    before = os.umask(0o077)
    try:
        kp.prepare([pair])
    finally:
        os.umask(before)
    assert stat.S_IMODE(Path(pair.parent).parent.stat().st_mode) == 0o755
    assert stat.S_IMODE(Path(pair.store).stat().st_mode) == 0o755


def test_both_steps_give_a_protected_pair(tmp_path: Path, pair: kp.Pair) -> None:
    assert issued(tmp_path, pair) == ""
    assert kp.inspect(pair, ME) | {"fullchain": ""} == {
        "fullchain": "",
        "fault": "",
        "obstacle": "",
        "exposures": [],
    }
    live = Path(pair.directory)
    assert os.readlink(live).startswith(".pairs/hello-")
    assert stat.S_IMODE((live / "privkey.pem").stat().st_mode) == 0o600
    assert stat.S_IMODE((live / "fullchain.pem").stat().st_mode) == 0o644
    assert len(store(pair)) == 1


def test_a_waiting_key_is_used_by_the_next_run(tmp_path: Path, pair: kp.Pair) -> None:
    kp.prepare([pair])
    key = Path(pair.pending_key).read_bytes()
    issued(tmp_path, pair)
    assert (Path(pair.directory) / "privkey.pem").read_bytes() == key
    assert not Path(pair.pending_key).exists()


def test_a_half_written_key_is_replaced(tmp_path: Path, pair: kp.Pair) -> None:
    kp.prepare([pair])
    whole = Path(pair.pending_key).read_bytes()
    Path(pair.pending_key).write_bytes(whole[:100])
    issued(tmp_path, pair)
    assert kp.inspect(pair, ME)["fault"] == ""


def test_two_runs_at_once_both_end_with_a_good_pair(tmp_path: Path, pair: kp.Pair) -> None:
    first, second = kp.prepare([pair])["hello"], kp.prepare([pair])["hello"]
    kp.install([kp.Material(pair, sign(tmp_path, first))])
    kp.install([kp.Material(pair, sign(tmp_path, second))])
    assert kp.inspect(pair, ME)["fault"] == ""


def test_a_certificate_for_a_lost_key_leaves_the_old_pair_live(tmp_path: Path, pair: kp.Pair) -> None:
    issued(tmp_path, pair)
    live = os.readlink(pair.directory)
    request = kp.prepare([pair])["hello"]
    os.unlink(pair.pending_key)
    with pytest.raises(kp.PairError, match="is gone from the host; run the play again"):
        kp.install([kp.Material(pair, sign(tmp_path, request))])
    assert os.readlink(pair.directory) == live
    issued(tmp_path, pair)
    assert os.readlink(pair.directory) != live


def test_nothing_is_switched_unless_every_pair_is_complete(tmp_path: Path, pair: kp.Pair) -> None:
    other = kp.Pair("other", f"{pair.parent}/other")
    requests = kp.prepare([pair, other])
    os.unlink(other.pending_key)
    chains = {name: sign(tmp_path, request) for name, request in requests.items()}
    with pytest.raises(kp.PairError, match=r"^other: "):
        kp.install([kp.Material(pair, chains["hello"]), kp.Material(other, chains["other"])])
    assert not os.path.lexists(pair.directory)


def test_the_live_pair_and_the_one_before_stay(tmp_path: Path, pair: kp.Pair) -> None:
    issued(tmp_path, pair)
    first = os.path.basename(os.readlink(pair.directory))
    for _round in range(2):
        previous = issued(tmp_path, pair)
        kp.prune([pair], {"hello": previous})
    assert len(store(pair)) == 2
    assert first not in store(pair)
    assert os.path.basename(previous) in store(pair)


def test_what_a_killed_run_left_is_removed_but_not_a_neighbour(tmp_path: Path, pair: kp.Pair) -> None:
    issued(tmp_path, pair)
    live = os.path.basename(os.readlink(pair.directory))
    for name in (".new-hello", "hello-0123456789", "hello-two-0123456789", "hello-0123456789-0123456789"):
        (Path(pair.store) / name).mkdir()
    assert kp.prune([pair], {}) == [".new-hello", "hello-0123456789"]
    assert store(pair) == sorted([live, "hello-two-0123456789", "hello-0123456789-0123456789"])


def test_a_provided_key_is_installed_and_repaired(tmp_path: Path, pair: kp.Pair) -> None:
    request = kp.prepare([pair])["hello"]
    chain, key = sign(tmp_path, request), Path(pair.pending_key).read_text()
    kp.install([kp.Material(pair, chain, key)])
    privkey = Path(pair.directory) / "privkey.pem"
    privkey.write_text("broken")
    assert kp.inspect(pair, ME)["fault"].startswith("cannot be loaded")
    kp.install([kp.Material(pair, chain, key)])
    assert privkey.read_text() == key
    assert stat.S_IMODE(privkey.stat().st_mode) == 0o600


def test_a_foreign_key_is_noticed(tmp_path: Path, pair: kp.Pair) -> None:
    issued(tmp_path, pair)
    kp.prepare([pair])
    (Path(pair.directory) / "privkey.pem").write_bytes(Path(pair.pending_key).read_bytes())
    assert kp.inspect(pair, ME)["fault"] == "has a private key that does not belong to its certificate"


def test_open_permissions_are_told_and_corrected(tmp_path: Path, pair: kp.Pair) -> None:
    issued(tmp_path, pair)
    privkey = Path(pair.directory) / "privkey.pem"
    privkey.chmod(0o640)
    Path(pair.store).chmod(0o777)
    exposures = kp.inspect(pair, ME)["exposures"]
    assert [words.split(" was ")[1].split(",")[0] for words in exposures] == ["0640", "0777"]
    kp.protect([pair], ME)
    assert kp.inspect(pair, ME)["exposures"] == []


def test_a_directory_in_the_way_is_not_touched(tmp_path: Path, pair: kp.Pair) -> None:
    Path(pair.directory).mkdir(parents=True)
    assert "move it out of the way" in kp.inspect(pair)["obstacle"]
    request = kp.prepare([pair])["hello"]
    with pytest.raises(kp.PairError, match="move it out of the way"):
        kp.install([kp.Material(pair, sign(tmp_path, request))])


def test_a_host_without_openssl_is_told_what_is_missing(pair: kp.Pair) -> None:
    with pytest.raises(kp.PairError, match=r"^no-openssl is not installed on this host"):
        kp.prepare([pair], openssl="no-openssl")


def test_commands_are_owed_until_they_succeed(tmp_path: Path) -> None:
    owed = PendingApply(str(tmp_path / "state" / "certificates.pending"))
    assert not owed.is_set()
    owed.set("changed")
    with pytest.raises(kp.PairError, match=r"'false' failed \(exit code 1\).*the command is repeated"):
        kp.apply(owed, [["touch", str(tmp_path / "first")], ["false"]])
    assert owed.is_set()
    with pytest.raises(kp.PairError, match="/nowhere/command: no such program"):
        kp.apply(owed, [["/nowhere/command"]])
    assert owed.is_set()
    kp.apply(owed, [["true"]])
    assert not owed.is_set()
    assert (tmp_path / "first").exists()
