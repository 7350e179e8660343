"""The reader's verdict in `make fuzz`, and what it has found so far: nothing of that is let through again."""

from pathlib import Path

import pytest

from evasion.fuzz import CORPUS, KINDS, let_through
from evasion.servers import ALLOWED, BANNED
from tokgate.evasion.hello import hello_12, records, server_name, vector
from tokgate.wire.proxy_request import Authority, read_authority
from tokgate.wire.socks5 import SocksError, read_request


@pytest.mark.parametrize("path", sorted(CORPUS.iterdir()), ids=lambda path: path.name)
def test_corpus(path: Path) -> None:
    """What servers once served for a banned name, or might have, never gets whole to one again."""
    sent = path.read_bytes()
    assert path.name.startswith(tuple(kind.name for kind in KINDS))
    assert let_through(sent) != sent


@pytest.mark.parametrize(("name", "passes"), [(ALLOWED, True), (BANNED, False), (BANNED.upper(), False)])
def test_the_control(name: str, passes: bool) -> None:
    """An ordinary hello passes if its name does: a reader that stops all, or nothing, would find nothing."""
    sent = records(hello_12(server_name(name.encode())))
    assert let_through(sent) == (sent if passes else b"")


LETTERS = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_."


@pytest.mark.parametrize("place", ["{}" + BANNED, "w{}w" + BANNED, BANNED + "{}", BANNED + "{}" + ALLOWED])
def test_octets_of_which_names_are_not_made(place: str) -> None:
    """With one of them in it a name is carried by nothing: not as server_name, Host or CONNECT's, nor by SOCKS."""
    for octet in set(range(256)) - set(LETTERS):
        name = place.format(chr(octet)).encode("latin-1")
        assert let_through(records(hello_12(server_name(name)))) == b"", name
        assert octet == ord(":") or not isinstance(read_authority(name.decode("latin-1")), Authority), name
        with pytest.raises(SocksError):
            read_request(b"\5\1\0\3" + vector(1, name) + b"\1\xbb")
