# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Let a proxy serve, and take over from another one that does, with as short a gap as two daemons allow.

Two daemons cannot listen on one port, so there is a gap: from the moment when the old one closes its
listening sockets until the new one has opened them. The order of events keeps it short and never ends with
nothing:

1. *check*: the new one accepts its configuration, and what the sites answer through the old one is noted;
2. *guard*: a unit of its own waits for the end of this process, and starts the old one if nothing serves
   then;
3. *release*: the old one closes its listening sockets and goes on with what it has begun (nginx(8) QUIT,
   httpd(8) WINCH); a proxy that is not ours is simply stopped;
4. *start*: the new one starts as soon as the ports are free, and not when the old one has ended;
5. *ask*: every site is asked through the new one. When it does not answer, or worse than before, the new one
   stops and the old one starts again;
6. *settle*: the new one is enabled for boot, the old one disabled, and stopped if it has not ended by then.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from . import listeners
from .key_pairs import leaf_in
from .listeners import PROXIES, Listener
from .pending_apply import run_command

RELEASE_PATIENCE = 5.0
"""Seconds in which a proxy that was told so closes its listening sockets; it takes milliseconds."""

START_PATIENCE = 15.0
"""Seconds in which a proxy has started. systemd alone would wait for 90, with nothing serving."""

RELOAD_PATIENCE = 10.0
"""Seconds after which a reloaded proxy listens on its new ports."""

ANSWER_PATIENCE = 5.0
"""Seconds in which a site answers; one whose app takes longer counts as one that answers late."""

DRAIN_PATIENCE = 10.0
"""Seconds for requests that the old proxy has begun. They cost no gap: the new one serves by then."""

LOCK = "/run/flaskworks-handover.lock"

_RELEASES: Mapping[str, signal.Signals] = {
    "nginx.service": signal.SIGQUIT,
    "apache2.service": signal.SIGWINCH,
}
_RENEWALS: Mapping[str, str] = {"apache2.service": "restart"}
"""How a proxy gets a new port, where a reload is not enough: mod_qos learns of its limits at a start only."""

_GUARD = """\
while kill -0 "$1" 2>/dev/null; do sleep 0.2; done
shift
new=$1
shift
systemctl is-active --quiet "$new" || { systemctl stop "$new"; systemctl restart "$@"; }
"""
_ENABLED = frozenset({"enabled", "enabled-runtime", "generated", "linked", "alias"})
_NO_ANSWER_IN_TIME = "no answer in time"
_SHUT = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE)


class HandoverError(Exception):
    """A sentence for the operator: what happened, what serves now, and the way out."""


@dataclass(frozen=True)
class Site:
    """What is asked of a site.

    Attributes:
        host: Its canonical domain.
        http_port: Where it answers over plain HTTP.
        https_port: Where it answers over HTTPS.
        fullchain: File with the certificate that it has to show.
    """

    host: str
    http_port: int
    https_port: int
    fullchain: str


@dataclass(frozen=True)
class Request:
    """Which unit is to serve which sites on which ports, and what it has to accept before it starts."""

    unit: str
    ports: tuple[int, ...]
    sites: tuple[Site, ...] = ()
    check: tuple[str, ...] = ()
    take_over: bool = False


@dataclass(frozen=True)
class Unit:
    """What the service manager says of a unit."""

    name: str
    active: bool = False
    ended: bool = True
    enabled: bool = False
    main: int = 0


@dataclass(frozen=True)
class Answer:
    """A status, or in words why there is none."""

    status: int | None
    fault: str = ""

    def __str__(self) -> str:
        return self.fault or f"status {self.status}"


@dataclass
class Outcome:
    """What was done.

    Attributes:
        started: Whether the unit was started.
        enabled: Whether it was enabled for boot.
        stopped: The units that were stopped or disabled.
        gap: Seconds in which nobody listened; None when nobody had to stop.
        told: How that went, in words.
        warnings: What was done to others, in words.
    """

    started: bool = False
    enabled: bool = False
    stopped: list[str] = field(default_factory=list)
    gap: float | None = None
    told: str = ""
    warnings: list[str] = field(default_factory=list)

    @property
    def changed(self) -> bool:
        return self.started or self.enabled or bool(self.stopped)


class Host:
    """The real host. Tests put another one in its place."""

    def clock(self) -> float:
        """Seconds that never run backwards."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def run(self, *command: str, patience: float | None = None) -> tuple[int, str]:
        """As `run_command`."""
        return run_command(command, patience)

    def units(self, names: Sequence[str]) -> dict[str, Unit]:
        """What the service manager says of some units."""
        shown = listeners.ask(
            [
                *("systemctl", "show", "--no-pager"),
                "--property=ActiveState,UnitFileState,MainPID",
                *("--", *names),
            ]
        )
        found = {}
        for name, block in zip(names, shown.strip().split("\n\n"), strict=False):
            values = dict(line.partition("=")[::2] for line in block.splitlines())
            state = values.get("ActiveState")
            found[name] = Unit(
                name,
                active=state in ("active", "reloading"),
                ended=state in ("inactive", "failed"),
                enabled=values.get("UnitFileState") in _ENABLED,
                main=int(values.get("MainPID") or 0),
            )
        return found

    def is_ours(self, unit: str) -> bool:
        return listeners.is_ours(unit)

    def holders(self, ports: Sequence[int]) -> list[Listener]:
        return listeners.holders(ports)

    def packaged(self, found: Sequence[Listener]) -> list[Listener]:
        return listeners.packaged(found)

    def taken(self, ports: Sequence[int]) -> set[int]:
        """On which of the ports somebody listens; much quicker than to ask who."""
        return {port for port, _address in listeners.taken(ports).values()}

    def signal(self, pid: int, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    def journal(self, unit: str) -> str:
        """The last lines of a unit's journal."""
        return self.run("journalctl", f"--unit={unit}", "--lines=8", "--no-pager", "--output=cat")[1]

    def ask(self, site: Site, tls: bool) -> Answer:
        """Ask this machine for the first page of a site; over TLS the certificate is compared, too."""
        return _ask(site, tls)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keep others out, and signals of a connection that ends."""
        with open(LOCK, "a", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            before = {number: signal.signal(number, signal.SIG_IGN) for number in _SHUT}
            try:
                yield
            finally:
                for number, handler in before.items():
                    signal.signal(number, handler)


def hand_over(host: Host, request: Request, check_mode: bool = False) -> Outcome:
    """Let the unit serve, alone, now and at every boot. Does nothing when it does.

    Raises:
        HandoverError: when it does not serve. Who served before does again, as the sentence says.
    """
    if check_mode:
        return _Handover(host, request).foresee()
    with host.alone():
        return _Handover(host, request).carry_out()


class _Handover:
    """One handover, and what it knows of the host."""

    def __init__(self, host: Host, request: Request) -> None:
        self.host, self.request = host, request
        self.outcome = Outcome()
        rivals = [name for name in PROXIES if name != request.unit and host.is_ours(name)]
        units = host.units([request.unit, *rivals])
        self.unit = units[request.unit]
        self.rivals = [units[name] for name in rivals if units[name].enabled or not units[name].ended]
        self.old = [one.name for one in self.rivals if not one.ended]
        self.taken_over: list[Listener] = []

    def foresee(self) -> Outcome:
        """What `carry_out` would do."""
        self._look_for_strangers()
        self.outcome.started = not self.unit.active
        self.outcome.enabled = not self.unit.enabled
        self.outcome.stopped = self._losers()
        return self.outcome

    def carry_out(self) -> Outcome:
        request, outcome = self.request, self.outcome
        if self.unit.active and not self.old and self._listens_everywhere():
            self._settle()
            return outcome
        self._look_for_strangers()
        if self.unit.active:
            self._take_ports()
        else:
            self._check()
            self._replace() if self.old else self._start_alone()
            outcome.started = True
        for name in dict.fromkeys(one.unit for one in self.taken_over):
            held = listeners.held([one for one in self.taken_over if one.unit == name])
            outcome.warnings.append(
                f"{held}: {name} was stopped and disabled, because flask_ports_conflict is take_over; "
                f"'systemctl enable --now {name}' takes that back"
            )
        if outcome.gap is not None:
            outcome.told = (
                f"{request.unit} took over from {' and '.join(self.old)} within {outcome.gap:.2f} s"
            )
        self._settle()
        return outcome

    def _losers(self) -> list[str]:
        return list(dict.fromkeys([*(one.name for one in self.rivals), *self.old]))

    def _look_for_strangers(self) -> None:
        """Whoever holds a port and may be stopped joins the old ones; for all others this ends here."""
        found = self.host.packaged(self._strangers())
        refusal = listeners.refusal(
            found, self.request.unit, self.request.take_over, "nothing was stopped or started"
        )
        if refusal:
            raise HandoverError(refusal)
        self.taken_over = found
        self.old += dict.fromkeys(one.unit for one in found)

    def _strangers(self) -> list[Listener]:
        holders = self.host.holders(self.request.ports)
        return listeners.strangers(holders, self.request.unit, self.host.is_ours)

    def _missing(self) -> list[int]:
        holders = self.host.holders(self.request.ports)
        mine = {one.port for one in holders if one.unit == self.request.unit}
        return [port for port in self.request.ports if port not in mine]

    def _listens_everywhere(self) -> bool:
        """Whether the unit holds all its ports, alone; one that was just reloaded may need a moment.

        A port may have two owners, one for each family of addresses.
        """
        if self._strangers():
            return False
        return not self._missing() or self._until(lambda: not self._missing(), RELOAD_PATIENCE)

    def _check(self) -> None:
        if self.request.check:
            code, said = self.host.run(*self.request.check)
            if code:
                raise HandoverError(
                    f"{self.request.unit} was not started, because '{self.request.check[0]}' refuses its "
                    f"configuration (exit code {code}); {self._still()}:\n{said or '(no output)'}"
                )

    def _still(self) -> str:
        return f"{' and '.join(self.old)} still serves" if self.old else "nothing was stopped"

    def _start_alone(self) -> None:
        """Nobody has to make room."""
        reason = self._start()
        if reason:
            raise HandoverError(f"{self.request.unit} does not start: {reason}")

    def _replace(self) -> None:
        """Stop the old ones and start the new one; or the other way round, when that fails."""
        before = self._answers() if self._known_sites() else {}
        with self._guarded():
            begun = self.host.clock()
            reason = self._release() or self._start() or self._worse(before, begun)
            if reason:
                raise HandoverError(self._bring_back(reason))

    def _known_sites(self) -> bool:
        """Only another proxy of ours serves the same sites."""
        return any(self.host.is_ours(name) for name in self.old)

    def _take_ports(self) -> None:
        """The unit runs, and has not got a port that it was given since; somebody else may hold it."""
        host, request = self.host, self.request
        if self.old:
            with self._guarded():
                reason = self._release() or self._renew()
                if reason:
                    host.run("systemctl", "start", *self.old)
                    raise HandoverError(
                        f"{request.unit} could not take over from {' and '.join(self.old)}: {reason}; "
                        f"{' and '.join(self.old)} was started again, correct that and run again"
                    )
        elif self._missing() and self._renew():
            raise HandoverError(
                f"{request.unit} runs and does not listen on port {', '.join(map(str, self._missing()))}; "
                f"'journalctl -u {request.unit}' on the host says why, correct that and run again"
            )

    def _renew(self) -> str:
        """Have the running unit listen on all its ports; why it does not, if so."""
        self.host.run("systemctl", _RENEWALS.get(self.request.unit, "reload"), self.request.unit)
        if self._until(lambda: not self._missing(), RELOAD_PATIENCE):
            return ""
        return f"it does not listen on port {', '.join(map(str, self._missing()))}"

    def _release(self) -> str:
        """Have the old ones let go of the ports; why they do not, if so."""
        units = self.host.units(self.old)
        holders = self.host.holders(self.request.ports)
        # What the new one holds as well, for other addresses, never becomes free.
        shared = {one.port for one in holders if one.unit == self.request.unit}
        held = [one.port for one in holders if one.unit in self.old and one.port not in shared]
        for name in self.old:
            if name in _RELEASES and units[name].main:
                self.host.signal(units[name].main, _RELEASES[name])
        foreign = [name for name in self.old if not (name in _RELEASES and units[name].main)]
        if foreign:
            self.host.run("systemctl", "stop", *foreign)
        if self._until(lambda: not self.host.taken(held), RELEASE_PATIENCE):
            return ""
        self.host.run("systemctl", "stop", *self.old)
        if self._until(lambda: not self.host.taken(held), RELEASE_PATIENCE):
            return ""
        return f"{' and '.join(self.old)} does not let go of port {', '.join(map(str, held))}"

    def _start(self) -> str:
        """Start the new one; why that failed, if so."""
        unit = self.request.unit
        self.host.run("systemctl", "reset-failed", unit)
        code, said = self.host.run("systemctl", "start", unit, patience=START_PATIENCE)
        if code == 0 and self.host.units([unit])[unit].active:
            return ""
        return f"{said or 'it ended at once'}\n{self.host.journal(unit)}"

    def _answers(self) -> dict[tuple[Site, bool], Answer]:
        asked = [(site, tls) for site in self.request.sites for tls in (False, True)]
        with ThreadPoolExecutor(max_workers=16) as pool:
            return dict(zip(asked, pool.map(lambda one: self.host.ask(*one), asked), strict=True))

    def _worse(self, before: Mapping[tuple[Site, bool], Answer], begun: float) -> str:
        """Which site does not answer as well as before, if any; notes the gap."""
        wanted = set(self.request.ports)
        if not self._until(lambda: self.host.taken(self.request.ports) == wanted, RELEASE_PATIENCE):
            missing = sorted(wanted - self.host.taken(self.request.ports))
            return f"it does not listen on port {', '.join(map(str, missing))}"
        self.outcome.gap = self.host.clock() - begun
        problems = [
            f"{'https' if tls else 'http'}://{site.host}/ gives {answer}"
            + (f", and gave {before[site, tls]} before" if (site, tls) in before else "")
            for (site, tls), answer in self._answers().items()
            if not good(answer, before.get((site, tls)))
        ]
        return "; ".join(problems)

    def _bring_back(self, reason: str) -> str:
        """Let the old ones serve again; the sentence about it."""
        unit, old = self.request.unit, " and ".join(self.old)
        self.host.run("systemctl", "stop", unit)
        # One that still finishes requests counts as running, and would not be started by "start".
        self.host.run("systemctl", "stop", *self.old)
        self.host.run("systemctl", "reset-failed", *self.old)
        _code, said = self.host.run("systemctl", "start", *self.old, patience=START_PATIENCE)
        units = self.host.units(self.old)
        failed = f"{unit} could not take over from {old}: {reason}\n"
        if all(one.active for one in units.values()):
            return f"{failed}{old} serves again as before and {unit} is stopped; correct that and run again"
        return (
            f"{failed}{old} could not be started again either: {said}. Nothing serves the sites of this "
            f"host; 'systemctl restart {' '.join(self.old)}' on the host begins anew"
        )

    def _settle(self) -> None:
        """What a reboot finds is what serves now."""
        unit, outcome = self.request.unit, self.outcome
        outcome.stopped = self._losers()
        if not self.unit.enabled:
            code, said = self.host.run("systemctl", "enable", unit)
            if code:
                raise HandoverError(f"{unit} serves, but cannot be enabled for the next boot: {said}")
            outcome.enabled = True
        losers = self.host.units(outcome.stopped) if outcome.stopped else {}
        disabled = [name for name, one in losers.items() if one.enabled]
        if disabled:
            code, said = self.host.run("systemctl", "disable", *disabled)
            if code:
                raise HandoverError(
                    f"{unit} serves, but {' and '.join(disabled)} cannot be disabled for the next boot: "
                    f"{said}"
                )
        if self.old and not self._until(self._drained, DRAIN_PATIENCE):
            self.host.run("systemctl", "stop", *self.old)

    def _drained(self) -> bool:
        return all(one.ended for one in self.host.units(self.old).values())

    def _until(self, question: Callable[[], bool], patience: float) -> bool:
        """Whether a question is answered with yes in time."""
        end = self.host.clock() + patience
        while not question():
            if self.host.clock() >= end:
                return False
            self.host.sleep(0.01)
        return True

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        """A process of systemd looks after the host, should this one be killed in between."""
        guard = f"flaskworks-handover-{os.getpid()}.service"
        code, said = self.host.run(
            *("systemd-run", "--quiet", "--collect", f"--unit={guard}"),
            *("sh", "-c", _GUARD, "sh", str(os.getpid()), self.request.unit, *self.old),
        )
        if code:
            raise HandoverError(
                f"systemd-run does not work on this host, so nothing was stopped or started: {said}"
            )
        try:
            yield
        finally:
            self.host.run("systemctl", "stop", guard)


def good(answer: Answer, before: Answer | None) -> bool:
    """Whether an answer of the new proxy is as good as what the old one gave; None when none is known.

    An app that is down or slow is no fault of the proxy, so a bad answer counts only after a better one.
    """
    if answer.fault == _NO_ANSWER_IN_TIME:
        return before is None or before.status is None
    if answer.status is None or answer.status == 421:
        return False
    if before is None or before.status is None or before.status >= 500:
        return True
    if before.status >= 400:  # the app has no first page, or not for everybody; but it was there
        return answer.status not in (502, 503, 504)
    return answer.status < 400 or answer.status == 429


def _ask(site: Site, tls: bool) -> Answer:
    port = site.https_port if tls else site.http_port
    asked = (
        f"HEAD / HTTP/1.1\r\nHost: {site.host}\r\nUser-Agent: flaskworks-handover\r\n"
        "Connection: close\r\n\r\n"
    )
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=ANSWER_PATIENCE) as plain:
            if not tls:
                return _exchange(plain, asked)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            # Whom clients trust is theirs to say; here the certificate must be the one in the file.
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            with context.wrap_socket(plain, server_hostname=site.host) as secure:
                shown, wanted = secure.getpeercert(binary_form=True), leaf_in(site.fullchain)
                if wanted and shown != wanted:
                    return Answer(None, f"another certificate than {site.fullchain}")
                return _exchange(secure, asked)
    except TimeoutError:
        return Answer(None, _NO_ANSWER_IN_TIME)
    except ssl.SSLError as error:
        if "CERTIFICATE_REQUIRED" in str(error).upper().replace(" ", "_"):
            return Answer(400)  # a site for clients with certificates; nginx says so with this status
        return Answer(None, f"no TLS ({error.reason or error})")
    except OSError as error:
        return Answer(None, f"no answer ({error.strerror or error})")


def _exchange(connection: socket.socket, asked: str) -> Answer:
    connection.sendall(asked.encode())
    received = b""
    while b"\n" not in received:
        part = connection.recv(4096)
        if not part:
            return Answer(None, "the end of the connection")
        received += part
    words = received.split(b"\r\n", 1)[0].split()
    if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
        return Answer(None, "something that is not HTTP")
    return Answer(int(words[1]))
