"""Where gates listen by their modes; opening listeners: all or none, and what is said of them."""

import dataclasses
import errno
import socket

import pytest

from labs.builders import ban, snapshot
from tokgate.gate.sockets import Entry
from tokgate.policy.settings import Passage
from tokgate.service import listeners as listening
from tokgate.service.listeners import ListenEndpoint, endpoints, free_port

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


@pytest.mark.parametrize(("spec", "entry"), [("gate", Entry.REDIRECT), ("gate:tproxy", Entry.TPROXY)])
def test_redirected_clients_are_awaited_everywhere(spec: str, entry: Entry) -> None:
    """They come to the gateway's addresses in both families; IPv6 may be missing, IPv4 may not."""
    found = [(each.host, each.port, each.entry, each.optional) for each in endpoints((spec,))]
    assert found == [("0.0.0.0", 8080, entry, False), ("::", 8080, entry, True)]


@pytest.mark.parametrize("spec", ["gate@9-8", "gate@1-65536", "gate@8443-"])
def test_what_is_no_range(spec: str) -> None:
    """A slip of the pen is an error at the start, not a port that nobody listens on."""
    with pytest.raises(ValueError, match="is no"):
        endpoints((spec,))


@pytest.mark.parametrize(
    ("specs", "port"),
    [
        (("gate@8443", "gate:explicit@192.0.2.1:8443"), 8443),
        (("gate:explicit@[::1]:8080", "gate:tproxy"), 8080),
        (("gate@10443-10506", "gate:explicit@10450"), 10450),
        (("gate:explicit@192.0.2.1:8080", "gate:explicit@192.0.2.1:8080"), 8080),
        (("gate:explicit@192.0.2.1:8080", "gate:explicit@192.0.2.2:8080"), None),
        (("gate:explicit@0.0.0.0:8080", "gate:explicit@[2001:db8::1]:8080"), None),
        (("gate:explicit@0", "gate:explicit@0"), None),
    ],
)
def test_a_port_that_two_modes_want(specs: tuple[str, str], port: int | None) -> None:
    """Also where one listens on all addresses, or has it by default, both are named. Each may have its own address."""
    if port is None:
        assert len(endpoints(specs)) == 2
        return
    with pytest.raises(ValueError, match="both want") as refused:
        endpoints(specs)
    assert str(refused.value).startswith(f"{specs[0]} and {specs[1]} both want port {port}: ")


def test_a_free_port() -> None:
    """The next one up; where any port will do the kernel chooses, and where none is free listening fails."""
    assert free_port({8081}) == 8080
    assert free_port({8080, 8081}) == 8082
    assert free_port({8080}, 9000) == 9000
    assert free_port({0, 8080}, 0) == 0
    assert free_port({65535}, 65535) == 65535
