"""An ordinary ClientHello in unusual segments: how TCP delivers it must not matter."""

from collections.abc import Iterator
from functools import partial
from itertools import pairwise

from tokgate.evasion.attempt import Attempt, Family, Opens
from tokgate.evasion.families.tls_records import message, said
from tokgate.evasion.hello import hello_12, records, server_name
from tokgate.evasion.stream import SentPieces, Target


def _cut(*at: int) -> SentPieces:
    """Segments that end at these offsets; negative ones count from the name's end."""

    def pieces(target: Target) -> list[bytes]:
        whole = records(message(target))
        behind = whole.index(target.octets) + len(target.octets)
        edges = [0, *sorted(edge if edge > 0 else behind + edge for edge in at), len(whole)]
        return [whole[start:end] for start, end in pairwise(edges)]

    return pieces


def _octets(target: Target) -> list[bytes]:
    whole = records(message(target))
    return [whole[at : at + 1] for at in range(len(whole))]


def _octets_of_records(target: Target) -> list[bytes]:
    whole = records(message(target), 1)
    return [whole[at : at + 3] for at in range(0, len(whole), 3)]


_attempt = partial(Attempt, family=Family.SEGMENTS, opens=Opens.TLS)


def attempts() -> Iterator[Attempt]:
    """Attempts by how octets are cut into TCP segments."""
    shapes: dict[str, tuple[str, SentPieces]] = {
        "one-octet-first": ("one octet, then the rest", _cut(1)),
        "header-first": ("the record's header, then the rest", _cut(5)),
        "cut-in-the-name": ("in two segments, cut inside the name", _cut(-5)),
        "cut-around-the-name": ("in three, cut around the name", _cut(-12, 0)),
        "octet-segments": ("a segment for each octet", _octets),
        "octet-records-in-segments": ("records of one octet, in segments of three", _octets_of_records),
        "hello-and-more": (
            "more than the hello at once",
            lambda target: [records(hello_12(server_name(target.octets))) + b"\x14\x03\x03\0\1\1" * 40],
        ),
    }
    for name, (what, pieces) in shapes.items():
        yield _attempt(name, what, partial(said, pieces), innocent=name != "hello-and-more")
