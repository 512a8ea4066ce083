# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ask apps whether they answer, and restart those that do not.

A timer of the host runs this file every few seconds for all apps, so it is one process, imports little and
starts others only when an app does not answer. gunicorn ends a worker that stands still; a worker whose
requests all hang does not stand still, and this finds out.

What an app is asked is a file of the release that serves, so a new setting begins with the release that has
it. Whether an app is asked at all, `DECLARED` says, so one that was removed is left alone.
"""

from __future__ import annotations

import fcntl
import glob
import json
import os
import select
import signal
import socket
import sys
import threading
import time

DECLARED = "/etc/flask/*/liveness.conf"
STATE = "/run/flaskworks-liveness/state.json"
JOURNAL = "/run/systemd/journal/socket"
AGENT = "flaskworks-liveness"
LONGEST_WAIT = 3600.0  # seconds between two restarts of an app that never gets well
KNOWN = ("asked", "failed", "restarts", "again", "last")
"""What is remembered: when the release was asked last, how often in a row it has failed, how often it was
restarted, when that may happen again (all by `System.clock`), and when it was restarted last (of the day)."""
EARLY = 0.5  # seconds that a timer may be early, as seen from the last time


def request(origin: str, path: str, number: str, agent: str) -> bytes:
    """A probe: the headers that the proxy sends for a client who asks over HTTPS, and no others.

    The roles of the proxies set them; tests hold both sides together.

    Args:
        origin: scheme, host, port and prefix that visitors ask for.
        path: path and query.
        number: the id of the request.
        agent: who asks.
    """
    scheme, _, address = origin.partition("://")
    host, slash, prefix = address.partition("/")
    port = host.rpartition(":")[2] if ":" in host else {"http": "80", "https": "443"}[scheme]
    lines = (
        f"GET {path} HTTP/1.1",
        f"Host: {host}",
        "X-Forwarded-For: 127.0.0.1",
        f"X-Forwarded-Proto: {scheme}",
        f"X-Forwarded-Host: {host}",
        f"X-Forwarded-Port: {port}",
        "X-Real-IP: 127.0.0.1",
        f"X-Request-ID: {number}",
        f"User-Agent: {agent}",
        "Accept: */*",
        *([f"X-Forwarded-Prefix: /{prefix}"] if slash else []),
    )
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def read(path: str) -> dict[str, str]:
    """Return the settings in a file of lines like ``name = value``; none when it is not there."""
    try:
        with open(path, encoding="utf-8") as file:
            parts = [line.partition("=") for line in file if not line.startswith("#")]
    except OSError:
        return {}
    return {name.strip(): value.strip() for name, equals, value in parts if equals}


class System:
    """The outside of the host; tests put another one in its place."""

    def clock(self) -> float:
        """Seconds that never run backwards, as systemd counts them."""
        return time.monotonic()

    def ask(self, path: str, question: bytes, seconds: float) -> tuple[int | None, str]:
        """Send a request to a socket; the status of the answer, or None, and what came in words."""
        limit = self.clock() + seconds
        peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            peer.settimeout(seconds)  # a queue that is full refuses all the same
            peer.connect(path)
            peer.sendall(question)
            received = b""
            while b"\r\n" not in received:
                peer.settimeout(max(limit - self.clock(), 0.001))
                part = peer.recv(4096)
                if not part:
                    return None, "the connection was closed without an answer"
                received += part
        except TimeoutError:
            return None, f"no answer within {seconds:g} s"
        except OSError as error:
            return None, f"no connection ({error.strerror or error})"
        finally:
            peer.close()
        line = received.split(b"\r\n", 1)[0].decode("latin-1")
        fields = line.split(" ", 2)
        if len(fields) < 2 or not fields[0].startswith("HTTP/") or not fields[1].isdigit():
            return None, f"no answer of HTTP: {line[:80]}"
        return int(fields[1]), " ".join(fields[1:])

    def service(self, unit: str) -> tuple[bool, float, int]:
        """Whether a service runs, the moment (`clock`) of its start, and its main process."""
        import subprocess  # takes longer than all else, and is not needed when all is well

        wanted = "--property=ActiveState,ExecMainStartTimestampMonotonic,MainPID"
        shown = subprocess.run(
            ["systemctl", "show", wanted, unit], capture_output=True, text=True, check=False
        )
        told = dict(line.split("=", 1) for line in shown.stdout.splitlines() if "=" in line)
        started = int(told.get("ExecMainStartTimestampMonotonic") or 0) / 1_000_000
        return told.get("ActiveState") == "active", started, int(told.get("MainPID") or 0)

    def restart(self, unit: str, main: int, seconds: float) -> None:
        """Restart a service: what it answers may end for so long, then its main process is killed."""
        import subprocess

        try:
            handle = os.pidfd_open(main)  # whoever gets the number next is not meant
        except OSError:
            return  # it has ended meanwhile, and systemd starts it again
        try:
            done = subprocess.run(
                ["systemctl", "restart", "--no-block", unit], capture_output=True, text=True, check=False
            )
            if done.returncode:
                self.say(AGENT, f"{unit} could not be restarted: {done.stderr.strip()}")
            elif not select.select([handle], [], [], seconds)[0]:
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        except ProcessLookupError:
            pass  # it has just ended by itself
        finally:
            os.close(handle)

    def say(self, identifier: str, text: str) -> None:
        """Put a line into the journal, where the app's own are."""
        message = f"SYSLOG_IDENTIFIER={identifier}\nPRIORITY=4\nMESSAGE={text}\n"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
            try:
                journal.sendto(message.encode(), JOURNAL)
            except OSError:
                print(f"{identifier}: {text}", file=sys.stderr)


class State:
    """What is remembered of every app from one run to the next; forgotten at boot."""

    def __init__(self, path: str, names: set[str]) -> None:
        self.path, self.guard = path, threading.Lock()
        self.apps: dict[str, dict[str, dict[str, float]]] = {}
        try:
            with open(path, encoding="utf-8") as file:
                found = json.load(file)
            self.apps = {name: one for name, one in found.items() if name in names}
        except (OSError, ValueError):
            pass

    def of(self, name: str, release: str) -> dict[str, float]:
        """What is known of a release; another one begins anew."""
        return self.apps.get(name, {}).get(release) or dict.fromkeys(KNOWN, 0.0)

    def keep(self, name: str, release: str, known: dict[str, float]) -> None:
        """Remember what is known of a release, and forget the app's others."""
        with self.guard:
            self.apps[name] = {release: known}
            partial = f"{self.path}.partial"
            with open(partial, "w", encoding="utf-8") as file:
                json.dump(self.apps, file)
            os.rename(partial, self.path)


def check(system: System, state: State, name: str, home: str) -> None:
    """Ask one app, and restart it when it has failed too often.

    Args:
        system: the outside.
        state: what is remembered.
        name: the app.
        home: its directory, which holds ``current``.
    """
    place = os.path.realpath(os.path.join(home, "current"))
    release = os.path.basename(place)
    settings = read(os.path.join(place, "liveness.conf"))
    if not settings:
        return  # nothing serves, or a release from before this was asked for
    known, now = state.of(name, release), system.clock()
    if now < known["asked"] + int(settings["interval"]) - EARLY:
        return
    unit, seconds = settings["unit"], float(settings["timeout"])
    question = request(settings["origin"], settings["path"], os.urandom(16).hex(), AGENT)
    status, text = system.ask(os.path.join(place, "gunicorn.sock"), question, seconds)
    known["asked"] = now
    if status == int(settings["status"]):
        if known["failed"]:
            system.say(unit, f"{release} answers {settings['path']} again")
        known["failed"] = 0
        if now >= known["again"]:
            known["restarts"] = 0
        state.keep(name, release, known)
        return
    service = f"{unit}@{release}.service"
    active, started, main = system.service(service)
    if not active or system.clock() - started < float(settings["start"]):
        known["failed"] = 0  # systemd has it in hand, or somebody has stopped it
        state.keep(name, release, known)
        return
    known["failed"] += 1
    often = int(settings["failures"])
    if known["failed"] <= often:
        system.say(
            unit,
            f"{release} does not answer {settings['path']} as it should ({settings['status']}): {text}; "
            f"failure {known['failed']:g} of {often}",
        )
    state.keep(name, release, known)
    if known["failed"] >= often and system.clock() >= known["again"]:
        _restart(system, state, name, home, settings, service, main)


def _restart(
    system: System,
    state: State,
    name: str,
    home: str,
    settings: dict[str, str],
    service: str,
    main: int,
) -> None:
    """Restart an app, unless a deploy is at work on it: it holds the lock, and ends what does not answer."""
    unit, release = settings["unit"], service.partition("@")[2].removesuffix(".service")
    try:
        lock = os.open(os.path.join(home, ".lock"), os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return  # never deployed
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        if os.path.basename(os.path.realpath(os.path.join(home, "current"))) != release:
            return
        known = state.of(name, release)
        known["restarts"] += 1
        # As long as it takes to find out once more, then twice as long, and so on.
        least = float(settings["start"]) + int(settings["failures"]) * int(settings["interval"])
        wait = min(least * 2 ** min(known["restarts"] - 1, 20), LONGEST_WAIT)
        known["failed"], known["again"], known["last"] = 0, system.clock() + wait, time.time()
        state.keep(name, release, known)
        holder = {"who": AGENT, "what": "restart", "since": _utc(time.time()), "pid": os.getpid()}
        os.ftruncate(lock, 0)
        os.pwrite(lock, json.dumps(holder).encode(), 0)
        system.say(
            unit,
            f"{release} is restarted, since it did not answer {settings['path']} "
            f"{settings['failures']} times in a row; "
            f"restart {known['restarts']:g}, the next one not within {wait:g} s",
        )
        system.restart(service, main, float(settings["timeout"]))
        os.ftruncate(lock, 0)
    finally:
        os.close(lock)


def _utc(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


def main(system: System, declared: str = DECLARED, remembered: str = STATE) -> None:
    """Ask all apps at once."""
    apps = {}
    for path in glob.glob(declared):
        settings = read(path)
        if settings:
            apps[settings["name"]] = settings["home"]
    state = State(remembered, set(apps))
    threads = [threading.Thread(target=check, args=(system, state, *app)) for app in apps.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main(System())
