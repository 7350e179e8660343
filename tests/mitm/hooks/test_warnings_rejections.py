"""Counting connections that end without a request: in bounds, and each client by itself."""

import pytest

from tokgate.mitm.client_connection import ClientConnection
from tokgate.mitm.hooks.warnings import STRIKES, ClientRejections
from tokgate.mitm.layers.raw_sockets import ClientSockets
from tokgate.policy.observation import Endpoint


def connection(client: str) -> ClientConnection:
    """A connection that was opened to show a warning."""
    return ClientConnection(Endpoint(client, 50000), client, ClientSockets(None), software=b"browser")


def test_clients_that_come_once_fill_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of those who went without a word only so many are known; whoever was longest away begins anew."""
    monkeypatch.setattr("tokgate.mitm.hooks.warnings.MAX_KNOWN", 2)
    reluctance = ClientRejections()
    for _ in range(STRIKES - 1):
        assert not reluctance.left(connection("192.0.2.1"))
    for number in range(2, 6):
        assert not reluctance.left(connection(f"192.0.2.{number}"))
    assert not reluctance.left(connection("192.0.2.1")), "forgotten"
    assert not reluctance.left(connection("192.0.2.1"))
    assert reluctance.left(connection("192.0.2.1")), "known again"
