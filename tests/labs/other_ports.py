"""Clients and servers on other ports than 80 and 443, in the namespaces of `netns`."""

from __future__ import annotations

import socket

from labs.clients import fetched
from labs.netns import Lab, Namespace
from labs.origin import Origin

BANNER = b"220 mail.example.net ESMTP\r\n"
REFUSED_BY_ALERT = 35
"""How curl ends at a TLS alert."""


def curl(namespace: Namespace, origin: Origin, url: str, family: int, *options: str) -> tuple[int, str]:
    """curl's exit code and output for a URL, with the status at its end."""
    return fetched(namespace, origin, url, family, "--write-out", "%{http_code}", *options)


def serving(namespace: Namespace, address: str, port: int) -> socket.socket:
    """A server at an address of the origin."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    server = namespace.inside(lambda: socket.create_server((address, port), family=family))
    server.settimeout(20)
    return server


def greeted(lab: Lab, client: Namespace, address: str, port: int) -> bool:
    """Whether a client reaches a server that speaks first, and is heard by it."""
    with serving(lab.origin, address, port) as server, client.connect(address, port, 20) as socket_:
        accepted, _ = server.accept()
        with accepted:
            accepted.settimeout(20)
            accepted.sendall(BANNER)
            assert socket_.recv(64) == BANNER
            socket_.sendall(b"EHLO client.example.net\r\n")
            return accepted.recv(64) == b"EHLO client.example.net\r\n"
