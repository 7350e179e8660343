"""A client's port that is used for one server after another: no connection waits for a second for an older one."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from labs.gateway import KERNEL_TOO, Gateway, office_policy
from labs.netns import Lab, flush_conntrack
from labs.origin import Origin

PORTS = range(20000, 20032)
"""Below those that Linux chooses, which other tests' connections may have had just before."""
SERVERS = (Lab.ALLOWED[4], Lab.BANNED[4])
"""Both serve something allowed."""
WEB = 8888
RETRANSMITTED = slice(100, 104)
"""Where `tcp_info` has the number of segments that were sent again (linux/tcp.h)."""


def test_no_connection_stalls(lab: Lab, origin: Origin, any_gateway: Callable[..., Gateway], tmp_path: Path) -> None:
    """With redirection to one port a SYN looks old to the socket of another server's connection, and waits a second."""
    with any_gateway(tmp_path, policy=office_policy(), mode=KERNEL_TOO):
        slow, before = [], _dropped(lab)
        for address in (*SERVERS, *SERVERS):
            with lab.origin.inside(partial(_server, address)) as server:
                slow += [(port, address) for port in PORTS if _exchange(lab, server, port, address)]
            lab.gateway.inside(flush_conntrack)  # as a busy gateway does, long before the sockets do
        assert slow == []
        assert _dropped(lab) == before


def _exchange(lab: Lab, server: socket.socket, port: int, address: str) -> int:
    """Connect, and have the server end first, so that the gate's socket waits (TIME_WAIT). How often SYN was resent."""
    with lab.client.inside(partial(_connected, port, address)) as client:
        resent = int.from_bytes(
            client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)[RETRANSMITTED], sys.byteorder
        )
        client.sendall(b"\0hello")
        accepted, _ = server.accept()
        with accepted:
            assert accepted.recv(64)
        assert client.recv(64) == b""
    return resent


def _dropped(lab: Lab) -> int:
    """The SYNs that the gateway has dropped because they look older than a connection that has ended."""
    return int(lab.gateway.run("nstat", "-asz", "TcpExtPAWSTimewait").stdout.split()[-2])


def _server(address: str) -> socket.socket:
    server = socket.create_server((address, WEB))
    server.settimeout(20)
    return server


def _connected(port: int, address: str) -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.settimeout(20)
    made.bind(("", port))
    made.connect((address, WEB))
    return made
