"""Deploys of changed code and with nothing to do, on one host and on four, beside other ways to deploy."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.apps import KEY, Inventory
from benchmarks.hosts import Host
from benchmarks.plays import Play, PlayError, play
from benchmarks.seconds import DEPLOY, EMPTY, LINGER, SITE, changed, unchanged

HOSTS = 4
SIZES = (1, HOSTS)
KINDS = ("deploy", "no_op")
HERE = Path(__file__).resolve().parent

REST = 1.0
"""Seconds of quiet after every run, once the app answers; a replaced release of ours takes longer to go."""

# What the peers expect of a host and do not see to themselves.
_PREPARE = """
set -e
export DEBIAN_FRONTEND=noninteractive
apt-get -q update
apt-get -q install --yes --no-install-recommends rsync python3-venv python3-packaging
install -d -o www-data -g www-data /srv/ansistrano /srv/ansistrano/data
cat > /etc/systemd/system/ansistrano.service
systemctl daemon-reload
systemctl -q enable ansistrano
"""

# Waits until what was shipped answers, so that no way to deploy is measured while another one's workers boot.
_ANSWERS = """
set -e
ask='import urllib.request; urllib.request.urlopen("http://127.0.0.1:{port}/healthz", timeout=5)'
until python3 -c "$ask" 2>/dev/null
do
    test $((waited = waited + 1)) -lt 300
    sleep 0.2
done
"""


@dataclass(frozen=True)
class Way:
    """One way to deploy."""

    name: str
    playbook: Path
    code: str
    """Where on a host the code is that it has shipped."""
    port: int | None
    """Where its app answers; none for ours, whose play does not end before the app has answered."""
    idempotent: bool


OURS = Way("ours", DEPLOY, "/srv/hello/current/src", None, True)
TUTORIAL = Way("tutorial", HERE / "tutorial" / "deploy.yml", "/srv/tutorial", 8000, True)
ANSISTRANO = Way("ansistrano", HERE / "ansistrano" / "playbook.yml", "/srv/ansistrano/current", 8001, False)


class Fleet:
    """Hosts that all ways deploy to, and the inventory that they share."""

    def __init__(self, hosts: Sequence[Host], directory: Path, ansistrano: Path | None) -> None:
        self.hosts = hosts
        settings = {
            "deploy_source": str(directory / "deploys-sources" / "hello"),
            "deploy_ansistrano": str(ansistrano or ""),
            "tutorial_secret_key": KEY,
        }
        self.inventory = Inventory(
            directory / "deploys", *({**host.inventory(), **settings} for host in hosts)
        )
        self.inventory.describe_sample_app()
        self._revision = 0

    def change(self) -> None:
        """Change one line of the code that all ways ship."""
        self._revision += 1
        self.inventory.change_sample_app(self._revision)

    def run(self, way: Way, number: int) -> Play:
        """Deploy to so many hosts, and see that the code has arrived and answers.

        Raises:
            PlayError: when the playbook fails, or another revision than the last one is there.
        """
        hosts = self.hosts[:number]
        done = play(way.playbook, self.inventory.directory, limit="bench" if number == 1 else "")
        for host in hosts:
            found = host.execute(f"cat {way.code}/src/hello/revision.py").strip()
            if found != f"REVISION = {self._revision}":
                raise PlayError(f"{way.name} left {found!r} on {host.name}, not revision {self._revision}")
            if way.port is not None:
                host.execute(_ANSWERS.format(port=way.port))
        time.sleep(LINGER if way is OURS and done.changed else REST)
        return done


def prepare(hosts: Sequence[Host]) -> None:
    """Install on every host what Ansistrano and the tutorial's playbook need there."""
    for host in hosts:
        host.execute(_PREPARE, text=(HERE / "ansistrano" / "ansistrano.service").read_text())


def measure(
    hosts: Sequence[Host], directory: Path, ansistrano: Path | None, rounds: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """Deploy in turns; which way comes first changes from round to round."""
    prepare(hosts)
    fleet = Fleet(hosts, directory, ansistrano)
    ways = [OURS, TUTORIAL] if ansistrano is None else [OURS, ANSISTRANO, TUTORIAL]
    fleet.change()
    say(f"{len(hosts)} bare hosts are up; shipping the first release in each way")
    play(SITE, fleet.inventory.directory)
    for way in ways:
        fleet.run(way, len(hosts))
    taken: dict[int, dict[str, dict[str, list[float]]]] = {
        size: {kind: {name: [] for name in ("empty", *(way.name for way in ways))} for kind in KINDS}
        for size in SIZES
    }
    for number in range(rounds):
        order = ways[number % len(ways) :] + ways[: number % len(ways)]
        for size in SIZES:
            for kind in KINDS:
                _one_turn(fleet, order, size, kind, taken[size][kind])
                seconds = ", ".join(f"{name} {each[-1]:.2f} s" for name, each in taken[size][kind].items())
                say(f"round {number + 1}: {kind.replace('_', '-')} on {size}: {seconds}")
    return {
        "rounds": rounds,
        "ansistrano": _version(ansistrano) if ansistrano else None,
        "sizes": [{"hosts": size, **{kind: _summary(taken[size][kind]) for kind in KINDS}} for size in SIZES],
    }


def _one_turn(
    fleet: Fleet, ways: Sequence[Way], size: int, kind: str, taken: Mapping[str, list[float]]
) -> None:
    if kind == "deploy":
        fleet.change()
    limit = "bench" if size == 1 else ""
    taken["empty"].append(play(EMPTY, fleet.inventory.directory, limit=limit).seconds)
    for way in ways:
        done = fleet.run(way, size)
        if kind == "deploy":
            changed(done)
        elif way.idempotent:
            unchanged(done)
        taken[way.name].append(done.seconds)


def _summary(taken: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Medians of the seconds, and of ours as a share of each peer's in the same round."""
    ratios = {
        name: [ours / theirs for ours, theirs in zip(taken["ours"], seconds, strict=True)]
        for name, seconds in taken.items()
        if name in (ANSISTRANO.name, TUTORIAL.name)
    }
    return {
        "seconds": {name: statistics.median(seconds) for name, seconds in taken.items()},
        "ratio": {name: statistics.median(each) for name, each in ratios.items()},
        "ratios": ratios,
    }


def _version(path: Path) -> str:
    """What is measured against: the commit of the clone."""
    done = subprocess.run(
        ["git", "-C", str(path), "describe", "--always", "--tags"],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or "of unknown version"
