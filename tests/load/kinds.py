"""What is asked. Each kind has clients of its own, and a client waits for its answer before it asks again."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

MEGABYTE = 1_000_000
BLOCK = bytes(range(256)) * 1024
"""What transfers consist of, again and again, cut off at their length."""


@dataclass(frozen=True)
class Kind:
    """One kind of request.

    Attributes:
        name: by which it is counted.
        path: what is asked for.
        clients: how many ask, each on a connection of its own.
        period: seconds from the start of a client's request to the start of its next one; longer when the
            answer takes longer.
        fresh: whether every request has a new connection.
        post: bytes of the request's body; 0 is a GET.
        fetch: bytes of the answer's body that are demanded; 0 leaves it to the app.
        pace: seconds over which a body is stretched. Transfers at a fixed pace take as long on a slow
            machine as on a fast one, and a release is switched in the midst of them.
        echoed: whether the answer must be the request's body.
        timeout: seconds after which a request has failed.
    """

    name: str
    path: str
    clients: int
    period: float
    fresh: bool = False
    post: int = 0
    fetch: int = 0
    pace: float = 0.0
    echoed: bool = False
    timeout: float = 30.0

    def body(self, number: int) -> bytes:
        """Return the body of a client's request of that number; no two small ones are equal."""
        text = f"{self.name} {number} ".encode()
        return (text + BLOCK)[: self.post] if self.echoed else b""

    def checksum(self) -> int | None:
        """Return the CRC-32 that the answer's body must have when it does not depend on the request."""
        if self.fetch:
            return repeated_checksum(self.fetch)
        if self.post and not self.echoed:
            return zlib.crc32(f"{self.post} {repeated_checksum(self.post):08x}".encode())
        return None


def repeated_checksum(size: int) -> int:
    """Return the CRC-32 of `size` bytes of repeated blocks."""
    value = 0
    whole, rest = divmod(size, len(BLOCK))
    for _ in range(whole):
        value = zlib.crc32(BLOCK, value)
    return zlib.crc32(BLOCK[:rest], value)


SMALL = (
    Kind("keep-alive", "/", clients=8, period=0.25),
    Kind("new connection", "/", clients=4, period=0.4, fresh=True),
    Kind("post", "/echo", clients=6, period=0.4, post=2000, echoed=True),
    Kind("static", "/static/release.txt", clients=4, period=0.4),
    Kind("3 s", "/slow?seconds=3", clients=6, period=3.2),
)
"""About 70 requests in a second."""

LARGE = (
    Kind("upload", "/upload", clients=1, period=9.0, post=100 * MEGABYTE, pace=8.0, timeout=60.0),
    Kind(
        "download",
        "/download?bytes=100000000",
        clients=1,
        period=9.0,
        fetch=100 * MEGABYTE,
        pace=8.0,
        timeout=60.0,
    ),
)
"""100 MB each, in eight seconds."""

KINDS = SMALL + LARGE
