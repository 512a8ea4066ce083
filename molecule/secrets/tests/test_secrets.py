"""Secrets are where they must be and nowhere else, whatever is run; and a session outlives its key.

Words that no one else knows are given as secrets, then everything is run that an operator runs, as talkative
as it can be, and everything is searched for them. That the search finds what is there, a word shows that is
no secret, and one that was put where no secret may be. The tests build on one another.
"""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from testinfra.host import Host

PROJECT = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"])
SEARCH = Path(__file__).parent / "search.py"
OPEN = "shown-" + secrets.token_hex(12)  # in config, which is no secret
BAIT = "bait-" + secrets.token_hex(12)  # where no secret may be
LIMIT = 1200.0  # seconds after which a play that has not ended will not end any more, on any machine

# Path, owner and mode. A file of systemd's is for the app alone: as its owner (252), or by an entry (257).
PLACES = {
    "environment": ("/etc/flask/{app}/environment 0 0600", "/srv/{app}/releases/*/environment 0 0600"),
    "credentials": (
        "/etc/flask/{app}/credentials 0 0600",
        "/srv/{app}/releases/*/credentials/* 0 0600",
        "/run/credentials/flask-{app}@*.service/secret_* * 04[04]0",
    ),
}
PROCESSES = "environ of a process of flask-{app}@*.service"


def forms(word: str) -> list[str]:
    """What a word may look like: as it is, in hexadecimal digits, in base64 wherever it begins there.

    The words are letters and digits, which quoting for JSON, YAML, a shell or an address leaves as they are.
    """
    found = [word, word.encode().hex()]
    for before in range(3):
        text = base64.b64encode(b"x" * before + word.encode()).decode().rstrip("=")
        found.append(text[4 if before else 0 : -2])
    return found


@dataclass
class Stage:
    """The hosts, the inventory, and a controller that has nothing but this directory."""

    root: Path
    hosts: dict[str, Host]
    platforms: dict[str, Any]
    values: dict[str, dict[str, Any]] = field(default_factory=dict)
    words: dict[str, list[str]] = field(default_factory=dict)
    runs: int = 0
    said: str = ""

    @property
    def inventory(self) -> Path:
        return self.root / "inventory"

    @property
    def vault(self) -> Path:
        return self.inventory / "group_vars/flask/secrets.vault"

    def prepare(self) -> None:
        (self.vault.parent).mkdir(parents=True)
        for name in ("home", "tmp", "out", "facts"):
            (self.root / name).mkdir()
        (self.root / "password").write_text(secrets.token_hex(16))
        hosts = {
            name: {
                "ansible_connection": "community.docker.docker",
                "ansible_host": one.container,
                "ansible_python_interpreter": "/usr/bin/python3",
            }
            for name, one in self.platforms.items()
        }
        (self.inventory / "hosts.yml").write_text(json.dumps({"flask": {"hosts": hosts}}))
        self.describe("credentials", "environment")
        for app in ("hello", "plain"):
            self.values[app] = {
                "SECRET_KEY": self.word(f"{app}.SECRET_KEY"),
                "ODD": f'"{self.word(f"{app}.ODD")}\\ $HOME `id` %n ümläut',
            }
        self.words["open"], self.words["bait"] = forms(OPEN), forms(BAIT)
        self.encrypt()

    def describe(self, hello: str, plain: str, **config: str) -> None:
        """Write how each app gets its secrets, and what `hello` is told besides."""

        def app(name: str, way: str, config: dict[str, str]) -> dict[str, Any]:
            return {
                "name": name,
                "domains": [f"{name}.example.org"],
                "source": {"path": str(PROJECT / "sample_app")},
                "wsgi": "hello:create_app()",
                "health": {"path": "/healthz", "timeout": "120s"},
                "secrets_via": way,
                "config": {"HELLO_MIGRATE": "1", **config},
                "migrate": "flask --app hello migrate",
            }

        described = {
            "flask_defaults": {"workers": 2, "tls": {"provider": "self_signed"}},
            "flask_apps": [app("hello", hello, {"SHOWN": OPEN, **config}), app("plain", plain, {})],
        }
        (self.vault.parent / "apps.yml").write_text(json.dumps(described))

    def word(self, name: str) -> str:
        """A new word to look for: 64 hexadecimal digits, as a good key has."""
        made = secrets.token_hex(32)
        self.words[f"{name} {len(self.words)}"] = forms(made)
        return made

    def encrypt(self) -> None:
        text = "# Known to this test alone.\n" + json.dumps({"flask_secrets": self.values}, indent=2) + "\n"
        command = ["ansible-vault", "encrypt", "--vault-password-file", str(self.root / "password")]
        self.call([*command, "--output", str(self.vault), "-"], text)

    def decrypted(self) -> dict[str, Any]:
        command = ["ansible-vault", "view", "--vault-password-file", str(self.root / "password")]
        told = self.call([*command, str(self.vault)])
        assert told.startswith("# Known to this test alone.\n")
        self.said = told
        found: dict[str, Any] = yaml.safe_load(told)["flask_secrets"]
        return found

    def call(self, command: Sequence[str], text: str = "") -> str:
        done = subprocess.run(
            command,
            input=text,
            env=self.environment(),
            cwd=PROJECT,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    def environment(self) -> dict[str, str]:
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("ANSIBLE_", "MOLECULE_"))
        }
        return {
            **inherited,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "TMPDIR": str(self.root / "tmp"),
            "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"),
            "ANSIBLE_HOME": str(self.root / "home"),
            "ANSIBLE_CACHE_PLUGIN": "jsonfile",
            "ANSIBLE_CACHE_PLUGIN_CONNECTION": str(self.root / "facts"),
            "ANSIBLE_LOG_PATH": str(self.root / "out/ansible.log"),
            "ANSIBLE_NOCOLOR": "1",
        }

    def run(self, playbook: str, *arguments: str) -> tuple[int, str]:
        """Run a playbook, as talkative as can be; what it says stays in a file."""
        self.runs += 1
        output = self.root / "out" / f"{self.runs:02}-{playbook}.txt"
        command = ["ansible-playbook", "-vvv", f"playbooks/{playbook}.yml", "-i", str(self.inventory)]
        with output.open("w") as file:
            done = subprocess.run(
                [*command, "--vault-password-file", str(self.root / "password"), *arguments],
                cwd=PROJECT,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                timeout=LIMIT,
                check=False,
            )
        return done.returncode, output.read_text()

    def good(self, playbook: str, *arguments: str) -> str:
        code, output = self.run(playbook, *arguments)
        assert code == 0, output[-6000:]
        return output

    # -- the hosts -------------------------------------------------------------------------------

    def take_needles(self) -> None:
        """Bring the hosts the words to look for, and what looks."""
        (self.root / "needles.json").write_text(json.dumps(self.words))
        for one in self.platforms.values():
            for path in (SEARCH, self.root / "needles.json"):
                into = [
                    "docker",
                    "exec",
                    "-i",
                    one.container,
                    "sh",
                    "-c",
                    f"umask 077; cat > /run/{path.name}",
                ]
                subprocess.run(into, input=path.read_bytes(), check=True)

    def look(self) -> dict[str, dict[str, list[str]]]:
        """Everything that is found, by host and place."""
        self.take_needles()
        found = {
            name: json.loads(host.check_output("python3 /run/search.py look /run/needles.json"))
            for name, host in self.hosts.items()
        }
        for host in self.hosts.values():
            host.check_output("rm /run/needles.json")
        (self.root / "needles.json").unlink()
        return found

    def look_here(self) -> dict[str, list[str]]:
        """What is found on the controller, by file."""
        found: dict[str, list[str]] = {}
        for path in self.root.rglob("*"):
            if path.is_file():
                content = path.read_bytes()
                hits = [
                    name
                    for name, words in self.words.items()
                    if any(one.encode() in content for one in words)
                ]
                if hits:
                    found[str(path.relative_to(self.root))] = hits
        return found

    def serving(self, app: str) -> dict[str, str]:
        return {
            name: Path(host.check_output(f"readlink /srv/{app}/current")).name
            for name, host in self.hosts.items()
        }


class Watcher(threading.Thread):
    """Looks at the arguments of all processes of a host for as long as it is told to."""

    def __init__(self, container: str) -> None:
        super().__init__(daemon=True)
        self.container = container
        self.told: dict[str, Any] = {}

    def run(self) -> None:
        command = ["docker", "exec", self.container, "python3", "/run/search.py", "watch"]
        done = subprocess.run([*command, "/run/watched.json"], capture_output=True, text=True, check=True)
        self.told = json.loads(done.stdout)


@pytest.fixture(scope="module")
def stage(
    tmp_path_factory: pytest.TempPathFactory, hosts: dict[str, Host], platforms: dict[str, Any]
) -> Stage:
    made = Stage(tmp_path_factory.mktemp("secrets"), hosts, platforms)
    made.prepare()
    return made


@pytest.fixture(scope="module")
def watched(stage: Stage) -> dict[str, Any]:
    """Deploy for the first time, watched; a bait shows that the watcher sees what is there to see."""
    stage.take_needles()
    watchers = {name: Watcher(one.container) for name, one in stage.platforms.items()}
    for name, watcher in watchers.items():
        stage.hosts[name].check_output("mv /run/needles.json /run/watched.json")
        watcher.start()
    stage.good("site", "--diff")
    for name, watcher in watchers.items():
        stage.hosts[name].check_output(
            "systemd-run --quiet --unit=bait --description=%s sleep 86400 && sh -c 'sleep 1; : %s'",
            BAIT,
            BAIT,
        )
        stage.hosts[name].check_output("touch /run/search.stop")
        watcher.join(60)
        stage.hosts[name].check_output("rm /run/watched.json")
    return {name: watcher.told for name, watcher in watchers.items()}


def test_no_program_is_told_a_secret_in_its_arguments(watched: dict[str, Any]) -> None:
    for name, told in watched.items():
        assert told["looks"] > 100, name
        assert told["seen"] == ["bait"], name


def unexpected(stage: Stage, ways: Mapping[str, Sequence[str]], *, all_of_them: bool) -> list[str]:
    """Where secrets were found and may not be; if asked, checks that they are found wherever they must be."""
    allowed = [place.format(app=app) for app, some in ways.items() for way in some for place in PLACES[way]]
    allowed += [PROCESSES.format(app=app) for app, some in ways.items() if "environment" in some]
    strange = []
    for host, places in stage.look().items():
        holders = [place for place, hits in places.items() if set(hits) - {"open", "bait"}]
        strange += [
            f"{host}: {place}: {places[place]}"
            for place in holders
            if not any(fnmatchcase(place, pattern) for pattern in allowed)
        ]
        if all_of_them:
            empty = [one for one in allowed if not any(fnmatchcase(place, one) for place in holders)]
            assert empty == [], host
        shown = [place for place, hits in places.items() if "open" in hits]
        assert "/etc/flask/hello/environment 0 0600" in shown, host
        assert any(fnmatchcase(place, PROCESSES.format(app="hello")) for place in shown), host
        assert {"systemctl show", "journal"} <= {place for place, hits in places.items() if "bait" in hits}
    return strange


def test_secrets_are_on_the_hosts_in_these_files_alone(stage: Stage, watched: dict[str, Any]) -> None:
    assert set(watched) == set(stage.hosts)
    ways = {"hello": ["credentials"], "plain": ["environment"]}
    assert unexpected(stage, ways, all_of_them=True) == []


def test_the_app_gets_paths_or_values(stage: Stage) -> None:
    for name, host in stage.hosts.items():
        for app, variable in (("hello", "SECRET_KEY_FILE"), ("plain", "SECRET_KEY")):
            unit = f"flask-{app}@{stage.serving(app)[name]}.service"
            pids = host.check_output(
                "cat /sys/fs/cgroup$(systemctl show -P ControlGroup %s)/cgroup.procs", unit
            )
            assert len(pids.split()) == 3, name  # the master and two workers
            for pid in pids.split():
                lines = host.check_output(f"tr '\\0' '\\n' < /proc/{pid}/environ").splitlines()
                told = dict(line.split("=", 1) for line in lines if line.startswith(("SECRET_KEY", "ODD")))
                odd = {"hello": "ODD_FILE", "plain": "ODD"}[app]
                assert set(told) == {variable, odd}, (name, app, pid)
                if app == "hello":
                    assert told == {
                        "SECRET_KEY_FILE": f"/run/credentials/{unit}/secret_SECRET_KEY",
                        "ODD_FILE": f"/run/credentials/{unit}/secret_ODD",
                    }
                    seen = host.check_output(f"cat /proc/{pid}/root{told['ODD_FILE']}")
                    assert seen == stage.values["hello"]["ODD"]
                else:
                    assert told == stage.values["plain"]


@pytest.mark.parametrize("account", ["hello", "plain", "nobody"])
def test_no_account_reads_what_is_not_for_it(stage: Stage, account: str) -> None:
    for name, host in stage.hosts.items():
        script = (
            "for path in $(find /srv /etc/flask /run/credentials/flask-* -type f -path '*credentials*' "
            "-o -type f -name environment); do echo $path; "
            f"runuser -u {account} -- cat $path > /dev/null 2>&1 && echo readable; done; true"
        )
        lines = host.check_output(script).splitlines()
        readable = [path for path, word in pairwise(lines) if word == "readable"]
        assert len(lines) - len(readable) >= 10, name
        folder = f"/run/credentials/flask-hello@{stage.serving('hello')[name]}.service"
        own = [f"{folder}/secret_ODD", f"{folder}/secret_SECRET_KEY"] if account == "hello" else []
        assert [path for path in sorted(readable) if not path.endswith("/secret")] == own, name


def test_whatever_is_asked_shows_nothing(stage: Stage) -> None:
    # A changed secret is what a difference would show.
    stage.values["hello"]["ODD"] = stage.word("hello.ODD") + "\n second line"
    stage.values["plain"]["ODD"] = stage.word("plain.ODD")
    stage.encrypt()
    before = stage.serving("hello"), stage.serving("plain")
    output = stage.good("site", "--check", "--diff")
    assert re.search(r"changed=[1-9]", output)
    for playbook in ("plan", "status", "releases"):
        stage.good(playbook, "--diff")
    stage.run(
        "doctor"
    )  # fails where something is to be looked after, such as a certificate of its own authority
    assert (stage.serving("hello"), stage.serving("plain")) == before


def session(client: httpx.Client) -> tuple[str, str]:
    """A new session: its cookie, and the token that a form brings back."""
    answer = client.get("https://hello.example.org/", headers={"Cookie": ""})
    assert answer.status_code == 200
    token = re.search(r'name="token" value="([^"]+)"', answer.text)
    assert token is not None
    return answer.headers["set-cookie"].split(";")[0], token[1]


def believed(client: httpx.Client, one: tuple[str, str]) -> int:
    """The status for a form of this session: 303, or 400 where it is not believed."""
    return client.post(
        "https://hello.example.org/guest-book",
        data={"token": one[1], "name": "", "message": ""},
        headers={"Cookie": one[0]},
    ).status_code


class Visitors(threading.Thread):
    """Begin sessions on every host and go on with them on every other, for as long as they are told to."""

    def __init__(self, clients: dict[str, Callable[[], httpx.Client]]) -> None:
        super().__init__(daemon=True)
        self.clients = {name: make() for name, make in clients.items()}
        self.first = {name: session(client) for name, client in self.clients.items()}
        self.stop = threading.Event()
        self.answers: dict[str, int] = {}
        self.rounds = 0

    def run(self) -> None:
        while not self.stop.is_set():
            for maker, client in self.clients.items():
                try:
                    made = session(client)
                except (AssertionError, httpx.HTTPError) as error:
                    self.note(f"no session on {maker}: {error!r}")
                    continue
                for asked, other in self.clients.items():
                    for age, one in (("first", self.first[maker]), ("new", made)):
                        try:
                            status: object = believed(other, one)
                        except httpx.HTTPError as error:
                            status = repr(error)
                        self.note("303" if status == 303 else f"{age} of {maker} on {asked}: {status}")
            self.rounds += 1

    def note(self, what: str) -> None:
        self.answers[what] = self.answers.get(what, 0) + 1


@pytest.fixture
def visitors(stage: Stage, outside: Callable[..., httpx.Client]) -> Iterator[Visitors]:
    authority = stage.inventory / ".tls/ca.pem"
    made = Visitors(
        {
            name: lambda one=one: outside(one, ca=authority, http2=False)  # type: ignore[misc]
            for name, one in stage.platforms.items()
        }
    )
    made.start()
    yield made
    made.stop.set()
    made.join(60)


def test_a_rotation_that_fails_midway_is_run_again_and_no_session_ends(
    stage: Stage, visitors: Visitors
) -> None:
    old = stage.values["hello"]["SECRET_KEY"]
    stage.describe("credentials", "environment", HELLO_BREAK="import")
    code, output = stage.run("rotate_secret_key", "-e", "app=hello", "--diff")
    assert code != 0
    assert "hello: its service failed while starting" in output, output[-3000:]
    [new] = stage.decrypted()["hello"]["SECRET_KEY_FALLBACKS"]
    note = "# rotate_secret_key.yml: the new key of hello is announced; run it again to go on\n"
    assert stage.said.endswith(note)
    stage.words["hello.SECRET_KEY, the new one"] = forms(new)
    stage.describe("credentials", "environment")
    output = stage.good("rotate_secret_key", "-e", "app=hello", "--diff")
    told = "hello: sessions are signed with a new key, and those of the keys before stay valid"
    assert told in " ".join(output.split())
    seen = visitors.rounds
    limit = time.monotonic() + LIMIT
    while visitors.rounds < seen + 3 and time.monotonic() < limit:
        time.sleep(0.05)
    visitors.stop.set()
    visitors.join(60)
    print(f"sessions: {visitors.answers}")
    assert list(visitors.answers) == ["303"], visitors.answers
    assert visitors.answers["303"] > 100
    now = stage.decrypted()
    assert (now["hello"]["SECRET_KEY"], now["hello"]["SECRET_KEY_FALLBACKS"]) == (new, [old])
    assert now["plain"] == stage.values["plain"]
    assert "rotate_secret_key.yml" not in stage.said
    assert stage.vault.stat().st_mode & 0o7777 == 0o600
    stage.values = now


def test_the_ways_are_exchanged_and_a_roll_back_finds_its_own(
    stage: Stage, outside: Callable[..., httpx.Client]
) -> None:
    before = stage.serving("hello")
    stage.values["hello"]["ODD"] = stage.word("hello.ODD")  # one that fits on a line
    stage.encrypt()
    stage.describe("environment", "credentials")
    stage.good("site", "--diff")
    clients = {
        name: outside(one, ca=stage.inventory / ".tls/ca.pem", http2=False)
        for name, one in stage.platforms.items()
    }
    made = session(clients["web1"])
    assert [believed(client, made) for client in clients.values()] == [303, 303]
    assert stage.serving("hello") != before
    stage.good("rollback", "-e", "app=hello")
    assert stage.serving("hello") == before
    assert [believed(client, made) for client in clients.values()] == [303, 303]


def test_what_systemd_leaves_out_is_missed(stage: Stage) -> None:
    before = stage.serving("plain")
    for app in stage.values:  # what was rolled back from is not deployed again
        stage.values[app]["ODD"] = stage.word(f"{app}.ODD")
    stage.encrypt()
    for host in stage.hosts.values():
        host.check_output("mount --make-rprivate /")
    try:
        code, output = stage.run("site", "--diff")
    finally:
        for host in stage.hosts.values():
            host.check_output("mount --make-rshared /")
    assert code != 0
    assert "plain: its service failed while starting" in output
    assert "systemd has not given the secret ODD to this service, see LoadCredential= in its unit" in output
    assert stage.serving("plain") == before


def test_secrets_were_nowhere_else_at_the_end(stage: Stage) -> None:
    """Both ways are on the disk: releases that can be gone back to have theirs as they had them."""
    both = ("credentials", "environment")
    assert unexpected(stage, {"hello": both, "plain": both}, all_of_them=False) == []
    for host in stage.hosts.values():
        assert host.run("ls /etc/flask/hello/credentials").rc != 0


def test_nothing_was_said_or_kept_by_the_controller(stage: Stage) -> None:
    found = stage.look_here()
    secret = {place: [one for one in hits if one not in ("open", "bait")] for place, hits in found.items()}
    assert {place: hits for place, hits in secret.items() if hits} == {}
    # The search finds what is there: the plan shows what is no secret.
    assert [
        place
        for place, hits in found.items()
        if re.fullmatch(r"out/\d\d-plan\.txt", place) and "open" in hits
    ]
    assert "inventory/group_vars/flask/apps.yml" in found
    assert len([*(stage.root / "facts").iterdir()]) == len(stage.hosts)  # facts were kept, and searched
