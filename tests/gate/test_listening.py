"""Opening listeners: all or none, optional ones aside, and what is said of them."""

import errno
import socket

import pytest

from builders import ban, snapshot
from tokgate.gate import listening
from tokgate.gate.endpoints import Endpoint
from tokgate.gate.sockets import Entry

HERE = Endpoint("127.0.0.1", 0, Entry.REDIRECT)
ELSEWHERE = Endpoint("192.0.2.1", 0, Entry.EXPLICIT, optional=True)


def test_open_and_announce(caplog: pytest.LogCaptureFixture) -> None:
    """Each is said with its port, with a line to try an explicit one; an optional one that can't be had is told."""
    explicit = Endpoint("127.0.0.1", 0, Entry.EXPLICIT)
    listeners, said = listening.open_listeners([HERE, ELSEWHERE, explicit]), list[str]()
    listening.announce(listeners, snapshot(ban()), said.append)
    listening.close_listeners(listeners)
    assert "not listening on 192.0.2.1" in caplog.text
    assert said[:2] == [
        f"gate: redirect clients on 127.0.0.1:{listeners[0].port}",
        f"gate: explicit clients on 127.0.0.1:{listeners[1].port}",
    ]
    assert said[2].startswith("policy ")


def test_all_or_none() -> None:
    """A port that is taken is named, and those that were opened before it are free again."""
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("127.0.0.1", 0)) as spare:
        port = taken.getsockname()[1]
        free = spare.getsockname()[1]
        spare.close()
        wanted = [Endpoint("127.0.0.1", free, Entry.REDIRECT), Endpoint("127.0.0.1", port, Entry.REDIRECT)]
        with pytest.raises(OSError, match=f"127.0.0.1:{port}: ") as caught:
            listening.open_listeners(wanted)
        assert caught.value.errno == errno.EADDRINUSE
    listening.close_listeners(listening.open_listeners([wanted[0]]))
