"""Seconds as an operator sees them: first provisioning, a run with nothing to do, a deploy."""

from __future__ import annotations

import socket
import ssl
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.apps import DOMAIN, Inventory
from benchmarks.hosts import Host
from benchmarks.plays import ROOT, Play, PlayError, play

SITE = ROOT / "site.yml"
DEPLOY = ROOT / "playbooks" / "deploy.yml"
ROLL_BACK = ROOT / "playbooks" / "rollback.yml"
EMPTY = ROOT / "benchmarks" / "empty.yml"

LINGER = 6.0
"""Seconds until the host is quiet after a deploy: the replaced release lingers for 4 s, then stops."""

_UNTIL_ONE_RUNS = """
running() { systemctl list-units --plain --no-legend 'flask-hello@*.service'; }
until [ "$(running | wc -l)" = 1 ]; do sleep 0.1; done
"""


def first_provisioning(host: Host, inventory: Inventory) -> dict[str, Any]:
    """Provision a bare host; note when it first answers 200 over HTTPS, the certificate being checked."""
    authority = inventory.directory / ".tls" / "ca.pem"
    begin = time.monotonic()
    answered: list[float] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.1):
            if _answers(host.address, authority):
                answered.append(time.monotonic() - begin)
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        done = play(SITE, inventory.directory)
        watcher.join(timeout=10)
    finally:
        over.set()
    if not answered:
        raise PlayError(
            f"{host.name} gives no 200 over HTTPS 10 s after the end of site.yml:\n{done.output[-3000:]}"
        )
    return {"answer": answered[0], "play": done.seconds}


def code_deploys(host: Host, inventory: Inventory, rounds: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Run in turns: an empty playbook, a site.yml without changes, a deploy of one changed file, roll backs.

    A roll back is warm when what it goes back to still runs, and cold when that has to be started.
    """
    empty, no_op, deploy, warm, cold = [], [], [], [], []
    for number in range(1, rounds + 1):
        empty.append(play(EMPTY, inventory.directory).seconds)
        no_op.append(unchanged(play(SITE, inventory.directory)).seconds)
        inventory.change_sample_app(3 * number)
        deploy.append(changed(play(DEPLOY, inventory.directory)).seconds)
        warm.append(changed(play(ROLL_BACK, inventory.directory)).seconds)
        inventory.change_sample_app(3 * number + 1)
        changed(play(DEPLOY, inventory.directory))
        host.execute(_UNTIL_ONE_RUNS)
        cold.append(changed(play(ROLL_BACK, inventory.directory)).seconds)
        say(
            f"round {number}: empty {empty[-1]:.2f} s, no-op {no_op[-1]:.2f} s, deploy {deploy[-1]:.2f} s, "
            f"roll back {warm[-1]:.2f} s warm, {cold[-1]:.2f} s cold"
        )
        inventory.change_sample_app(3 * number + 2)  # what was rolled back is not deployed again
        changed(play(DEPLOY, inventory.directory))
        host.execute(_UNTIL_ONE_RUNS)
    return {
        "rounds": rounds,
        "empty": statistics.median(empty),
        "no_op": statistics.median(no_op),
        "deploy": statistics.median(deploy),
        "roll_back_warm": statistics.median(warm),
        "roll_back_cold": statistics.median(cold),
        "above": statistics.median(after - before for after, before in zip(deploy, empty, strict=True)),
    }


def no_ops(one: Inventory, many: Inventory, rounds: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Run site.yml in turns on a host of one app and on a host of many, with nothing to do on both."""
    alone, together = [], []
    for number in range(1, rounds + 1):
        alone.append(unchanged(play(SITE, one.directory)).seconds)
        together.append(unchanged(play(SITE, many.directory)).seconds)
        say(f"round {number}: no-op site.yml: one app {alone[-1]:.2f} s, many {together[-1]:.2f} s")
    ratios = [after / before for after, before in zip(together, alone, strict=True)]
    return {
        "rounds": rounds,
        "one": statistics.median(alone),
        "many": statistics.median(together),
        "ratio": statistics.median(ratios),
        "ratios": ratios,
    }


def unchanged(done: Play) -> Play:
    """Return the run if it changed nothing: another one is no no-op and must not be taken for one."""
    if done.changed:
        raise PlayError(f"a second site.yml changed something:\n{done.output[-6000:]}")
    return done


def changed(done: Play) -> Play:
    """Return the run if it changed something: a deploy that did nothing would look fast."""
    if not done.changed:
        raise PlayError(f"a deploy of changed code changed nothing:\n{done.output[-6000:]}")
    return done


def _answers(address: str, authority: Path) -> bool:
    """Whether the app says over HTTPS that it is healthy, with a certificate for its name."""
    if not authority.exists():
        return False
    try:
        context = ssl.create_default_context(cafile=str(authority))
        with (
            socket.create_connection((address, 443), timeout=2) as plain,
            context.wrap_socket(plain, server_hostname=DOMAIN) as connection,
        ):
            connection.sendall(
                f"GET /healthz HTTP/1.1\r\nHost: {DOMAIN}\r\nConnection: close\r\n\r\n".encode()
            )
            return connection.recv(64).startswith(b"HTTP/1.1 200 ")
    except OSError:
        return False
