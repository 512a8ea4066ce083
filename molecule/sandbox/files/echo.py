"""Sends back what it is sent, over UDP and TCP. Runs on the host; standard library only."""

import socketserver
import threading


class Datagrams(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        self.request[1].sendto(self.request[0], self.client_address)


class Connections(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        self.wfile.write(self.rfile.readline())


datagrams = socketserver.ThreadingUDPServer(("0.0.0.0", 7777), Datagrams)
threading.Thread(target=datagrams.serve_forever, daemon=True).start()
socketserver.ThreadingTCPServer(("0.0.0.0", 7777), Connections).serve_forever()
