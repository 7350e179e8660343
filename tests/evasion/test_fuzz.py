"""The reader's verdict in `make fuzz`, and what it has found so far: nothing of that is let through again."""

from pathlib import Path

import pytest

from evasion.fuzz import CORPUS, KINDS, let_through
from evasion.servers import ALLOWED, BANNED
from tokgate.evasion.hello import hello_12, records, server_name


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
