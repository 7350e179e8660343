"""Random first bytes, against real servers: what tokgate lets through must get nobody the banned name.

`make fuzz` runs it for SECONDS. Nothing is carried: the reader says what of the octets would reach a server, and that
is sent to each. Requests that are read by the book are decided by their host, and aren't tried here.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from evasion.python_server import BANNED_PAGE
from evasion.servers import ALLOWED, BANNED, Server, Servers, running_servers
from tokgate.evasion.attempt import Attempt, Family, Opens, Result, ServerReply, Stream, Target, send_all
from tokgate.evasion.families.http_heads import REQUEST
from tokgate.evasion.hello import X25519, hello_12, hello_13, record, server_name
from tokgate.evasion.replies import Second, read_answer, read_page
from tokgate.evasion.trial import AttemptRoute, Carriage, make
from tokgate.traffic.client_messages import FirstBytesReader, after
from tokgate.traffic.seen import FirstBytes, Hello, OtherBytes

CORPUS: Final = Path(__file__).parent / "corpus"
"""What was once let through and served, and is not any more."""
SERVICE: Final = "clips.example.org"
AT_ONCE: Final = 16
PATIENCE: Final = 1.0
"""Seconds after which a server isn't waited for."""
_TARGET: Final = Target(BANNED, "", 0)
_KEY: Final = X25519PrivateKey.from_private_bytes(bytes(range(32)))
_FIRST: Final = hello_13(server_name(ALLOWED.encode()), shares=[])
_INNER: Final = hello_12(server_name(ALLOWED.encode()))
_SECOND: Final = hello_13(
    server_name(BANNED.encode()), (0xFFAA, _INNER), shares=[(X25519, _KEY.public_key().public_bytes_raw())]
)
_KINDS: Final = (20, 21, 22, 23, 24, 0, 99, 0x80)
_VERSIONS: Final = (0x0301, 0x0303, 0x0300, 0x0304, 0x0201, 0x0001, 0x0FFF, 0x1000, 0xFEFF)
_FILLINGS: Final = (b"", b"\1", b"\1\x70", b"\1\0", b"\2\x28", b"\0\0\0\0", b"\1\0\0\0", b"\x18\0\0\1\0", bytes(40))
_HEAD_PARTS: Final = (
    *(bytes([octet]) for octet in (*range(0x21), 0x22, 0x28, 0x2F, 0x3A, 0x7F, 0x80, 0x85, 0xA0, 0xFF)),
    *(
        b"\r\n",
        b"\r",
        b"\n\n",
        b"HTTP/1.1",
        b"HTTP/1.0",
        b"GET ",
        b"POST ",
        b"http://",
        BANNED.encode(),
        b"\xef\xbb\xbf",
    ),
    *(b"RTSP/1.0", b"PRI * HTTP/2.0\r\n\r\n", b"PROXY UNKNOWN\r\n", b"get", b"M-SEARCH", b"SOURCE", b"ICE/1.0"),
)


def let_through(sent: bytes) -> bytes:
    """What of `sent` gets to a server, of a client under a ban of `SERVICE`; the server asks for a second hello."""
    first = FirstBytesReader()
    seen = first.feed(sent) or first.ended()
    if not _passes(seen):
        return b""
    watched = after(seen, sent)
    if watched is None:
        return sent
    passed = sent[: len(sent) - len(watched.rest)]
    second = watched.reader()
    then = second.feed(watched.rest) if watched.rest else None
    return passed + bytes(second.received) if then is not None and _passes(then) else passed


def _passes(seen: FirstBytes) -> bool:
    if isinstance(seen, Hello):
        hello = seen.hello
        allowed = hello.names_a_host and SERVICE not in (hello.name or "").lower()
        return hello.is_nameless or (allowed and _kept(seen))
    return isinstance(seen, OtherBytes)


def _kept(seen: Hello) -> bool:
    """Whether a second hello names the same as the first."""
    return seen.retry_of is None or seen.retry_of.rstrip(".") == (seen.hello.name or "").lower().rstrip(".")


@dataclass(frozen=True, slots=True)
class Kind:
    """What is made up, and how it is seen that it was served."""

    name: str
    tls: bool
    draw: Callable[[Random], bytes]
    read: Callable[[Stream, Target], ServerReply]


def _cut(random: Random, octets: bytes) -> list[bytes]:
    """Octets in a few pieces."""
    cuts = sorted(random.randrange(len(octets) + 1) for _ in range(random.choice((0, 0, 1, 1, 2, 5))))
    edges = [0, *cuts, len(octets)]
    return [octets[start:end] for start, end in pairwise(edges)]


def _flipped(random: Random, octets: bytes) -> bytes:
    """Octets of which a few were set, taken out or put in."""
    data = bytearray(octets)
    for _ in range(random.choice((0, 1, 1, 2, 3))):
        at = random.randrange(len(data) + 1)
        match random.randrange(3):
            case 0:
                data[at : at + 1] = bytes([random.choice((0, 1, 2, 3, 0x16, 0x80, 0xFF, random.randrange(256)))])
            case 1:
                del data[at : at + random.choice((1, 1, 2, 8))]
            case _:
                data[at:at] = random.choice(_FILLINGS)
    return bytes(data)


def _records(random: Random, messages: bytes) -> bytes:
    """Messages in records, with others among them."""
    version = random.choice(_VERSIONS)
    out = []
    for fragment in (
        part[at : at + 16384] for part in _cut(random, messages) for at in range(0, len(part) or 1, 16384)
    ):
        while random.random() < 0.3:
            out.append(record(random.choice(_FILLINGS), random.choice(_KINDS), random.choice(_VERSIONS)))
        out.append(record(fragment, version=version if random.random() < 0.8 else random.choice(_VERSIONS)))
    return b"".join(out)


def _hello(random: Random) -> bytes:
    extensions = [server_name(BANNED.encode())]
    if random.random() < 0.2:
        extensions.insert(random.randrange(2), server_name(ALLOWED.encode()))
    if random.random() < 0.2:
        extensions.insert(0, (0x0015, bytes(random.choice((0, 200, 15000, 16300, 65366)))))
    message = hello_12(*extensions, version=random.choice((0x0303, 0x0303, 0x0301, 0x0304, 0x0400)))
    if random.random() < 0.3:
        message = _flipped(random, message)
    return _flipped(random, _records(random, message)) if random.random() < 0.5 else _records(random, message)


def _two_hellos(random: Random) -> bytes:
    """The second may hold a third: cut there, its end is a hello of its own."""
    whole = _FIRST + _SECOND
    at = whole.index(_INNER)
    cuts = sorted(
        random.sample([len(_FIRST), len(_FIRST) + 1, at, random.randrange(1, len(whole))], random.randrange(4))
    )
    edges = [0, *cuts, len(whole)]
    out = []
    for start, end in pairwise(edges):
        if random.random() < 0.15:
            out.append(record(random.choice(_FILLINGS), random.choice(_KINDS[:5]), 0x0303))
        out.append(record(whole[start:end], version=0x0303))
    return b"".join(out)


def _head(random: Random) -> bytes:
    line, fields = _TARGET.fill(REQUEST).split(b"\r\n", 1)
    data = bytearray(line)
    for _ in range(random.choice((1, 1, 2, 3))):
        at = random.choice((0, 0, 3, 3, 4, 5, 5, len(data), random.randrange(len(data) + 1)))
        data[at : at + random.choice((0, 0, 1))] = random.choice(_HEAD_PARTS)
    end = random.choice((b"\r\n", b"\r\n", b"\n", b"\r", b"\r\r\n", b"\n\r\n"))
    return bytes(data) + end + (fields if random.random() < 0.7 else fields.replace(b"\r\n", end))


def _read_two(stream: Stream, target: Target) -> ServerReply:
    return read_answer(stream, target, _FIRST, _KEY, Second(_SECOND))


def _read_head(stream: Stream, _: Target) -> ServerReply:
    answer = read_page(stream.receive)
    return ServerReply(Result.SERVED if BANNED_PAGE in answer.body else Result.OTHER, answer.detail)


KINDS: Final = (
    Kind("hello", True, _hello, read_answer),
    Kind("two-hellos", True, _two_hellos, _read_two),
    Kind("head", False, _head, _read_head),
)


def served_by(servers: Servers, kind: Kind, sent: bytes) -> Iterator[Server]:
    def play(stream: Stream, target: Target) -> ServerReply:
        """Send all, and that it is all: so no server waits for more."""
        send_all(stream, [sent])
        with contextlib.suppress(OSError):
            stream.end()
        return kind.read(stream, target)

    opens, route = Opens.TLS if kind.tls else Opens.HTTP, AttemptRoute(carriage=Carriage.ROUTE, patience=PATIENCE)
    attempt = Attempt("fuzz", "", play, family=Family.TLS_RECORDS, opens=opens)
    for server in Server:
        if server in (Server.RECORDER, Server.NAMELESS) or server.missing:
            continue
        target = Target(BANNED, "127.0.0.1", servers.port(server, tls=kind.tls))
        if make(attempt, route, target).result is Result.SERVED:
            yield server


def run(seconds: float, seed: int, folder: Path) -> int:
    """Make octets up for so long, and keep those that were served in the corpus. How many."""
    random, tried, passed, found = Random(seed), Counter[str](), Counter[str](), 0
    give_up = time.monotonic() + seconds
    with running_servers(folder) as servers, ThreadPoolExecutor(AT_ONCE) as pool:

        def made() -> Iterator[tuple[Kind, bytes, bytes]]:
            while time.monotonic() < give_up:
                kind = random.choice(KINDS)
                sent = kind.draw(random)
                tried[kind.name] += 1
                through = let_through(sent)
                if through:
                    passed[kind.name] += 1
                    yield kind, sent, through

        def ask(one: tuple[Kind, bytes, bytes]) -> tuple[Kind, bytes, list[Server]]:
            return one[0], one[1], list(served_by(servers, one[0], one[2]))

        source = made()
        while batch := [one for _, one in zip(range(AT_ONCE * 4), source, strict=False)]:
            for kind, sent, by in pool.map(ask, batch):
                if by:
                    found += 1
                    path = CORPUS / f"{kind.name}-{sha256(sent).hexdigest()[:12]}"
                    path.write_bytes(sent)
                    _say(f"{path.name}: {', '.join(by)}: {sent[:60]!r}")
    for kind in KINDS:
        _say(f"{kind.name}: {tried[kind.name]} made up, {passed[kind.name]} passed and asked for")
    _say(f"{found} served, seed {seed}")
    return found


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    """1 if anything was served."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=time.time_ns() & 0xFFFFFFFF)
    arguments = parser.parse_args()
    CORPUS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        return 1 if run(arguments.seconds, arguments.seed, Path(folder)) else 0


if __name__ == "__main__":
    sys.exit(main())
