"""ClientHellos of the load generator: real ones, for any name."""

import pytest
from comparison.hello import KINDS

from tokgate.wire.hello_reader import read_client_hello


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "name", ["a.example", "www.example.org", "n249999.many3.example.org", f"{'x' * 63}.example.org"]
)
def test_a_hello_is_whole_and_says_the_name(kind: str, name: str) -> None:
    """Another name, of another length, leaves all lengths around it right."""
    hello = KINDS[kind](name)
    read = read_client_hello(hello)
    assert read is not None
    assert read.name == name
    assert int.from_bytes(hello[3:5]) == len(hello) - 5
    assert read_client_hello(hello[:-1]) is None


def test_only_the_name_and_lengths_differ_between_browser_hellos() -> None:
    """Key shares, GREASE and the order of extensions stay as the browser sent them."""
    short, long = KINDS["browser"]("a.example"), KINDS["browser"]("aaaaa.example")
    renamed = long.replace(b"aaaaa.example", b"a.example")
    assert len(renamed) == len(short)
    lengths = 6  # of the record, the handshake, all extensions, this extension, its list and the name
    assert sum(ours != theirs for ours, theirs in zip(renamed, short, strict=True)) <= lengths
