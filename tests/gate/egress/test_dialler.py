"""Connections to destinations, as the policy in force says: their source, and what is counted of those that fail."""

import errno
import socket
from ipaddress import ip_address

import pytest

from labs.builders import snapshot
from labs.gate_lab import Sink
from labs.records import Holder
from tokgate.blocklog.records.record import Observer
from tokgate.gate.egress.dialler import Dialler
from tokgate.policy.settings import EgressSettings
from tokgate.traffic.counters import CONNECT_ERROR, ConnectError
from tokgate.traffic.enforcer import Enforcer


@pytest.fixture
def dialler() -> Dialler:
    """One whose counters can be read."""
    return Dialler(Enforcer(Holder(snapshot()), Sink(), Observer(hostname="gate.example.org", version="test")), None)


def test_another_policy_has_other_sources(dialler: Dialler) -> None:
    """The address of a connection is one that the policy names, and the route's again once it names none."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        for egress, expected in (
            (EgressSettings(), "127.0.0.1"),
            (EgressSettings(addresses=(ip_address("127.0.0.7"),)), "127.0.0.7"),
            (EgressSettings(), "127.0.0.1"),
        ):
            reached = dialler.connect(server.getsockname(), egress, 0.0)
            client, address = server.accept()
            assert address[0] == expected
            client.close()
            reached.close()


@pytest.mark.parametrize(
    ("number", "kind", "starved"),
    [
        (errno.ENETUNREACH, ConnectError.UNREACHABLE, None),
        (errno.EMFILE, ConnectError.NO_DESCRIPTOR, (ConnectError.NO_DESCRIPTOR, 5.0)),
    ],
)
def test_failures(
    dialler: Dialler,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    kind: ConnectError,
    starved: tuple[ConnectError, float] | None,
) -> None:
    """Each is counted by its kind; one of which this machine is the cause is remembered with its time."""

    def fail(*_: object) -> None:
        raise OSError(number, "")

    monkeypatch.setattr("tokgate.gate.egress.dialler.connect", fail)
    with pytest.raises(OSError, match=str(number)):
        dialler.connect(("192.0.2.1", 443), EgressSettings(), 5.0)
    counted = dialler._enforcer.counters.shared.read()
    assert {key: count for key, count in counted.items() if key[0] == CONNECT_ERROR} == {(CONNECT_ERROR, kind): 1}
    assert dialler.starved == starved
