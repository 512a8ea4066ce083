"""A client that tidies nothing up: what a test writes is what goes over the wire."""

from __future__ import annotations

import contextlib
import http.client
import io
import socket
import ssl
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast


@dataclass(frozen=True)
class Answer:
    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def all(self, name: str) -> list[str]:
        """Every value of a header, so that a doubled one is seen."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def one(self, name: str) -> str:
        values = self.all(name)
        assert len(values) == 1, f"{name} is there {len(values)} times: {values}"
        return values[0]


class _Kept(io.BufferedReader):
    """What has arrived stays readable after one answer is over."""

    def close(self) -> None:
        pass

    def flush(self) -> None:
        pass


class Conversation:
    """Several exchanges over one connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._arrived = _Kept(connection.makefile("rb", buffering=0))

    def send(self, raw: bytes) -> None:
        """Send these bytes; that the other side has hung up is for the answer to tell."""
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            self.connection.sendall(raw)

    def answer(self, method: str = "GET") -> Answer:
        """Read the next answer to its end. `method` only says how to read it."""
        answer = self.head(method)
        return Answer(answer.status, tuple(answer.getheaders()), answer.read())

    def head(self, method: str = "GET") -> http.client.HTTPResponse:
        """Read the head of the next answer; its body is still to be read."""
        answer = http.client.HTTPResponse(cast("socket.socket", self), method=method)
        answer.begin()
        return answer

    def makefile(self, _mode: str) -> _Kept:
        """Give HTTPResponse what it reads from."""
        return self._arrived

    def read(self, length: int) -> bytes:
        """Return exactly this many bytes, or fewer when the other side hangs up before."""
        return self._arrived.read(length)

    def hang_up(self) -> None:
        """Close the connection, whatever is still to be read from it."""
        self._arrived.raw.close()
        self.connection.close()

    def rest(self) -> bytes:
        """Return all that comes until the other side hangs up."""
        try:
            return self._arrived.read()
        except (ConnectionError, ssl.SSLError):
            return b""


@dataclass(frozen=True)
class Client:
    """Talks to one host. Every exchange has a connection of its own, but for those of `talk`.

    `proxy` is what serves there, nginx or apache, for what the two answer differently. `certificate` is a
    file of a key and a certificate, which the client shows when it is asked for one.
    """

    address: str
    authority: str
    proxy: str = ""
    certificate: str | None = None

    def connect(
        self, port: int = 443, sni: str | None = "hello.example.org", alpn: Sequence[str] = ("http/1.1",)
    ) -> ssl.SSLSocket:
        """Shake hands and check the certificate against `sni`; with None, send no name."""
        context = ssl.create_default_context(cafile=self.authority)
        context.check_hostname = sni is not None
        context.set_alpn_protocols(list(alpn))
        if self.certificate:
            context.load_cert_chain(self.certificate)
        plain = socket.create_connection((self.address, port), timeout=15)
        try:
            return context.wrap_socket(plain, server_hostname=sni)
        except BaseException:
            plain.close()
            raise

    def send(
        self,
        raw: bytes,
        *,
        method: str = "GET",
        port: int = 443,
        tls: bool = True,
        sni: str | None = "hello.example.org",
    ) -> Answer:
        """Send these bytes and read one answer. `method` only says how to read it."""
        with self.talk(port=port, tls=tls, sni=sni) as conversation:
            conversation.send(raw)
            return conversation.answer(method)

    @contextlib.contextmanager
    def talk(
        self, *, port: int = 443, tls: bool = True, sni: str | None = "hello.example.org"
    ) -> Iterator[Conversation]:
        """Open a connection for more than one exchange."""
        conversation = Conversation(
            self.connect(port, sni) if tls else socket.create_connection((self.address, port), timeout=15)
        )
        try:
            yield conversation
        finally:
            conversation.hang_up()

    def ask(
        self,
        target: str = "/",
        *,
        method: str = "GET",
        host: str = "hello.example.org",
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        port: int = 443,
        tls: bool = True,
        sni: str | None = "hello.example.org",
    ) -> Answer:
        lines = [
            f"{method} {target} HTTP/1.1",
            f"Host: {host}",
            *(f"{name}: {value}" for name, value in headers),
            "Connection: close",
        ]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        return self.send(
            "\r\n".join([*lines, "", ""]).encode("latin-1") + body, method=method, port=port, tls=tls, sni=sni
        )
