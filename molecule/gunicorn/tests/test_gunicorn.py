"""Services that keep connections through crashes, end politely, and cannot write where they should not."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

EPHEMERAL = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
CONVERGE = Path(__file__).resolve().parents[1] / "converge.yml"
COMMAND = ["ansible-playbook", "-i", str(EPHEMERAL / "inventory"), str(CONVERGE)]
PROGRAM = (Path(__file__).parent / "hello.py").read_text()

# Stages a release by hand: the layout is the one that a deploy makes.
STAGE = """
set -eu
release=/srv/{app}/releases/{release}
mkdir -p "$release/src"
chmod 0711 /srv/{app}/releases "$release"
ln -sfn /opt/{app} "$release/venv"
cp --preserve /etc/flask/{app}/gunicorn.conf.py /etc/flask/{app}/environment "$release/"
cat > "$release/src/hello.py" <<'PROGRAM'
{program}
PROGRAM
systemctl start "flask-{app}@{release}.socket" "flask-{app}@{release}.service"
"""

# Sends what it is given to a socket, and prints all that comes back.
CONVERSE = """
import socket, sys
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect(sys.argv[1])
    connection.sendall(sys.argv[2].encode())
    print(b"".join(iter(lambda: connection.recv(65536), b"")).hex())
"""


def converge(*arguments: str) -> str:
    """Run the scenario's playbook again; what it printed."""
    run = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout + run.stderr


# Has every thread or greenlet of an app hang, then goes on asking until somebody has answered twenty times.
# Prints how many were answered, refused, and cut off after they had been accepted; the latter with the time.
HANG = """
import json, socket, sys, threading, time
path, hanging, outcomes = sys.argv[1], int(sys.argv[2]), []

def ask(query, kept):
    began = time.time()
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(path)
            head = [f"GET /{query} HTTP/1.1", "Host: x", "Connection: close", "", ""]
            connection.sendall("\\r\\n".join(head).encode())
            said = connection.recv(12)
        except ConnectionResetError:
            said = b""
        except OSError as error:
            said = str(error).encode()
    if kept:
        what = {b"HTTP/1.1 200": "answered", b"": "cut"}.get(said, "refused")
        outcomes.append((what, began))

def start(query, kept):
    threading.Thread(target=ask, args=(query, kept), daemon=True).start()
    time.sleep(0.01 if query else 0.1)

for _ in range(hanging):
    start("?sleep=600", False)
limit = time.monotonic() + 120
while time.monotonic() < limit and sum(what == "answered" for what, _ in outcomes) < 20:
    start("", True)
print(json.dumps(outcomes))
"""

Stage = Callable[..., str]


@pytest.fixture
def stage(host: Host) -> Iterator[Stage]:
    """Make and start a release of an app; the name of its units' instance."""
    started: list[str] = []

    def start(app: str, program: str = PROGRAM) -> str:
        release = f"20260101T00000{len(started)}-{os.urandom(5).hex()}"
        started.append(f"flask-{app}@{release}")
        host.check_output(STAGE.format(app=app, release=release, program=program).replace("%", "%%"))
        return release

    yield start
    for unit in started:
        host.run(f"systemctl stop {unit}.service {unit}.socket")
        host.run(f"systemctl reset-failed {unit}.service {unit}.socket")


def command(app: str, release: str, path: str = "/", *options: str) -> str:
    socket = f"/srv/{app}/releases/{release}/gunicorn.sock"
    words = " ".join(options)
    return f"curl --silent --fail --max-time 20 {words} --unix-socket {socket} 'http://hello{path}'"


def ask(host: Host, app: str, release: str, path: str = "/", *options: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(
        host.check_output(command(app, release, path, *options).replace("%", "%%"))
    )
    return answer


def test_units_are_clean_for_systemd(host: Host, stage: Stage) -> None:
    for app in ("hello", "older", "green"):
        release = stage(app)
        for kind in ("service", "socket"):
            verified = host.run(f"systemd-analyze verify --man=no flask-{app}@{release}.{kind}")
            assert (verified.rc, verified.stdout + verified.stderr) == (0, "")


@pytest.mark.parametrize(
    ("app", "server", "threads"), [("hello", "27.", True), ("older", "23.", False), ("green", "27.", True)]
)
def test_every_worker_class_and_version_answers_on_its_socket(
    host: Host, stage: Stage, app: str, server: str, threads: bool
) -> None:
    release = stage(app)
    answer = ask(host, app, release)
    assert answer["threads"] is threads
    version = host.check_output(f"/opt/{app}/bin/gunicorn --version")
    assert f"version {server}" in version
    unit = f"flask-{app}@{release}.service"
    assert host.check_output(f"systemctl show --property=User --value {unit}") == app
    journal = host.check_output(f"journalctl --unit={unit} --output=cat")
    assert {"hello": "Using worker: gthread", "older": "Using worker: sync", "green": "Using worker: gevent"}[
        app
    ] in journal
    assert "rror" not in journal
    assert "control" not in journal.lower()


@pytest.mark.parametrize(("app", "shared"), [("hello", True), ("older", True), ("green", False)])
def test_workers_share_flask_and_not_the_app(host: Host, stage: Stage, app: str, shared: bool) -> None:
    answer = ask(host, app, stage(app))
    # The only binary of what Flask brings tells whether the master, which never asks for it, has imported it.
    maps = host.check_output(f"cat /proc/{answer['master']}/maps")
    assert ("/markupsafe/_speedups" in maps) is shared
    assert answer["imported_by"] != answer["master"]


@pytest.mark.parametrize("app", ["hello", "older", "green"])
def test_no_answer_has_a_body_where_http_has_none(host: Host, stage: Stage, app: str) -> None:
    """The app gives one. On a connection that a proxy keeps it would be read as the next answer."""
    path = f"/srv/{app}/releases/{stage(app)}/gunicorn.sock"
    for asked, first in (
        ("HEAD /", b"HTTP/1.1 200 OK"),
        ("HEAD /?written=1", b"HTTP/1.1 200 OK"),
        ("GET /?status=204%20No%20Content", b"HTTP/1.1 204 No Content"),
        ("GET /?status=304%20Not%20Modified&written=1", b"HTTP/1.1 304 Not Modified"),
    ):
        question = f"{asked} HTTP/1.1\r\nHost: hello\r\nConnection: close\r\n\r\n"
        told = host.check_output("python3 -c %s %s %s", CONVERSE, path, question)
        head, end, rest = bytes.fromhex(told).partition(b"\r\n\r\n")
        assert (head.split(b"\r\n")[0], end, rest) == (first, b"\r\n\r\n", b"")


def test_values_with_every_odd_character_arrive_intact(host: Host, stage: Stage) -> None:
    answer = ask(host, "hello", stage("hello"))
    assert answer["greeting"] == '100% of "it", $HOME \\n ümläut 🐍'
    assert answer["environment"]["ODD"] == ' it\'s "odd" \\ $HOME ${HOME} `id` #no %n ; = ümläut 🐍 '
    assert answer["environment"]["EMPTY"] == ""
    assert answer["environment"]["SECRET_KEY"] == 's3cr3t "k$y" \\ of hello'


def test_only_the_header_that_the_proxy_sets_is_believed(host: Host, stage: Stage) -> None:
    release = stage("hello")
    assert ask(host, "hello", release, "/", "--header", "X-Forwarded-Proto:https")["scheme"] == "https"
    for header in ("X-Forwarded-Ssl:on", "X-Forwarded-Protocol:ssl", "X-Forwarded-Proto:http"):
        assert ask(host, "hello", release, "/", "--header", header)["scheme"] == "http"
    assert ask(host, "hello", release, "/", "--header", "Script_Name:/evil")["script"] == ""


def properties(host: Host, unit: str, *names: str) -> list[str]:
    """What systemd says of a unit, in the order of the names."""
    shown = host.check_output("systemctl show --property=%s %s", ",".join(names), unit)
    told = dict(line.split("=", 1) for line in shown.splitlines())
    return [told[name] for name in names]


def test_an_app_has_its_limits_and_a_slice_of_its_own(host: Host, stage: Stage) -> None:
    limits = ("MemoryHigh", "MemoryMax", "TasksMax", "LimitNOFILE", "OOMPolicy", "OOMScoreAdjust", "Slice")
    dashed = r"flask-my\x2dapp.slice"
    assert properties(host, "flask-my-app@x.service", *limits) == [
        *("300000256", "400001024", "123", "4321", "continue", "500", dashed)
    ]
    assert properties(host, dashed, "CPUWeight", "Slice", "FragmentPath") == [
        *("250", "flask.slice", rf"/etc/systemd/system/{dashed}")
    ]
    release = stage("hello")
    unit = f"flask-hello@{release}.service"
    high, most, tasks, files, *others = properties(host, unit, *limits)
    memory = int(host.check_output("awk '/^MemTotal/ {print $2}' /proc/meminfo")) * 1024
    assert abs(int(most) - memory * 8 // 10) < 8192
    assert (high, tasks, files, others) == (
        *("infinity", "4096", "65536"),
        ["continue", "500", "flask-hello.slice"],
    )
    assert properties(host, unit, "ControlGroup") == [f"/flask.slice/flask-hello.slice/{unit}"]
    worker = host.check_output(f"pgrep --newest --parent {ask(host, 'hello', release)['master']}")
    assert host.check_output(f"cat /proc/{worker}/oom_score_adj") == "500"


def test_a_worker_that_the_kernel_ends_is_replaced_and_the_service_goes_on(host: Host, stage: Stage) -> None:
    release = stage("hello")
    master = ask(host, "hello", release)["master"]
    # As for want of memory, of which a container without its controller has no end.
    asked = f"{command('hello', release, '/?sleep=2')} > /tmp/survivor & sleep 1"
    killed = f"kill -9 $(pgrep --parent {master} | tail -1)"
    host.check_output(f"{asked}; {killed}; wait".replace("%", "%%"))
    assert ask(host, "hello", release)["master"] == master
    assert properties(host, f"flask-hello@{release}.service", "NRestarts", "Result") == ["0", "success"]


def serve(host: Host, app: str, release: str) -> None:
    """Let the release serve, as a deploy would: it is asked whether it lives from now on."""
    host.check_output(
        f"cp /etc/flask/{app}/liveness.conf /srv/{app}/releases/{release}/; touch /srv/{app}/.lock;"
        f"ln -sfn releases/{release} /srv/{app}/current"
    )


FIRST = "restart 1, the next one not within 5 s"


def said(host: Host, app: str, release: str) -> list[tuple[float, str]]:
    """What was found out about a release, and when."""
    lines = host.check_output(f"journalctl -t flask-{app} -u flaskworks-liveness --output=json").splitlines()
    told = [(int(one["__REALTIME_TIMESTAMP"]) / 1e6, str(one["MESSAGE"])) for one in map(json.loads, lines)]
    return [one for one in told if one[1].startswith(release)]


@pytest.mark.parametrize(("app", "hanging"), [("hello", 40), ("green", 8)])
def test_what_hangs_is_restarted_and_nobody_is_refused(
    host: Host, stage: Stage, app: str, hanging: int
) -> None:
    """Every thread, or greenlet, of the app hangs; gunicorn finds nothing wrong with that."""
    release = stage(app)
    before = ask(host, app, release)["master"]
    serve(host, app, release)
    unit = f"flask-{app}@{release}"
    socket = properties(host, f"{unit}.socket", "ActiveEnterTimestampMonotonic")
    path = f"/srv/{app}/releases/{release}/gunicorn.sock"
    told = json.loads(host.check_output("python3 -c %s %s %s", HANG, path, str(hanging)))
    assert {what for what, _began in told} <= {"answered", "cut"}, "nobody is refused"
    assert [what for what, _began in told].count("answered") >= 20
    events = said(host, app, release)
    assert [text for _when, text in events[:3]] == [
        f"{release} does not answer / as it should (200): no answer within 1 s; failure 1 of 2",
        f"{release} does not answer / as it should (200): no answer within 1 s; failure 2 of 2",
        f"{release} is restarted, since it did not answer / 2 times in a row; {FIRST}",
    ]
    # The old process is killed a second after that. What it had accepted is lost, what came later is not.
    assert all(began < events[2][0] + 3 for what, began in told if what == "cut")
    assert ask(host, app, release)["master"] != before
    assert properties(host, f"{unit}.socket", "ActiveEnterTimestampMonotonic") == socket
    assert properties(host, f"{unit}.service", "NRestarts", "ActiveState") == ["0", "active"]
    host.check_output(f"rm /srv/{app}/current")


def test_an_app_that_never_gets_well_is_restarted_less_and_less_often(host: Host, stage: Stage) -> None:
    release = stage("older")
    serve(host, "older", release)
    restarts: list[tuple[float, str]] = []
    limit = time.monotonic() + 120
    while len(restarts) < 3 and time.monotonic() < limit:
        time.sleep(0.5)
        restarts = [one for one in said(host, "older", release) if "is restarted" in one[1]]
    host.check_output("rm /srv/older/current")
    assert [text.rpartition("; ")[2] for _when, text in restarts] == [
        FIRST,
        "restart 2, the next one not within 10 s",
        "restart 3, the next one not within 20 s",
    ]
    moments = [when for when, _text in restarts]
    assert moments[1] - moments[0] >= 5
    assert moments[2] - moments[1] >= 10


def test_the_timer_leaves_nothing_in_the_journal_when_all_is_well(host: Host) -> None:
    told = host.check_output("journalctl -u flaskworks-liveness.service --output=cat")
    assert not [line for line in told.splitlines() if "is restarted" not in line and "answer" not in line]
    assert host.service("flaskworks-liveness.timer").is_running
    assert host.service("flaskworks-liveness.timer").is_enabled


def test_only_root_and_the_proxys_group_may_connect(host: Host, stage: Stage) -> None:
    socket = host.file(f"/srv/hello/releases/{stage('hello')}/gunicorn.sock")
    assert (socket.user, socket.group, socket.mode) == ("root", "flask-proxy", 0o660)


def test_a_killed_master_comes_back_and_no_connection_is_refused(host: Host, stage: Stage) -> None:
    release = stage("hello")
    before = ask(host, "hello", release)["master"]
    host.check_output(f"kill -9 {before}")
    # While nothing runs, the kernel queues the connection in systemd's socket.
    assert ask(host, "hello", release)["master"] != before


def test_a_request_in_flight_survives_the_stop_and_a_stuck_one_does_not_delay_it(
    host: Host, stage: Stage
) -> None:
    for app in ("hello", "older", "green"):
        release = stage(app)
        ask(host, app, release)
        unit = f"flask-{app}@{release}"
        asked = f"{command(app, release, '/?sleep=3')} > /tmp/answer-{app} & sleep 1"
        script = f"{asked}; systemctl stop {unit}.service {unit}.socket; wait $!"
        begun = time.monotonic()
        host.check_output(script.replace("%", "%%"))
        assert time.monotonic() - begun < 8
        assert app != "older" or "older" in host.file(f"/tmp/answer-{app}").content_string
        assert host.check_output(f"systemctl show --property=Result --value {unit}.service") == "success"
        assert not host.file(f"/srv/{app}/releases/{release}/gunicorn.sock").exists
    release = stage("older")
    unit = f"flask-older@{release}"
    begun = time.monotonic()
    host.run(
        f"{command('older', release, '/?sleep=19')} & sleep 1; systemctl stop {unit}.service {unit}.socket"
    )
    # graceful_timeout 6 s, stop_timeout 9 s
    assert time.monotonic() - begun < 13
    assert host.run("pgrep --uid older").rc == 1


def test_the_service_writes_its_data_and_logs_only(host: Host, stage: Stage) -> None:
    release = stage("hello")

    def write(path: str) -> str:
        return str(ask(host, "hello", release, f"/?write={path}")["write"])

    for path in ("/srv/hello/shared/data", "/var/log/flask/hello/app.log", "/tmp/private", "/dev/shm/cache"):
        assert write(path) == "written"
    assert not host.file("/tmp/private").exists
    host.check_output("install -d -m 0777 /opt/open")
    for path in (
        f"/srv/hello/releases/{release}/src/hello.py",
        "/srv/hello/current",
        "/etc/flask/hello/environment",
        "/opt/open/x",
    ):
        assert write(path) in {"Permission denied", "Read-only file system"}


FLASK = """
import flask

def create_app(greeting):
    app = flask.Flask("hello")

    @app.get("/")
    def index():
        raise RuntimeError("as asked")

    return app
"""


def journal_of(host: Host, app: str, release: str) -> str:
    return str(host.check_output(f"journalctl --unit=flask-{app}@{release}.service --output=cat"))


@pytest.mark.parametrize("app", ["hello", "older", "green"])
def test_what_is_logged_for_a_request_has_its_id(host: Host, stage: Stage, app: str) -> None:
    release = stage(app)
    ids = [os.urandom(16).hex() for _ in range(20)]
    each = command(app, release, "/?raise=$1&sleep=0.2", "--header", '"X-Request-ID: $1"').replace("'", '"')
    # All at once: threads and greenlets must not take each other's.
    host.run(f"for id in {' '.join(ids)}; do sh -c '{each.replace('--fail', '')}' sh $id & done; wait")
    host.run(command(app, release, "/?raise=none"))
    for number, unsafe in enumerate(["a b", "x" * 65, '"']):
        host.run(command(app, release, f"/?raise=unsafe{number}", "--header", f"'X-Request-ID: {unsafe}'"))
    journal = journal_of(host, app, release)
    target = {"hello": "GET /", "older": "/", "green": "GET /"}[app]
    for identity in ids:
        assert f"[WARNING] words of {identity}, request {identity}\n" in journal
        failed = f"[ERROR] Error handling request {target}?raise={identity}&sleep=0.2"
        assert f"{failed}, request {identity}\n" in journal
    for no_id in ("none", "unsafe0", "unsafe1", "unsafe2"):
        assert f"[ERROR] Error handling request {target}?raise={no_id}\n" in journal
    assert journal.count(", request ") == 2 * len(ids)


@pytest.mark.parametrize("app", ["hello", "older", "green"])
def test_what_flask_logs_has_it_too(host: Host, stage: Stage, app: str) -> None:
    release = stage(app, program=FLASK)
    identity = os.urandom(16).hex()
    host.run(command(app, release, "/", "--header", f"'X-Request-ID: {identity}'"))
    line, traceback = journal_of(host, app, release).split(f", request {identity}\n")
    assert line.endswith("ERROR in app: Exception on / [GET]")
    assert traceback.startswith("Traceback (most recent call last):\n")
    assert "RuntimeError: as asked" in traceback


NEEDY = """
from pathlib import Path
if not Path("/srv/older/shared/ready").exists():
    raise RuntimeError("broken on purpose")
"""


@pytest.mark.parametrize("cause", ["the app fails at import", "the program is missing"])
def test_what_is_broken_for_30_seconds_comes_back_by_itself(host: Host, stage: Stage, cause: str) -> None:
    fails = cause == "the app fails at import"
    host.check_output(f"{'rm -f' if fails else 'touch'} /srv/older/shared/ready")
    release = stage("older", program=PROGRAM + NEEDY)
    unit = f"flask-older@{release}"
    environment = f"/srv/older/releases/{release}/venv"
    if not fails:
        host.check_output(f"mv {environment} {environment}-away")
        host.check_output(f"systemctl kill --signal=SIGKILL {unit}.service")
    # People go on asking meanwhile, and every request would start the service.
    begun, restarts = time.monotonic(), 0
    count = f"systemctl show --property=NRestarts --value {unit}.service"
    before = int(host.check_output(count))
    while (took := time.monotonic() - begun) < 30 or (restarts <= 5 and took < 300):
        host.run(f"for _ in $(seq 10); do {command('older', release, '/', '--max-time 0.1')}; done")
        restarts = int(host.check_output(count)) - before
    assert restarts > 5, "more often than systemd would by itself"
    assert restarts <= (time.monotonic() - begun) / 2 + 1, "every two seconds, however many ask"
    if fails:
        assert "broken on purpose" in host.check_output(f"journalctl --unit={unit}.service --output=cat")
        host.check_output("touch /srv/older/shared/ready")
    else:
        host.check_output(f"mv {environment}-away {environment}")
    assert ask(host, "older", release)["greeting"] == "older"


def test_a_change_restarts_nothing_and_prints_no_secret(host: Host, stage: Stage) -> None:
    release = stage("hello")
    before = ask(host, "hello", release)["master"]
    # In a file, because ansible-playbook prints its own arguments.
    given = EPHEMERAL / "given.json"
    given.write_text(json.dumps({"given_secret": "another-s3cr3t"}))
    output = converge("-vvvvv", "--diff", "--extra-vars", f"@{given}")
    assert "/etc/flask/hello/environment: changes, its content is hidden" in output
    assert "s3cr3t" not in output
    assert host.check_output("journalctl --output=cat | grep -c another-s3cr3t || true") == "0"
    after = ask(host, "hello", release)
    assert (after["master"], after["environment"]["SECRET_KEY"]) == (before, 's3cr3t "k$y" \\ of hello')
    environment = host.file("/etc/flask/hello/environment")
    assert (environment.user, environment.group, environment.mode) == ("root", "root", 0o600)
    assert "another-s3cr3t" in environment.content_string
    converge()


def test_what_a_release_serves_is_settled_when_it_is_made(host: Host, stage: Stage) -> None:
    release = stage("older")
    converge("--extra-vars", json.dumps({"given_greeting": "newer"}))
    host.check_output(f"systemctl restart flask-older@{release}.service")
    assert ask(host, "older", release)["greeting"] == "older"
    assert ask(host, "older", stage("older"))["greeting"] == "newer"
    converge()


def test_a_unit_that_systemd_would_not_like_is_not_installed(host: Host) -> None:
    before = host.file("/etc/systemd/system/flask-hello@.service").sha256sum
    timeout = {"given_stop_timeout": -1}
    run = subprocess.run(
        [*COMMAND, "--extra-vars", json.dumps(timeout)], capture_output=True, text=True, check=False
    )
    assert run.returncode == 2
    assert "hello: /etc/systemd/system/flask-hello@.service was refused by" in run.stdout + run.stderr
    assert "TimeoutStopSec" in run.stdout + run.stderr
    assert host.file("/etc/systemd/system/flask-hello@.service").sha256sum == before
