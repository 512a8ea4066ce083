"""The control: sends every byte back. Runs on the host beside what is tested; standard library only.

Whatever delays this, delays the app by no fault of a deploy: `python3 echo.py PORT`.
"""

from __future__ import annotations

import socket
import socketserver
import sys


class Echo(socketserver.BaseRequestHandler):
    """One connection."""

    def handle(self) -> None:
        """Send back what comes until there is no more."""
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while received := self.request.recv(4096):
            self.request.sendall(received)


class Server(socketserver.ThreadingTCPServer):
    """Serves any number of connections."""

    allow_reuse_address = True
    daemon_threads = True


if __name__ == "__main__":
    Server(("", int(sys.argv[1])), Echo).serve_forever()
