"""What a proxy is on its host, beyond what acceptance tests see of it: files, logs, its unit, refusals."""

from __future__ import annotations

import base64
import json
import os
import random
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.flaskworks.server.tests.acceptance.client import Client
from testinfra.host import Host


@dataclass(frozen=True)
class Proxy:
    """Where a proxy differs from the other in what is asked here."""

    unit: str
    configuration: str
    errors: str
    flush: str
    """The command that has buffered lines written to the logs."""
    check: tuple[str, str]
    """The command that checks a configuration, and the end of what it says of one without a warning."""
    wrong_alone: tuple[tuple[dict[str, Any], str], ...]
    """Values that make a site wrong by itself, and words of the refusal."""
    wrong_together: tuple[dict[str, Any], str]
    """Values that make a site wrong beside "hello", and words of the refusal."""


OWN = "/etc/flask/tls/hello"
PROXIES = {
    "nginx": Proxy(
        unit="nginx.service",
        configuration="/etc/nginx",
        errors="/var/log/nginx/error.log",
        flush="nginx -s reopen",
        check=("nginx -t", "nginx: configuration file /etc/nginx/nginx.conf test is successful\n"),
        wrong_alone=(
            (
                {"headers": [{"name": "X-Broken", "value": "half a variable$", "unless": []}]},
                "invalid variable name",
            ),
            ({"raw": {"nginx": "no_such_directive on;", "apache": ""}}, "unknown directive"),
        ),
        wrong_together=({"upstream": "flask-hello"}, "duplicate upstream"),
    ),
    "apache": Proxy(
        unit="apache2.service",
        configuration="/etc/apache2",
        errors="/var/log/flask-proxy/error.log",
        flush="true",  # it buffers none
        check=("apachectl -t", "Syntax OK\n"),
        wrong_alone=(
            ({"certificate": {"fullchain": "/none.pem", "privkey": f"{OWN}/privkey.pem"}}, "/none.pem"),
            ({"raw": {"nginx": "", "apache": "NoSuchDirective on"}}, "Invalid command"),
            # Apache itself would find this out at the reload, and end.
            (
                {
                    "certificate": {
                        "fullchain": f"{OWN}/fullchain.pem",
                        "privkey": "/etc/ssl/private/ssl-cert-snakeoil.key",
                    }
                },
                "is not the key of /etc/flask/tls/hello/fullchain.pem",
            ),
        ),
        wrong_together=({"http_port": 443}, "Cannot define multiple Listeners on the same IP:port"),
    ),
}
ODD = [
    *(
        b'"',
        b"\\",
        b"'",
        b"{",
        b"}",
        b",",
        b":",
        b"/",
        b"?",
        b"a",
        b"0",
        b"x" * 200,
        b"$request",
        b"%{x}e",
        b"\\u0000",
    ),
    *(b"%0a", b"%0d%0a", b"%22", b"%5c", b"%c3%a4", b"%ff", b"%u0022", b"\\x22", b"\\n"),
]
NASTY = [
    *ODD,
    *(
        b" ",
        b"\t",
        b"\r",
        b"\n",
        b"\x00",
        b"\x01",
        b"\x1b",
        b"\x7f",
        b"\x80",
        b"\xff",
        b"\xfe",
        b"%",
        b"%00",
        b"#",
        b"../",
    ),
    *(b"\xc3\xa4", b"\xc0\xaf", b"\xed\xa0\x80", b"\xe2\x80\xa8", b"\xf0\x9f\x90\x8d", b"\xf4\x90\x80\x80"),
]
"""What a log could stumble over."""
NAME = os.environ["MOLECULE_SCENARIO_NAME"]
PROXY = PROXIES[NAME]
INVENTORY = Path(os.environ["MOLECULE_INVENTORY_FILE"]).parent
ROOT = Path(__file__).resolve().parents[2]
LOGS = "/var/log/flask-proxy"


def eventually(question: Callable[[], bool], seconds: float = 60) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if question():
            return True
        time.sleep(0.1)
    return False


class TestFiles:
    def test_the_configuration_is_checked_without_a_warning(self, host: Host) -> None:
        command, said = PROXY.check
        checked = host.run(command)
        assert checked.rc == 0
        assert checked.stderr.endswith(said)
        assert "warn" not in checked.stderr.lower()
        assert "could not reliably determine" not in checked.stderr

    def test_the_sites_of_the_distribution_are_gone(self, host: Host) -> None:
        sites = host.check_output(f"ls -A {PROXY.configuration}/sites-enabled").split()
        assert sites
        assert [site for site in sites if not site.startswith("flask-")] == []

    def test_the_workers_may_reach_the_sockets(self, host: Host) -> None:
        assert "flask-proxy" in host.user("www-data").groups

    def test_a_renamed_symlink_moves_app_and_files_without_a_reload(self, client: Client, host: Host) -> None:
        def switch(release: str) -> None:
            host.check_output(
                f"ln -sfn releases/{release} /srv/hello/next && mv -T /srv/hello/next /srv/hello/current"
            )

        def serves(release: str) -> bool:
            return client.ask("/release").body.decode() == release

        try:
            for release in ("two", "one", "two"):
                switch(release)
                style = client.ask("/static/style.css").body
                assert style.startswith(f"static/style.css of {release}\n".encode())
                # A kept connection to the old release lives for two seconds at most.
                assert eventually(lambda release=release: serves(release))  # type: ignore[misc]
        finally:
            switch("one")


class TestLogs:
    @staticmethod
    def entries(host: Host, log: str) -> list[dict[str, Any]]:
        """Read a whole access log; each of its lines must be an object of JSON, in UTF-8."""
        encoded = host.check_output(f"base64 {LOGS}/{log}")
        lines = base64.b64decode(encoded).split(b"\n")
        assert lines.pop() == b""
        return [json.loads(line.decode()) for line in lines]

    def entries_with(self, host: Host, identity: str) -> list[dict[str, Any]]:
        """Read the log of "hello" as soon as it has the request with this id."""
        host.check_output(PROXY.flush)
        log = f"{LOGS}/flask-hello.log"
        assert eventually(lambda: host.run(f"grep -qF {identity} {log}").succeeded)
        return self.entries(host, "flask-hello.log")

    def test_there_is_one_object_per_request(self, client: Client, host: Host) -> None:
        client.ask(
            '/echo/"}%0a{"x":"?a=\\"\x7f',
            headers=[("User-Agent", '"}\\ \xff\t'), ("Referer", 'https://x.example.org/"')],
        )
        client.send(b"\x16\x03\x01 nonsense\r\n\r\n")
        client.send(b"GET / HTTP/9.9\r\n\r\n")
        answer = client.ask("/release")
        told = answer.one("X-Request-ID")
        found = self.entries_with(host, told)
        last = next(entry for entry in found if entry["request_id"] == told)
        assert {
            name: last[name]
            for name in ("app", "release", "method", "path", "status", "tls", "scheme", "host")
        } == {
            "app": "hello",
            "release": answer.body.decode(),
            "method": "GET",
            "path": "/release",
            "status": 200,
            "tls": "TLSv1.3",
            "scheme": "https",
            "host": "hello.example.org",
        }
        assert float(str(last["duration"])) >= 0
        if NAME == "nginx":
            # nginx takes the two from different clocks of milliseconds, so they may be a tick or two apart.
            assert float(str(last["duration"])) + 0.002 >= float(str(last["upstream_duration"])) >= 0
        assert all(isinstance(entry["status"], int) and isinstance(entry["bytes"], int) for entry in found)

    def test_whatever_is_sent_every_line_is_an_object(self, client: Client, host: Host) -> None:
        chance = random.Random(20261121)
        told = []
        for number in range(150):
            # Every other one is so odd that most of them are refused.
            odd = number % 2

            def words(most: int, pieces: Sequence[bytes] = NASTY if odd else ODD) -> bytes:
                return b"".join(chance.choices(pieces, k=chance.randint(1, most)))

            lines = [
                (words(2) if odd else b"GET") + b" /echo/" + words(8) + b" HTTP/1.1",
                b"Host: " + chance.choice([*5 * [b"hello.example.org"], words(3)]),
                b"User-Agent: " + words(8),
                b"Referer: " + words(8),
                *([words(3) + b": " + words(3)] if odd else []),
                b"Connection: close",
            ]
            with client.talk() as conversation:
                conversation.send(b"\r\n".join(lines) + b"\r\n\r\n")
                said = conversation.rest()
            told += re.findall(rb"^X-Request-ID: (\S+)\r$", said, re.MULTILINE | re.IGNORECASE)
        assert len(told) > 50
        last = client.ask("/echo/last").one("X-Request-ID")
        found = [entry["request_id"] for entry in self.entries_with(host, last)]
        apart = [entry["request_id"] for entry in self.entries(host, "flask.log")]
        assert {
            identity: (found + apart).count(identity) for identity in map(bytes.decode, told)
        } == dict.fromkeys(map(bytes.decode, told), 1)

    def test_what_is_no_text_is_not_in_the_log(self, client: Client, host: Host) -> None:
        answer = client.ask(
            "/echo/\xc3\xa4\xff\xfe", headers=[("User-Agent", 'a\xc3\xa4 "\\ \xed\xa0\x80 b')]
        )
        told = answer.one("X-Request-ID")
        (entry,) = [entry for entry in self.entries_with(host, told) if entry["request_id"] == told]
        assert (entry["path"], entry["user_agent"]) == {
            "nginx": ("/echo/ä�", 'aä "\\ �'),
            "apache": ("/echo/%c3%a4%ff%fe", "a%c3%a4%20%22%5c%20%ed%a0%80%20b"),
        }[NAME]

    def test_only_the_app_tells_its_release(self, client: Client, host: Host) -> None:
        answers = [client.ask("/release"), client.ask("/static/style.css"), client.ask("/static/.secret")]
        told = [answer.one("X-Request-ID") for answer in answers]
        released = {entry["request_id"]: entry["release"] for entry in self.entries_with(host, told[-1])}
        assert [released[identity] for identity in told] == [answers[0].body.decode(), "", ""]

    def test_the_ids_of_other_answers_are_there_too(self, client: Client, host: Host) -> None:
        """Of files, refusals, redirects and of what no app answered."""
        answers = [
            client.ask("/static/style.css"),
            client.ask("/static/.secret"),
            client.ask("/echo", method="POST", body=b"x" * 65537),
            client.ask("/", host="www.hello.example.org", sni="www.hello.example.org"),
        ]
        told = [answer.one("X-Request-ID") for answer in answers]
        away = client.ask("/", host="away.example.org:8443", sni="away.example.org", port=8443)
        host.check_output(PROXY.flush)
        log = f"{LOGS}/flask-hello.log {LOGS}/flask-away.log"
        for identity in (*told, away.one("X-Request-ID")):
            assert eventually(lambda identity=identity: host.run(f"grep -qF {identity} {log}").succeeded)  # type: ignore[misc]

    def test_what_the_app_raises_is_found_by_the_id_of_the_answer(self, client: Client, host: Host) -> None:
        answer = client.ask("/raises")
        assert answer.status == 500
        told = answer.one("X-Request-ID")

        def journal() -> str:
            return str(host.check_output("journalctl --unit='stand-in@*' --output=cat --lines=200"))

        assert eventually(lambda: f"Error handling request /raises, request {told}\n" in journal())
        after = journal().partition(f"request {told}\n")[2]
        assert after.startswith("Traceback (most recent call last):\n")
        assert "RuntimeError: as asked" in after

    def test_errors_of_the_proxy_are_found_by_the_id_of_the_answer(self, client: Client, host: Host) -> None:
        """nginx cannot write it into its log of errors: the access log says of which connection they are."""
        name, told = "away.example.org", []
        with client.talk(port=8443, sni=name) as conversation:
            for target in ("/", "/again"):
                if NAME == "apache":  # it closes the connection
                    answer = client.ask(target, host=f"{name}:8443", sni=name, port=8443)
                else:
                    conversation.send(f"GET {target} HTTP/1.1\r\nHost: {name}:8443\r\n\r\n".encode())
                    answer = conversation.answer()
                told.append(answer.one("X-Request-ID"))
        host.check_output(PROXY.flush)

        def entry(identity: str) -> dict[str, Any]:
            found = host.run(f"grep -hF {identity} {LOGS}/flask-away.log")
            return json.loads(found.stdout) if found.succeeded else {}

        assert eventually(lambda: all(entry(identity) for identity in told))
        if NAME == "nginx":
            entries = [entry(identity) for identity in told]
            (connection,) = {entry["connection"] for entry in entries}
            assert [entry["connection_request"] for entry in entries] == [1, 2]
            ends = [f' \\*{connection} connect() .*"GET {target} HTTP/1.1"' for target in ("/", "/again")]
        else:
            ends = [f"AH01114: .*, request {identity}$" for identity in told]
        for end in ends:
            assert eventually(lambda end=end: host.run(f"grep -q '{end}' {PROXY.errors}").succeeded)  # type: ignore[misc]

    def test_refused_requests_are_logged_apart(self, client: Client, host: Host) -> None:
        client.ask("/who-asks", host="unknown.example.org")
        host.check_output(PROXY.flush)
        # Not by reading it here: requests were refused whose bytes are no text.
        assert eventually(lambda: host.run(f"grep -aqF /who-asks {LOGS}/flask.log").succeeded)

    @pytest.mark.parametrize("name", ["flask-hello.log", "flask.log"])
    def test_they_are_not_readable_by_everybody(self, host: Host, name: str) -> None:
        assert host.file(f"{LOGS}/{name}").mode & 0o007 == 0


def test_brotli_is_sent_where_it_lies_beside(client: Client, host: Host) -> None:
    beside = "/srv/hello/releases/one/static/static/style.css.br"
    try:
        host.check_output(f"printf small >{beside}")
        answer = client.ask("/static/style.css", headers=[("Accept-Encoding", "gzip, br")])
        assert (answer.one("Content-Encoding"), answer.body) == ("br", b"small")
        assert answer.one("Content-Type").startswith("text/css")
        assert client.ask("/static/style.css", headers=[("Accept-Encoding", "gzip")]).body != b"small"
    finally:
        host.check_output(f"rm -f {beside}")


def test_a_crash_is_survived(client: Client, host: Host) -> None:
    service = host.service(PROXY.unit)
    assert service.is_enabled
    killed = host.check_output(f"systemctl show --value --property MainPID {PROXY.unit}")
    host.check_output(f"kill -KILL {killed}")

    def answers() -> bool:
        try:
            return client.ask("/release").status == 200
        except OSError:
            return False

    assert eventually(lambda: service.is_running and answers())
    assert host.check_output(f"systemctl show --value --property MainPID {PROXY.unit}") != killed


class TestRefusals:
    """A configuration that is refused leaves no trace; one that loses sites removes them."""

    @pytest.fixture
    def sites(self) -> list[dict[str, Any]]:
        described = yaml.safe_load((ROOT / "tests/acceptance/target/sites.yml").read_text())
        return [dict(site) for site in described["acceptance_sites"]]

    @staticmethod
    def converge(sites: list[dict[str, Any]]) -> tuple[int, str]:
        done = subprocess.run(
            [
                *("ansible-playbook", "-i", INVENTORY, ROOT / "molecule" / NAME / "converge.yml"),
                *("-e", json.dumps({f"{NAME}_sites": sites})),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    @staticmethod
    def fingerprints(hosts: dict[str, Host]) -> dict[str, str]:
        return {
            name: host.check_output(
                f"find {PROXY.configuration} /etc/sysusers.d /etc/systemd/system /usr/local/lib/flaskworks "
                "/var/lib/flask/pages -type f -exec sha256sum {} + | sort -k 2"
            )
            for name, host in hosts.items()
        }

    @pytest.fixture
    def untouched(self, hosts: dict[str, Host], clients: dict[str, Client]) -> Iterator[None]:
        """Assert that every host is afterwards as it was, and serves."""
        before = self.fingerprints(hosts)
        yield
        assert self.fingerprints(hosts) == before
        assert [client.ask("/release").status for client in clients.values()] == [200] * len(hosts)

    @pytest.mark.usefixtures("untouched")
    @pytest.mark.parametrize(("values", "words"), PROXY.wrong_alone)
    def test_a_site_that_is_wrong_by_itself_is_not_installed(
        self, hosts: dict[str, Host], sites: list[dict[str, Any]], values: dict[str, Any], words: str
    ) -> None:
        sites[0].update(values)
        sites[1]["timeout"] = 31  # valid, but not installed without the other
        code, said = self.converge(sites)
        assert code != 0
        assert said.count(f"{PROXY.configuration}/sites-enabled/flask-hello.conf was refused") >= len(hosts)
        assert words in said

    @pytest.mark.usefixtures("untouched")
    def test_sites_that_are_wrong_together_are_taken_back(self, sites: list[dict[str, Any]]) -> None:
        values, words = PROXY.wrong_together
        sites[1].update(values)
        code, said = self.converge(sites)
        assert code != 0
        assert words in said
        assert "put back as before" in said

    @pytest.mark.usefixtures("untouched")
    def test_a_port_that_somebody_else_holds_is_refused_by_name(
        self, hosts: dict[str, Host], sites: list[dict[str, Any]]
    ) -> None:
        sites[1]["http_port"] = 8081
        try:
            for host in hosts.values():
                host.check_output("systemd-run --unit=squatter --collect python3 -m http.server 8081")
                host.check_output(
                    "timeout 60 sh -c 'until ss -Hltn sport = :8081 | grep -q .; do sleep 0.1; done'"
                )
            code, said = self.converge(sites)
        finally:
            for host in hosts.values():
                host.run("systemctl stop squatter.service")
        assert code != 0
        assert said.count("port 8081 is held by python3 (process ") >= len(hosts)

    @pytest.fixture
    def afterwards_as_before(self, sites: list[dict[str, Any]]) -> Iterator[None]:
        yield
        code, said = self.converge(sites)
        assert code == 0, said

    @pytest.mark.usefixtures("afterwards_as_before")
    def test_sites_that_are_gone_are_removed(
        self, clients: dict[str, Client], hosts: dict[str, Host]
    ) -> None:
        code, said = self.converge([])
        assert code == 0, said
        for host in hosts.values():
            assert host.check_output(f"ls -A {PROXY.configuration}/sites-enabled") == ""
            assert host.service(PROXY.unit).is_running
        assert [client.ask("/", port=80, tls=False).status for client in clients.values()] == [421] * len(
            hosts
        )
