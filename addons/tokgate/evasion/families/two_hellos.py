"""A second ClientHello after a HelloRetryRequest that names another host than the first (RFC 8446 §4.1.2)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from tokgate.evasion.attempt import Attempt, Family, Opens, ServerReply, Stream, Target, send_all
from tokgate.evasion.hello import EARLY_DATA, X25519, Extension, hello_13, record, records, server_name
from tokgate.evasion.replies import Second, read_answer

HARMLESS = b"www.example.org"
_CCS = record(b"\1", 20, 0x0303)
"""What clients send between the two, for middleboxes (RFC 8446 D.4)."""
_ALERT = record(b"\1\x70", 21, 0x0303)
_KEY = X25519PrivateKey.from_private_bytes(bytes(range(32)))
_SHARE = (X25519, _KEY.public_key().public_bytes_raw())


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoHellos:
    """Two hellos, by default the second with the target's name. A name b"" is the target's, BASE in one its base."""

    first: bytes | None = HARMLESS
    second: bytes = b""
    between: bytes = _CCS
    size: int = 16384
    """Octets of the second's records."""
    segments: int = 1
    """In how many the second is sent."""
    waits: bool = True
    """For the server to ask for the second."""
    begins_early: bool = False
    """The first segment of the second is in the first's."""
    early_data: bool = False
    """The first hello announces some, and it is sent."""
    octets_early: int | None = None
    """How many octets of the second hello are in the first's record; None: it begins a record of its own."""

    def play(self, stream: Stream, target: Target) -> ServerReply:
        """Send both, and read from the server's handshake whether it answers for the target's name."""
        announced: list[Extension] = [(EARLY_DATA, b"")] if self.early_data else []
        first = hello_13(*_named(self.first, target), *announced, shares=[])
        message = hello_13(*_named(self.second, target), shares=[_SHARE])
        if (octets := self.octets_early) is not None:
            rest = message[octets:]
            send_all(stream, [record(first + message[:octets]) + (record(rest, version=0x0303) if rest else b"")])
            return read_answer(stream, target, first, _KEY, Second(message))
        whole = self.between + records(message, self.size, 0x0303)
        step = -(-len(whole) // self.segments)
        pieces = tuple(whole[start : start + step] for start in range(0, len(whole), step))
        sent = [records(first) + (record(b"early" * 20, 23, 0x0303) if self.early_data else b"")]
        if self.begins_early:
            sent = [sent[0] + pieces[0], *pieces[1:]]
        elif not self.waits:
            sent = [sent[0] + b"".join(pieces)] if self.segments == 1 else [*sent, *pieces]
        send_all(stream, sent)
        return read_answer(stream, target, first, _KEY, Second(message, pieces if self.waits else ()))


def _named(name: bytes | None, target: Target) -> Sequence[Extension]:
    return () if name is None else (server_name(name.replace(b"BASE", target.base) or target.octets),)


_attempt = partial(Attempt, family=Family.TWO_HELLOS, opens=Opens.TLS)


def attempts() -> Iterator[Attempt]:
    """Attempts that name one host in a first ClientHello and another in a second (RFC 8446 §4.1.4)."""
    shapes = {
        "other-name": ("first a harmless name, then the banned one", TwoHellos()),
        "other-name-without-ccs": ("the same without ChangeCipherSpec", TwoHellos(between=b"")),
        "other-name-in-pieces": ("the second in records of one octet", TwoHellos(size=1)),
        "other-name-in-segments": ("the second in segments of its own", TwoHellos(segments=40)),
        "other-name-behind-alert": ("a warning alert before the second", TwoHellos(between=_ALERT)),
        "other-name-at-once": ("the second sent without waiting", TwoHellos(waits=False)),
        "other-name-early": ("the second in segments of its own, without waiting", TwoHellos(waits=False, segments=3)),
        "other-name-begins-early": ("part of it with the first", TwoHellos(waits=False, segments=3, begins_early=True)),
        "other-name-behind-early-data": ("early data between the two", TwoHellos(early_data=True)),
        "other-name-in-its-record": ("the second in the first's record", TwoHellos(octets_early=16384)),
        "other-name-begins-in-its-record": ("an octet of the second in the first's record", TwoHellos(octets_early=1)),
        "other-name-behind-alerts": ("three warning alerts before the second", TwoHellos(between=_ALERT * 3 + _CCS)),
        "other-name-behind-ccs": ("twenty ChangeCipherSpec before the second", TwoHellos(between=_CCS * 20)),
        "other-name-behind-empty": ("an empty record before the second", TwoHellos(between=record(b"") + _CCS)),
        "other-name-behind-request": ("HelloRequest before the second", TwoHellos(between=record(b"\0\0\0\0"))),
        "other-name-behind-data": ("application data before it", TwoHellos(between=record(b"x" * 20, 23, 0x0303))),
        "other-name-ccs-of-1.0": ("ChangeCipherSpec of TLS 1.0 before it", TwoHellos(between=record(b"\1", 20))),
        "other-name-with-early-data-at-once": ("early data, both at once", TwoHellos(early_data=True, waits=False)),
        "wildcard-in-second": ("* for a label in the second", TwoHellos(second=b"*.BASE")),
        "dot-in-second": ("the root's dot in the second", TwoHellos(second=b"BASE.")),
        "nul-in-second": ("a NUL behind the name in the second", TwoHellos(second=b"BASE\0")),
        "label-of-64-in-second": ("a label of 64 octets in the second", TwoHellos(second=b"a" * 64 + b".BASE")),
        "utf-8-in-second": ("a letter in UTF-8 in the second", TwoHellos(second="café.BASE".encode())),
        "address-first": ("first an address, then the banned name", TwoHellos(first=b"8.8.8.8")),
        "empty-name-first": ("first an empty name, then the banned one", TwoHellos(first=b"\0")),
        "no-name-first-at-once": ("first no name, the banned one at once", TwoHellos(first=None, waits=False)),
        "no-name-first-in-its-record": ("no name, then one in its record", TwoHellos(first=None, octets_early=16384)),
        "name-only-in-second": ("first no name, then the banned one", TwoHellos(first=None)),
        "odd-name-first": ("first a name that is none", TwoHellos(first=b"a!b.example.org")),
        "name-in-both": ("the banned name in both", TwoHellos(first=b"")),
    }
    for name, (what, hellos) in shapes.items():
        yield _attempt(name, what, hellos.play, innocent=name == "name-in-both")
