"""Messages in a stream, however they are cut."""

from hypothesis import given
from hypothesis import strategies as st

from tokgate.wire.dns_message.framing import framed, take_messages

MESSAGES = st.lists(st.binary(max_size=300), max_size=5)


@given(MESSAGES, st.integers(1, 400), st.binary(max_size=1))
def test_messages_come_whole_and_in_order(messages: list[bytes], size: int, rest: bytes) -> None:
    """A message that is lost or mixed with another would be answered for the wrong question."""
    sent, buffer, taken = b"".join(map(framed, messages)) + rest, bytearray(), list[bytes]()
    for at in range(0, len(sent), size):
        buffer += sent[at : at + size]
        taken += take_messages(buffer)

    assert (taken, bytes(buffer)) == (messages, rest)


def test_the_longest_message() -> None:
    """The length has two octets."""
    buffer = bytearray(framed(bytes(65_535)))

    assert [len(message) for message in take_messages(buffer)] == [65_535]
