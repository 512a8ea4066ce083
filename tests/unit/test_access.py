"""How a host is reached changes, on a host that is only played: in which order, and what on failure."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.flaskworks.server.plugins.module_utils import transaction
from ansible_collections.flaskworks.server.plugins.module_utils.access import (
    AccessError,
    Host,
    Request,
    Session,
    allows_password,
    confirm,
    parse_settings,
    put,
    refusals,
    revert,
)

OPERATOR = Session("operator", "192.0.2.7", "192.0.2.80", 22, ("operator", "sudo"))
OPEN = "port 22\npermitrootlogin no\npasswordauthentication no\nkbdinteractiveauthentication no"


class Played(Host):
    """A host with a packet filter, a sshd and a timer that are only played; its files are real."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.state = str(place / "state/access")
        self.table: str | None = None
        self.timer = False
        self.log: list[str] = []
        self.whom: Session | None = OPERATOR
        self.answer = (0, OPEN)
        self.fails = ""
        self.no_timer = False

    def run(self, *command: str) -> tuple[int, str]:
        told = " ".join(command).replace(str(self.place), "")
        if self.fails and told.startswith(self.fails):
            return 1, "it does not want to"
        if command[:4] == ("nft", "--terse", "--stateless", "list"):
            return (1, "No such file or directory") if self.table is None else (0, self.table)
        if command[:2] == ("nft", "-f"):
            self.table = Path(command[2]).read_text().splitlines()[-1]
        elif command[:2] == ("nft", "delete"):
            self.table = None
        elif command[0] == "systemd-run":
            if self.no_timer:
                return 1, "Failed to connect to bus"
            self.timer = True
        elif command == ("systemctl", "stop", "flaskworks-access-revert.timer"):
            self.timer = False
            return 0, ""
        elif command[0] == "sh":
            self.fire()
        self.log.append(told.split(" --")[0])
        return 0, ""

    def fire(self) -> None:
        """What the timer would do; the shell is real, nft and systemctl are not."""
        tools = self.place / "tools"
        tools.mkdir(exist_ok=True)
        loaded = self.place / "loaded"
        loaded.write_text("(none)" if self.table is None else self.table)
        (tools / "nft").write_text(
            f'#!/bin/sh\ncase $1 in -f) tail -n 1 "$2" >{loaded} ;; *) echo "(none)" >{loaded} ;; esac\n'
        )
        (tools / "systemctl").write_text(f'#!/bin/sh\necho "$@" >>{self.place}/systemctl.log\n')
        for tool in tools.iterdir():
            tool.chmod(0o755)
        subprocess.run(
            ["sh", f"{self.state}/revert"],
            check=True,
            env={"PATH": f"{tools}:{os.environ['PATH']}"},
        )
        text = loaded.read_text().strip()
        self.table = None if text == "(none)" else text

    def session(self) -> Session | None:
        return self.whom

    def sshd_settings(self, _overlay: Mapping[str, str | None], _whom: Session | None) -> tuple[int, str]:
        return self.answer

    def has_sshd(self) -> bool:
        return True

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        yield


@pytest.fixture
def host(tmp_path: Path) -> Played:
    return Played(tmp_path)


def request(host: Played, sshd: str = "Port 22\n", rules: str = "new rules\n") -> Request:
    """Return a request for both files; the owner is who runs this."""
    owner, group = str(os.geteuid()), str(os.getegid())
    paths = [f"{host.place}/etc/00-flaskworks.conf", f"{host.place}/etc/firewall.nft"]
    return Request(
        files=transaction.Request(
            elements=[],
            rules=[transaction.Rule(path, owner, group, parents=True) for path in paths],
            contents=[sshd, rules],
            state_directory=f"{host.place}/state",
        ),
        firewall=paths[1],
    )


def files(host: Played) -> dict[str, str]:
    directory = host.place / "etc"
    return {path.name: path.read_text() for path in directory.glob("*")} if directory.exists() else {}


NEW = {"00-flaskworks.conf": "Port 22\n", "firewall.nft": "new rules\n"}


class TestOrder:
    def test_a_change_is_armed_before_it_is_applied(self, host: Played) -> None:
        outcome = put(host, request(host))
        assert (outcome.changed, len(outcome.token)) == (True, 16)
        assert host.log == [
            "systemd-run",
            "nft -f /etc/firewall.nft",
            "systemctl try-reload-or-restart ssh.service",
        ]
        assert (host.timer, host.table, files(host)) == (True, "new rules", NEW)

    def test_a_confirmed_change_stays(self, host: Played) -> None:
        confirm(host, put(host, request(host)).token)
        assert (host.timer, host.table, files(host)) == (False, "new rules", NEW)
        assert not Path(host.state, "revert").exists()

    def test_the_second_run_changes_nothing(self, host: Played) -> None:
        confirm(host, put(host, request(host)).token)
        host.log.clear()
        assert (put(host, request(host)).changed, host.log) == (False, [])

    def test_check_mode_foresees_and_touches_nothing(self, host: Played) -> None:
        assert put(host, request(host), check_mode=True).changed is True
        assert (host.log, host.timer, files(host)) == ([], False, {})

    def test_rules_that_somebody_changed_are_loaded_again(self, host: Played) -> None:
        confirm(host, put(host, request(host)).token)
        for found in ("other rules", None):
            host.table = found
            outcome = put(host, request(host))
            assert (outcome.changed, host.table) == (True, "new rules")
            confirm(host, outcome.token)

    def test_without_a_firewall_our_table_goes(self, host: Played) -> None:
        confirm(host, put(host, request(host)).token)
        both = request(host)
        ruleset = both.firewall
        without = replace(
            both,
            firewall="",
            files=replace(
                both.files, rules=both.files.rules[:1], contents=both.files.contents[:1], absent=[ruleset]
            ),
        )
        confirm(host, put(host, without).token)
        assert (host.table, list(files(host))) == (None, ["00-flaskworks.conf"])
        assert put(host, without).changed is False


class TestWayBack:
    def test_the_timer_puts_back_files_and_rules(self, host: Played) -> None:
        confirm(host, put(host, request(host)).token)
        put(host, request(host, "DenyUsers *\n", "policy drop\n"))
        assert host.table == "policy drop"
        host.fire()
        assert (host.table, files(host)) == ("new rules", NEW)
        assert (host.place / "systemctl.log").read_text() == (
            "--no-block try-reload-or-restart ssh.service\n"
        )

    def test_what_was_not_there_goes(self, host: Played) -> None:
        put(host, request(host))
        host.fire()
        assert (host.table, files(host)) == (None, {})

    def test_modes_come_back(self, host: Played) -> None:
        confirm(host, put(host, request(host)).token)
        path = host.place / "etc/00-flaskworks.conf"
        path.chmod(0o600)
        put(host, request(host))
        assert path.stat().st_mode & 0o777 == 0o644
        host.fire()
        assert path.stat().st_mode & 0o777 == 0o600

    def test_the_controller_takes_back_at_once(self, host: Played) -> None:
        token = put(host, request(host)).token
        assert revert(host, token) is True
        assert (host.timer, host.table, files(host)) == (False, None, {})
        assert revert(host, token) is False

    def test_what_was_put_back_cannot_be_confirmed(self, host: Played) -> None:
        token = put(host, request(host)).token
        host.fire()
        with pytest.raises(AccessError, match="put back before a new connection was proven"):
            confirm(host, token)

    def test_a_run_after_one_that_died_begins_with_the_way_back(self, host: Played) -> None:
        first = put(host, request(host, "DenyUsers *\n")).token
        second = put(host, request(host)).token
        host.fire()
        assert files(host) == {}
        for token in (first, second):
            with pytest.raises(AccessError):
                confirm(host, token)

    @pytest.mark.parametrize("fails", ["nft -f", "systemctl try-reload-or-restart"])
    def test_a_failure_puts_back(self, host: Played, fails: str) -> None:
        host.fails = fails
        with pytest.raises(AccessError, match="everything was put back as before:\nit does not want to"):
            put(host, request(host))
        assert (host.timer, files(host)) == (False, {})

    def test_without_a_timer_nothing_is_changed(self, host: Played) -> None:
        host.no_timer = True
        with pytest.raises(AccessError, match="systemd-run does not work on this host"):
            put(host, request(host))
        assert (host.log, files(host)) == ([], {})


class TestRefusals:
    @pytest.mark.parametrize(
        ("settings", "session", "words"),
        [
            ("port 2222", OPERATOR, "the play connects to port 22, and sshd would listen on 2222"),
            (OPEN, replace(OPERATOR, user="root"), "would refuse root (PermitRootLogin no)"),
            ("port 22\nallowusers alice bob", OPERATOR, "not in AllowUsers (alice bob)"),
            ("port 22\nallowusers operator@198.51.100.*", OPERATOR, "not in AllowUsers"),
            ("port 22\nallowgroups admins", OPERATOR, "not in AllowGroups (admins)"),
            ("port 22\ndenyusers oper*", OPERATOR, "whom DenyUsers (oper*) refuses"),
            ("port 22\ndenygroups sudo", OPERATOR, "whom DenyGroups (sudo) refuses"),
        ],
    )
    def test_who_is_connected_is_not_refused(
        self, host: Played, settings: str, session: Session, words: str
    ) -> None:
        host.answer, host.whom = (0, settings), session
        for check_mode in (True, False):
            with pytest.raises(AccessError) as told:
                put(host, request(host), check_mode)
            assert words in str(told.value)
            assert str(told.value).endswith("Nothing was changed")
        assert (host.log, files(host)) == ([], {})

    @pytest.mark.parametrize(
        "settings",
        [
            OPEN,
            "port 2222\nport 22\nallowusers alice operator",
            "port 22\nallowusers operator@192.0.2.*",
            "port 22\nallowgroups admins sudo",
            "port 22\ndenyusers root",
        ],
    )
    def test_others_are(self, settings: str) -> None:
        assert refusals(parse_settings(settings), OPERATOR) == []

    def test_nobody_is_asked_about_who_came_another_way(self, host: Played) -> None:
        host.answer, host.whom = (0, "port 2222\nallowusers alice"), None
        assert put(host, request(host)).changed is True

    def test_what_sshd_refuses_is_told(self, host: Played) -> None:
        host.answer = (255, "00-flaskworks.conf line 1: Bad configuration option: Prot")
        with pytest.raises(AccessError, match=r"nothing was changed, correct .*\n.*Bad configuration option"):
            put(host, request(host))
        assert (host.log, files(host)) == ([], {})

    def test_a_password_needs_a_key_beside_it(self, host: Played) -> None:
        asked = replace(request(host), password=True)
        assert put(host, asked).key_needed is True
        assert (host.log, files(host)) == ([], {})
        host.answer = (0, OPEN.replace("passwordauthentication no", "passwordauthentication yes"))
        assert put(host, asked).key_needed is False

    @pytest.mark.parametrize(
        ("text", "allowed"),
        [
            ("passwordauthentication yes\nkbdinteractiveauthentication no", True),
            ("passwordauthentication no\nkbdinteractiveauthentication yes", True),
            ("passwordauthentication no\nkbdinteractiveauthentication no", False),
        ],
    )
    def test_either_kind_of_password_counts(self, text: str, allowed: bool) -> None:
        assert allows_password(parse_settings(text)) is allowed


def test_a_session_is_found_in_the_environment_of_an_ancestor() -> None:
    code = (
        "import sys; sys.path[:0] = sys.argv[1:];"
        "from ansible_collections.flaskworks.server.plugins.module_utils.access import session;"
        "found = session(); print(found.user, found.client, found.address, found.port)"
    )
    told = subprocess.run(
        ["sh", "-c", 'env -i "$@"; true', "sh", sys.executable, "-c", code, *sys.path],
        env={
            "SSH_CONNECTION": "192.0.2.7 50000 192.0.2.80 2222",
            "LOGNAME": "root",
            "PATH": os.environ["PATH"],
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout == "root 192.0.2.7 192.0.2.80 2222\n"


def test_ports_of_sshd_are_several() -> None:
    assert parse_settings("port 22\nport 2222\nallowusers a b")["port"] == ("22", "2222")
