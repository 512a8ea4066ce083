"""The generator: a thread with an event loop in which every client is a task."""

from __future__ import annotations

import asyncio
import gc
import itertools
import math
import ssl
import threading
import time
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from tests.load.client import Answer, Connection, FailedError, Pace, StaleError
from tests.load.kinds import BLOCK, KINDS, Kind
from tests.load.records import Record, Retirement, Stall, Verdict, judge, nominals

PING = 0.05
"""Seconds between two questions to the control."""

UNNOTICED = 0.02
"""Seconds by which a question to the control may be late without being noted."""


@dataclass(frozen=True)
class Target:
    """A host under load.

    Attributes:
        name: by which its requests are counted.
        address: where to connect to.
        host: the name that requests, the handshake and the certificate have.
        port: of HTTP or HTTPS.
        authority: a file of certificates that sign the host's one; None is plain HTTP.
        control: the port on which echo.py listens on that host; None measures the generator's stalls only.
    """

    name: str
    address: str
    host: str
    port: int = 443
    authority: str | None = None
    control: int | None = None


@dataclass(frozen=True)
class Mark:
    """A moment of a run: from here on it is counted."""

    time: float
    index: int


class Load:
    """Keeps all targets under load from `with` to its end, and counts.

    All methods may be called from any thread; times are those of `time.monotonic`.
    """

    def __init__(self, targets: Sequence[Target], kinds: Sequence[Kind] = KINDS) -> None:
        self.targets = tuple(targets)
        self.kinds = tuple(kinds)
        self._records: list[Record] = []
        self._stalls: list[Stall] = []
        self._retired: list[Retirement] = []
        self._nominal: dict[tuple[str, str], float] = {}
        self._checksums = {kind.name: kind.checksum() for kind in self.kinds}
        self._changed = threading.Condition()
        self._ending = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="load", daemon=True)

    def __enter__(self) -> Self:
        gc.collect()
        gc.freeze()  # what is there already need not be looked through while requests are measured
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Start no more requests and wait for those that are open, the large transfers too."""
        self._ending.set()
        self._thread.join()
        gc.unfreeze()
        if self._error is not None:
            raise RuntimeError("the load generator itself failed") from self._error

    def mark(self) -> Mark:
        """Return this moment."""
        with self._changed:
            return Mark(time.monotonic(), len(self._records))

    def wait(
        self,
        counts: Mapping[str, int],
        since: Mark,
        *,
        release: str | None = None,
        targets: Sequence[str] = (),
        limit: float = 300.0,
    ) -> None:
        """Wait until so many requests of each kind that began after `since` were answered, at every target.

        With `release`, only those that it answered count. `targets` are names; all when none is given.

        Raises:
            TimeoutError: after `limit` seconds, with the counts and the last faults.
        """
        names = tuple(targets) or tuple(target.name for target in self.targets)
        end = time.monotonic() + limit
        while True:
            done = self.answered(since, release)
            missing = {
                (name, kind): f"{done[name, kind]} of {count}"
                for name in names
                for kind, count in counts.items()
                if done[name, kind] < count
            }
            if not missing:
                return
            if time.monotonic() > end or not self._thread.is_alive():
                told = self.verdict(since).explain(10)
                raise TimeoutError(f"not enough answers of {release or 'any release'}: {missing}\n{told}")
            time.sleep(0.1)

    def answered(self, since: Mark, release: str | None = None) -> Counter[tuple[str, str]]:
        """Return the number of good answers to requests that began after `since`, by target and kind."""
        with self._changed:
            recent = self._records[since.index :]
        return Counter(
            (record.target, record.kind)
            for record in recent
            if record.start >= since.time
            and record.outcome == "ok"
            and (release is None or record.release == release)
        )

    def settle(self) -> None:
        """Take what was measured until now as nominal: no switch has happened yet."""
        with self._changed:
            self._nominal = nominals(self._records)

    def retire(self, release: str, after: float, targets: Sequence[str] = ()) -> None:
        """From `after` seconds on, an answer of this release to a new request is stale."""
        names = tuple(targets) or tuple(target.name for target in self.targets)
        since = time.monotonic() + after
        with self._changed:
            self._retired += [Retirement(name, release, since, math.inf) for name in names]

    def welcome(self, release: str) -> None:
        """This release may answer again, as after a roll back; call it before."""
        now = time.monotonic()
        with self._changed:
            self._retired = [
                Retirement(gone.target, gone.release, gone.since, min(gone.until, now))
                if gone.release == release
                else gone
                for gone in self._retired
            ]

    def records(self, since: Mark | None = None, until: Mark | None = None) -> list[Record]:
        """Return the requests that began between two marks, in the order of their ends."""
        begin = since.time if since else -math.inf
        end = until.time if until else math.inf
        with self._changed:
            return [record for record in self._records if begin <= record.start < end]

    def verdict(self, since: Mark | None = None, until: Mark | None = None) -> Verdict:
        """Judge the requests that began between two marks."""
        with self._changed:
            nominal, stalls, retired = dict(self._nominal), list(self._stalls), list(self._retired)
        return judge(self.records(since, until), nominal, stalls, retired)

    def _work(self) -> None:
        try:
            asyncio.run(self._run())
        except BaseException as error:  # noqa: BLE001  # told by stop(), in the thread of the test
            self._error = error

    async def _run(self) -> None:
        clients, controls = [], []
        for target in self.targets:
            tls = _tls(target)
            controls.append(asyncio.create_task(self._watch(target)))
            for kind in self.kinds:
                for number in range(kind.clients):
                    begin = kind.period * number / kind.clients
                    clients.append(asyncio.create_task(self._client(target, kind, tls, begin)))
        try:
            await asyncio.gather(*clients)
        finally:
            for control in controls:
                control.cancel()
            await asyncio.gather(*controls, return_exceptions=True)

    async def _client(self, target: Target, kind: Kind, tls: ssl.SSLContext | None, begin: float) -> None:
        connection: Connection | None = None
        due = time.monotonic() + begin
        for number in itertools.count():
            while not self._ending.is_set() and (early := due - time.monotonic()) > 0:
                await asyncio.sleep(min(early, 0.5))
            if self._ending.is_set():
                break
            due = max(due, time.monotonic() - kind.period) + kind.period
            connection = await self._request(target, kind, tls, connection, number)
        if connection is not None:
            connection.close()

    async def _request(
        self,
        target: Target,
        kind: Kind,
        tls: ssl.SSLContext | None,
        connection: Connection | None,
        number: int,
    ) -> Connection | None:
        """Ask once, count it, and return the connection when it may be used again."""
        outcome, reason, release = "ok", "", ""
        start = time.monotonic()
        try:
            async with asyncio.timeout(kind.timeout):
                if connection is None or not connection.usable:
                    if connection is not None:
                        connection.close()
                        connection = None
                    connection = await Connection.open(target.address, target.port, tls, target.host)
                answer = await self._ask(target, kind, connection, number)
            release = answer.headers.get("x-release", "")
            if not release and kind.path.startswith("/static/"):
                release = answer.head.decode("utf-8", "replace").strip()
            reason = self._complaint(kind, number, answer)
            outcome = "failed" if reason else "ok"
        except StaleError as error:
            outcome, reason = "stale", str(error)
        except FailedError as error:
            outcome, reason = "failed", str(error)
        except TimeoutError:
            outcome, reason = "failed", f"no whole answer within {kind.timeout:.0f} s"
        end = time.monotonic()
        with self._changed:
            self._records.append(Record(target.name, kind.name, start, end, outcome, reason, release))
        if connection is not None and (kind.fresh or outcome != "ok" or not connection.kept):
            connection.close()
            return None
        return connection

    async def _ask(self, target: Target, kind: Kind, connection: Connection, number: int) -> Answer:
        lines = [
            f"{'POST' if kind.post else 'GET'} {kind.path} HTTP/1.1",
            f"Host: {target.host}",
            "User-Agent: load",
        ]
        body = None
        if kind.post:
            lines += [f"Content-Length: {kind.post}", "Content-Type: application/octet-stream"]
            body = _pieces(kind, number)
        if kind.fresh:
            lines.append("Connection: close")
        pace = Pace(kind.fetch, kind.pace) if kind.fetch else None
        return await connection.exchange("\r\n".join([*lines, "", ""]), body, pace)

    def _complaint(self, kind: Kind, number: int, answer: Answer) -> str:
        """Say what is wrong with an answer that came whole."""
        if answer.status != 200:
            return f"{answer.status}: {answer.head[:120].decode('utf-8', 'replace')!r}"
        expected = self._checksums[kind.name]
        if kind.echoed:
            expected = zlib.crc32(kind.body(number))
        if expected is not None and answer.checksum != expected:
            return f"a wrong body of {answer.size} bytes: {answer.head[:60]!r}"
        return ""

    async def _watch(self, target: Target) -> None:
        """Note when the way to the host and back, or this loop itself, takes longer than usual."""
        while True:
            try:
                if target.control is None:
                    await self._ping(target, None, None)
                else:
                    reader, writer = await asyncio.open_connection(target.address, target.control)
                    try:
                        await self._ping(target, reader, writer)
                    finally:
                        writer.close()
            except (OSError, asyncio.IncompleteReadError):
                await asyncio.sleep(0.2)  # the host is away, which excuses nothing

    async def _ping(
        self, target: Target, reader: asyncio.StreamReader | None, writer: asyncio.StreamWriter | None
    ) -> None:
        while True:
            start = time.monotonic()
            await asyncio.sleep(PING)
            if reader is not None and writer is not None:
                writer.write(b".")
                await reader.readexactly(1)
            end = time.monotonic()
            if (late := end - start - PING) > UNNOTICED:
                with self._changed:
                    self._stalls.append(Stall(target.name, start, end, late))


def _tls(target: Target) -> ssl.SSLContext | None:
    return ssl.create_default_context(cafile=target.authority) if target.authority else None


async def _pieces(kind: Kind, number: int) -> AsyncIterator[bytes]:
    if kind.echoed:
        yield kind.body(number)
        return
    pace, sent = Pace(kind.post, kind.pace), 0
    while sent < kind.post:
        piece = BLOCK[: kind.post - sent]
        yield piece
        sent += len(piece)
        await pace.keep(sent)
