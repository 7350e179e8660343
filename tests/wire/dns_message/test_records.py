"""Names in messages, where one is told by another."""

import pytest

from tokgate.wire.dns_message.records import read_labels


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
