"""What is known of clients' connections: how much of what they sent may wait, and what they reset."""

from mitmproxy.test import tflow

from tokgate.mitm.client_connection import ClientConnections, FallingCounts, UnreadOctets
from tokgate.mitm.raw_sockets import ClientSockets
from tokgate.traffic.limits import OpenerLimits


def test_unfinished_heads_are_bounded() -> None:
    """Thousands of requests without an end, of one client or of many, don't take an opener's memory."""
    unread = UnreadOctets(OpenerLimits(unread_per_client=100, unread=150))
    assert unread.hold("a", "2001:db8::1", 60)
    assert unread.hold("a", "2001:db8::1", 100)
    assert not unread.hold("b", "2001:db8::2", 1)
    unread.release("b")
    assert unread.hold("c", "192.0.2.1", 50)
    assert not unread.hold("d", "192.0.2.2", 1)


def test_a_finished_head_gives_its_octets_back() -> None:
    """Requests that end are no load: clients may send as many as they like."""
    unread = UnreadOctets(OpenerLimits(unread_per_client=100, unread=100))
    for _ in range(5):
        assert unread.hold("a", "192.0.2.1", 100)
        assert unread.hold("a", "192.0.2.1", 0)
    assert unread.hold("b", "192.0.2.1", 100)
    unread.release("b")
    unread.release("b")
    assert not unread._by_client


def test_a_connection_that_ends_gives_its_octets_back() -> None:
    """A client whose connections are closed with a head in hand may come again, for ever."""
    limit, connections = OpenerLimits().unread_per_client, ClientConnections()
    for _ in range(3):
        client = tflow.tclient_conn()
        connection = connections.begin(client, ClientSockets(None))
        assert connection.budgets.unread.hold(connection.id, connection.client.ip, limit)
        connections.end(client)


def test_resets_are_counted_by_client_and_forgotten_with_time() -> None:
    """Over all connections of a client; a flood is over for it soon after it has ended, and others don't notice."""
    clock = [0.0]
    resets = FallingCounts(100, 10, monotonic=lambda: clock[0])
    assert resets.allow("2001:db8::1", 60)
    assert not resets.allow("2001:db8::2", 41)
    assert resets.allow("192.0.2.1", 100)
    for _ in range(20):
        assert not resets.allow("2001:db8::1", 1000)
    clock[0] = 10.5
    assert resets.allow("2001:db8::1", 1)
    assert not resets.allow("2001:db8::1", 10)
    clock[0] = 30
    for number in range(100):
        assert resets.allow(f"192.0.2.{number}", 100)
    clock[0] = 41
    assert resets.allow("2001:db8::1", 0)
    assert len(vars(resets)["_counts"]) == 1, "of those who are quiet nothing is kept"
