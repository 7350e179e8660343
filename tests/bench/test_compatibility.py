"""The cases of `make compat`: told apart by their names, enough of each kind, and no reason without its case."""

import pytest
from compat.first_words import WORDS
from compat.http_cases import HTTP_CASES
from compat.lab import DIRECT, HTTP_PORTS, ROADS, WORD_PORTS
from compat.raw import body_of, split_head
from compatibility import FIRST_WORDS, HTTP, REASONS, Tally, differences, document, reason

NAMES = {HTTP: [case.name for case in HTTP_CASES], FIRST_WORDS: [words.name for words in WORDS]}
BANNED, FREE = (
    next(road for road in ROADS if road.proxy == "tokgate" and road.banned is banned) for banned in (True, False)
)


@pytest.mark.parametrize(("family", "least", "ports"), [(HTTP, 120, HTTP_PORTS), (FIRST_WORDS, 60, WORD_PORTS)])
def test_cases_have_names_and_ports_of_their_own(family: str, least: int, ports: range) -> None:
    """As many as the documents say, and a port for each; the last one of HTTP's is WebSocket's."""
    assert len(set(NAMES[family])) == len(NAMES[family])
    assert least <= len(NAMES[family]) < len(ports)


def test_each_reason_has_its_cases() -> None:
    """A reason for a case that is gone would excuse nothing, or one day something else."""
    lost = [name for each in REASONS for name in each.names if name not in NAMES.get(each.family, each.names)]
    assert lost == []
    named = [(each.family, name) for each in REASONS for name in each.names]
    assert len(named) == len(set(named))


def test_a_reason_may_be_for_clients_under_a_ban_alone() -> None:
    """What is refused to them passes for others, or it is a fault."""
    assert reason(HTTP, "body: like a request", BANNED)
    assert not reason(HTTP, "body: like a request", FREE)
    assert reason(HTTP, "request 0.9", FREE)
    assert not reason(HTTP, "GET", BANNED)


def test_a_difference_without_a_reason_shows() -> None:
    """In the table, and in what the exit code is made of; another proxy's is not tokgate's."""
    tally, peer = Tally(), next(road for road in ROADS if road.proxy == "squid")
    for road in (BANNED, peer):
        tally.add(road, "GET", "200", "200" if road is DIRECT else "400")
        tally.add(road, "GET 1.0", "200", "200")
    assert tally.cell(BANNED) == "1 of 2"
    assert differences({HTTP: tally}) == {(HTTP, "GET", ""): [BANNED]}
    page = document({HTTP: tally, "curl": Tally(missing="apt-get install curl")}, [BANNED, peer], [])
    assert "| raw HTTP: `GET` | TPROXY, ban | **not known** |" in page
    assert "| curl | not run | not run |" in page
    assert "Not run: curl (apt-get install curl)." in page


@pytest.mark.parametrize(
    ("fields", "rest", "ended", "expected"),
    [
        (b"Content-Length: 2\r\n", b"abc", False, (b"ab", b"c", True)),
        (b"Content-Length: 4\r\n", b"abc", False, None),
        (b"Content-Length: 4\r\n", b"abc", True, (b"abc", b"", False)),
        (b"Transfer-Encoding: chunked\r\n", b"1;x\r\na\r\n0\r\n\r\nb", False, (b"a", b"b", True)),
        (b"Transfer-Encoding: chunked\r\n", b"1\r\na\r\n0\r\nX: y\r\n\r\n", False, (b"a", b"", True)),
        (b"Transfer-Encoding: chunked\r\n", b"1\r\na\r\n", False, None),
        (b"Transfer-Encoding: chunked\r\n", b"1\r\na\r\n", True, (b"a", b"", False)),
        (b"", b"abc", True, (b"abc", b"", True)),
        (b"", b"abc", False, None),
    ],
)
def test_bodies(fields: bytes, rest: bytes, ended: bool, expected: object) -> None:
    """By length, by chunks, to the end; cut ones are told from whole ones."""
    parts = split_head(b"HTTP/1.1 200 OK\r\n" + fields + b"\r\n" + rest)
    assert parts is not None
    assert body_of(parts[1], parts[2], none=False, to_end=True, ended=ended) == expected
