"""What is known of clients' connections: how much of what they sent may wait."""

from tokgate.mitm.client_connection import UnreadOctets
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
