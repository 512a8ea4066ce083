"""HTTP/1.1 over one connection, in a way that tells all the ways in which an exchange can fail."""

from __future__ import annotations

import asyncio
import ssl
import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

PIECE = 64 * 1024
"""Bytes that are read or written at once."""


class FailedError(Exception):
    """The exchange failed; the message says how."""


class StaleError(Exception):
    """A kept connection was closed under a request: not one byte of an answer came."""


@dataclass(frozen=True)
class Answer:
    """What came back. `head` is the beginning of the body."""

    status: int
    headers: dict[str, str]
    size: int
    checksum: int
    head: bytes


@dataclass
class Pace:
    """Spreads `size` bytes evenly over `seconds`; whoever is late catches up."""

    size: int
    seconds: float
    begin: float = field(default_factory=lambda: asyncio.get_running_loop().time())

    async def keep(self, done: int) -> None:
        """Wait until `done` bytes are due."""
        due = self.begin + self.seconds * done / self.size if self.size else self.begin
        # Shorter pauses would only cost time of the processor.
        if (early := due - asyncio.get_running_loop().time()) > 0.01:
            await asyncio.sleep(early)


class Connection:
    """A connection to one address, with or without TLS."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.used = False
        self._whole = True
        self.kept = True
        """Whether a further request may be sent."""

    @classmethod
    async def open(cls, address: str, port: int, tls: ssl.SSLContext | None, name: str) -> Connection:
        """Connect and shake hands.

        Raises:
            FailedError: when either does not succeed.
        """
        try:
            reader, writer = await asyncio.open_connection(
                address, port, ssl=tls, server_hostname=name if tls else None, limit=4 * PIECE
            )
        except OSError as error:
            raise FailedError(f"no connection: {error}") from None
        return cls(reader, writer)

    @property
    def usable(self) -> bool:
        """Whether a further request may be sent, as far as anybody can know."""
        return self.kept and not self._reader.at_eof() and not self._writer.is_closing()

    def close(self) -> None:
        """Close, within an exchange without ceremony."""
        if self._whole:
            self._writer.close()
        else:
            self._writer.transport.abort()

    async def exchange(self, head: str, body: AsyncIterator[bytes] | None, pace: Pace | None) -> Answer:
        """Send a request, a head and the pieces of its body, and read the answer, at a pace if one is given.

        Raises:
            FailedError: when there is no whole answer.
            StaleError: when the connection had been used before and was closed without any answer.
        """
        reused, self.used, self.kept, self._whole = self.used, True, False, False
        lost: OSError | None = None
        try:
            self._writer.write(head.encode("ascii"))
            if body is not None:
                async for piece in body:
                    self._writer.write(piece)
                    await self._writer.drain()
            await self._writer.drain()
        except OSError as error:
            lost = error  # there may be an answer all the same, as 413 or 502
        try:
            raw = await self._reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            if error.partial:
                raise FailedError("closed within the head of the answer") from None
            self._give_up(reused, "closed without an answer" if lost is None else str(lost))
        except OSError as error:
            self._give_up(reused, str(error) or type(error).__name__)
        except (asyncio.LimitOverrunError, ValueError):
            raise FailedError("the head of the answer has no end") from None
        status, headers = _parse(raw)
        answer = await self._read_body(status, headers, pace)
        if lost is not None and status < 400:
            raise FailedError(f"answered {status} and closed before it was sent all: {lost}")
        self._whole = True
        self.kept = headers.get("connection", "").lower() != "close" and _delimited(headers)
        return answer

    def _give_up(self, reused: bool, why: str) -> None:
        if reused:
            raise StaleError(f"kept connection closed under the request: {why}")
        raise FailedError(why)

    async def _read_body(self, status: int, headers: dict[str, str], pace: Pace | None) -> Answer:
        size, checksum, head = 0, 0, b""
        try:
            async for piece in self._pieces(headers):
                size += len(piece)
                checksum = zlib.crc32(piece, checksum)
                if len(head) < 200:
                    head += piece[:200]
                if pace is not None:
                    await pace.keep(size)
        except (asyncio.IncompleteReadError, OSError, ValueError) as error:
            expected = headers.get("content-length", "an unknown number")
            raise FailedError(f"{status}, closed after {size} of {expected} bytes ({error})") from None
        return Answer(status, headers, size, checksum, head)

    async def _pieces(self, headers: dict[str, str]) -> AsyncIterator[bytes]:
        if headers.get("transfer-encoding", "").lower() == "chunked":
            while size := int((await self._reader.readuntil(b"\r\n")).split(b";")[0], 16):
                async for piece in self._exactly(size):
                    yield piece
                await self._reader.readexactly(2)
            await self._reader.readuntil(b"\r\n")
        elif "content-length" in headers:
            async for piece in self._exactly(int(headers["content-length"])):
                yield piece
        else:
            while piece := await self._reader.read(PIECE):
                yield piece

    async def _exactly(self, size: int) -> AsyncIterator[bytes]:
        while size:
            piece = await self._reader.read(min(size, PIECE))
            if not piece:
                raise asyncio.IncompleteReadError(b"", size)
            size -= len(piece)
            yield piece


def _delimited(headers: dict[str, str]) -> bool:
    return "content-length" in headers or headers.get("transfer-encoding", "").lower() == "chunked"


def _parse(raw: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = raw.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    words = first.split(" ", 2)
    if not words[0].startswith("HTTP/1.") or len(words) < 2 or not words[1].isdecimal():
        raise FailedError(f"no HTTP: {first[:80]!r}")
    headers = dict(line.split(":", 1) for line in lines if ":" in line)
    return int(words[1]), {name.lower(): value.strip() for name, value in headers.items()}
