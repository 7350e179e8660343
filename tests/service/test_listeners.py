"""Opening listeners: all or none, optional ones aside, and what is said of them."""

import dataclasses
import errno
import socket

import pytest

from labs.builders import ban, snapshot
from tokgate.gate.sockets import Entry
from tokgate.policy.settings import Passage
from tokgate.service import listeners as listening
from tokgate.service.listeners import ListenEndpoint

HERE = ListenEndpoint("127.0.0.1", 0, Entry.REDIRECT)
ELSEWHERE = ListenEndpoint("192.0.2.1", 0, Entry.EXPLICIT, optional=True)


def test_open_and_announce(caplog: pytest.LogCaptureFixture) -> None:
    """Each is said with its port, with a line to try an explicit one; an optional one that can't be had is told."""
    explicit = ListenEndpoint("127.0.0.1", 0, Entry.EXPLICIT)
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
        wanted = [ListenEndpoint("127.0.0.1", free, Entry.REDIRECT), ListenEndpoint("127.0.0.1", port, Entry.REDIRECT)]
        with pytest.raises(OSError, match=f"127.0.0.1:{port}: ") as caught:
            listening.open_listeners(wanted)
        assert caught.value.errno == errno.EADDRINUSE
    listening.close_listeners(listening.open_listeners([wanted[0]]))


def test_who_waits() -> None:
    """Who is to pass when tokgate has crashed must not be held up by a listener that systemd keeps open."""
    listeners = listening.open_listeners([HERE])
    (redirected,) = listeners
    transparent = dataclasses.replace(redirected, entry=Entry.TPROXY)
    assert listening.waited_for(redirected, Passage.OPEN)
    assert listening.waited_for(transparent, Passage.CLOSED)
    assert not listening.waited_for(transparent, Passage.OPEN)
    listening.close_listeners(listeners)


def test_quic_where_it_may_not_be_carried(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Without the privilege for raw sockets gates start all the same, and say that QUIC is refused."""

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(listening, "open_sockets", refuse)
    listeners = listening.open_listeners([HERE])
    assert listening.open_quic(listeners, 2) is None
    assert caplog.text == ""
    transparent = [dataclasses.replace(listener, entry=Entry.TPROXY) for listener in listeners]

    assert listening.open_quic(transparent, 2) is None
    assert "the firewall, which refuses it" in caplog.text
    listening.close_listeners(listeners)
