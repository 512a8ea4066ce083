"""A client that tidies nothing up: what a test writes is what goes over the wire."""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass


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


@dataclass(frozen=True)
class Client:
    """Talks to one host. Every exchange has a connection of its own."""

    address: str
    authority: str

    def connect(
        self, port: int = 443, sni: str | None = "hello.example.org", alpn: Sequence[str] = ("http/1.1",)
    ) -> ssl.SSLSocket:
        """Shake hands and check the certificate against `sni`; with None, send no name."""
        context = ssl.create_default_context(cafile=self.authority)
        context.check_hostname = sni is not None
        context.set_alpn_protocols(list(alpn))
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
        with (
            self.connect(port, sni)
            if tls
            else socket.create_connection((self.address, port), timeout=15) as connection
        ):
            connection.sendall(raw)
            answer = http.client.HTTPResponse(connection, method=method)
            answer.begin()
            return Answer(answer.status, tuple(answer.getheaders()), answer.read())

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
