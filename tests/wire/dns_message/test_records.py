"""Names and records of a message, and messages in a stream."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokgate.wire.dns_message.records import framed, read_labels, take_messages


def test_a_name_ends_behind_its_first_pointer() -> None:
    """Behind a name that leads on by several pointers, the record's fields are read, and not octets before it."""
    header, name = bytes(12), b"\1a\0"
    message = header + name + b"\xc0\x0c" + b"\1b\xc0\x0f" + b"rest"
    assert read_labels(message, 12) == ([b"a"], 15)
    assert read_labels(message, 15) == ([b"a"], 17)
    assert read_labels(message, 17) == ([b"b", b"a"], 21)


def test_a_chain_of_pointers_ends() -> None:
    """Resolvers write a few pointers into a name; a message of nothing else would cost more than it is worth."""
    message = bytes(12) + b"\1a\0"
    for target in (12, *range(15, 79, 2)):
        message += (0xC000 | target).to_bytes(2)
    assert read_labels(message, 77) == ([b"a"], 79)
    with pytest.raises(ValueError, match="pointer"):
        read_labels(message, 79)


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
