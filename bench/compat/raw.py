"""Raw octets between a client and the origin: what each of them got, in a form that two roads can be compared by."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import socket
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

from compat.first_words import WORDS, Words
from compat.http_cases import HTTP_CASES, HttpCase
from compat.lab import HTTP_PORTS, WORD_PORTS, Lab, Road, Way

SECONDS: Final = 8.0
"""Of patience: a greeting that a proxy waits for takes some of it."""
PROXY_PORT: Final = 8080
type Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
type Seen = dict[tuple[str, int], list[str]]


@dataclass
class Message:
    """A request or an answer as a lenient reader takes it; `whole`: nothing of it is missing."""

    start: bytes
    head: bytes = b""
    body: bytes = b""
    whole: bool = True

    @property
    def status(self) -> str:
        """Of an answer; `0.9` for one without a head."""
        found = re.match(rb"(?:HTTP/\d\.\d|ICY) +(\d{3})", self.start, re.IGNORECASE)
        return found[1].decode() if found else "0.9"

    def text(self, start: str) -> str:
        """What has to be the same: the start, our own fields, and the body."""
        own = re.findall(rb"(?im)^(x-case[^:\r\n]*):[ \t]*([^\r\n]*?)[ \t]*\r?$", self.head)
        fields = hashlib.sha256(repr(sorted((n.lower(), v) for n, v in own)).encode()).hexdigest()[:6] if own else "-"
        body = hashlib.sha256(self.body).hexdigest()[:6] if self.body else "-"
        return f"{start} fields {fields} body {len(self.body)}:{body}{'' if self.whole else ' cut'}"


def body_of(head: bytes, rest: bytes, *, none: bool, to_end: bool, ended: bool) -> tuple[bytes, bytes, bool] | None:
    """The body, what follows it, and whether it is whole; None: wait for more."""
    if none:
        return b"", rest, True
    if re.search(rb"(?im)^transfer-encoding *:.*chunked", head):
        body, at = b"", 0
        while line := re.compile(rb"([0-9a-fA-F]*)[^\n]*\n").match(rest, at):
            size = int(line[1] or b"0", 16)
            at = line.end()
            if not size:
                end = re.compile(rb"(?:[^\r\n]+\r?\n)*\r?\n").match(rest, at)
                return (body, rest[end.end() :], True) if end else (body, b"", False) if ended else None
            body += rest[at : at + size]
            at += size
            at += 2 if rest[at : at + 1] == b"\r" else 1
        return (body, b"", False) if ended else None
    if length := re.search(rb"(?im)^content-length *: *\+?(\d+)", head):
        size = int(length[1])
        if len(rest) >= size:
            return rest[:size], rest[size:], True
        return (rest, b"", False) if ended else None
    if not to_end:
        return b"", rest, True
    return (rest, b"", True) if ended else None


def split_head(octets: bytes) -> tuple[bytes, bytes, bytes] | None:
    """Start line, fields, and what follows."""
    octets = octets.lstrip(b"\r\n")
    end = re.search(rb"\r?\n\r?\n", octets)
    if end is None:
        return None
    start, _, head = octets[: end.end()].partition(b"\n")
    return start.rstrip(b"\r"), head, octets[end.end() :]


class Server:
    """The origin's end of all cases, on a port for each. `seen`: requests, by the address and port they came for."""

    def __init__(self) -> None:
        self.seen: Seen = {}
        self.said: dict[tuple[str, int], list[bytes]] = {}
        self._servers: list[asyncio.Server] = []

    async def start(self, lab: Lab) -> None:
        """Listen at all addresses of the origin."""
        for cases in (zip(HTTP_PORTS, HTTP_CASES, strict=False), zip(WORD_PORTS, WORDS, strict=False)):
            for port, case in cases:
                sock = lab.origin.inside(partial(socket.create_server, ("0.0.0.0", port), backlog=64))
                self._servers.append(await asyncio.start_server(self._serve(case), sock=sock, limit=1 << 22))

    def stop(self) -> None:
        """Take no more."""
        for server in self._servers:
            server.close()

    def _serve(self, case: HttpCase | Words) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            key = writer.get_extra_info("sockname")[:2]
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(4 * SECONDS):
                    if isinstance(case, HttpCase):
                        await self._http(case, reader, writer, key)
                    else:
                        await talk(case, reader, writer, self.said.setdefault(key, []), server=True)
            writer.transport.abort()

        return serve

    async def _http(
        self, case: HttpCase, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: tuple[str, int]
    ) -> None:
        octets, ended = b"", False
        if case.first:
            writer.write(case.answers[0])
            await _end(reader, writer)
            return
        for number, answer in enumerate(case.answers):
            expected = False
            while True:
                parts = _simple(octets) if b"0.9" in case.name.encode() else split_head(octets)
                if parts is not None:
                    start, head, rest = parts
                    found = body_of(head, rest, none=case.early, to_end=False, ended=ended)
                    if found is not None:
                        break
                    if b"100-continue" in head and not expected:
                        expected = True
                        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                if ended:
                    return
                more = await reader.read(1 << 20)
                octets, ended = octets + more, not more
            body, octets, whole = found
            line = re.sub(rb" http://[^/ ]*(?=[/ ])", b" ", start, flags=re.IGNORECASE)
            line = re.sub(rb" HTTP/1\.\d$", b"", line, flags=re.IGNORECASE)
            request = Message(start, head, b"" if case.early else body, whole)
            self.seen.setdefault(key, []).append(request.text(line.decode("latin-1")[:60] + f"+{len(line)}"))
            pieces = [answer[at : at + 1] for at in range(len(answer))] if case.sizes < 0 else [answer]
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.001 if case.sizes < 0 else 0)
            if case.tunnel:
                while more := await reader.read(1 << 16):
                    writer.write(more)
            if number == len(case.answers) - 1 and case.ends:
                await _end(reader, writer)
                return
        await reader.read()


def _simple(octets: bytes) -> tuple[bytes, bytes, bytes] | None:
    """A request of HTTP/0.9, or what a proxy has made of it."""
    line, ended, rest = octets.partition(b"\r\n")
    if not ended:
        return None
    return split_head(octets) if b" HTTP/" in line else (line, b"", rest)


async def _end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say no more, and read what still comes: a reset would take the answer away."""
    writer.write_eof()
    await reader.read()


async def talk(
    case: Words, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, got: list[bytes], *, server: bool
) -> None:
    """One side of a conversation, to the other's end."""
    mine = case.server_first is server
    for turn in case.turns:
        if mine:
            writer.write(turn)
            await writer.drain()
        else:
            got.append(await _up_to(reader, len(turn)))
            if len(got[-1]) < len(turn):
                return
        mine = not mine
    if not server:
        writer.write_eof()
    got.append(await reader.read())
    if server:
        writer.write_eof()


async def _up_to(reader: asyncio.StreamReader, size: int) -> bytes:
    try:
        return await reader.readexactly(size)
    except asyncio.IncompleteReadError as error:
        return error.partial


@dataclass
class Client:
    """The client's end of cases on one road."""

    lab: Lab
    road: Road
    server: Server

    async def _dial(self, port: int) -> Streams:
        """Connect to the origin, or to the explicit proxy."""
        to = (self.road.gateway, PROXY_PORT) if self.road.way is Way.EXPLICIT else (self.road.address, port)
        sock = self.lab.clients[self.road].inside(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        sock.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(sock, to)
        except BaseException:
            sock.close()
            raise
        return await asyncio.open_connection(sock=sock, limit=1 << 22)

    async def http(self, case: HttpCase, port: int) -> str:
        """What a case of HTTP comes to: answers as the client has them, and requests as the server has."""
        key = (self.road.address, port)
        self.server.seen.pop(key, None)
        answers: list[str] = []
        end = "no connection"
        with contextlib.suppress(OSError):
            async with asyncio.timeout(SECONDS + 5):
                reader, writer = await self._dial(port)
            try:
                end = await self._converse(case, port, reader, writer, answers)
            finally:
                writer.transport.abort()
        return " | ".join([*answers, end, "server:", *self.server.seen.pop(key, [])])

    async def _converse(
        self, case: HttpCase, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answers: list[str]
    ) -> str:
        place = f"{self.road.name}:{port}".encode()
        before = b"http://" + place if self.road.way is Way.EXPLICIT else b""
        octets, ended = b"", False
        waiting = [
            piece.replace(b"{t}", before).replace(b"{h}", place).replace(b"{H}", place.upper()) for piece in case.sends
        ]
        methods: Iterator[bytes] = iter(re.findall(rb"(?m)^([^ \r\n]+) +(?:{t}|\*|http)[^\r\n]*", b"".join(case.sends)))
        method = next(methods, b"GET")
        try:
            async with asyncio.timeout(SECONDS):
                while len(answers) < len(case.answers) or waiting:
                    if waiting:
                        await self._send(case, waiting.pop(0), writer)
                    while True:
                        found, octets = _answer(octets, method, ended)
                        if found is not None:
                            if found.status[0] == "1" and found.status != "101":
                                if waiting:
                                    break
                                continue
                            answers.append(found.text(found.status))
                            method = next(methods, b"GET")
                            break
                        if ended:
                            return "end" if not octets else f"odd end {len(octets)}"
                        more = await reader.read(1 << 20)
                        octets, ended = octets + more, not more
                if case.tunnel and answers[-1].startswith("101"):
                    writer.write(case.tunnel)
                    echoed = octets + await _up_to(reader, len(case.tunnel) - len(octets))
                    return "echo" if echoed == case.tunnel else f"no echo {echoed!r}"
        except TimeoutError:
            return f"nothing more within {SECONDS:g} s"
        except OSError:
            return "reset"
        return "whole"

    async def _send(self, case: HttpCase, piece: bytes, writer: asyncio.StreamWriter) -> None:
        pieces = [piece[at : at + 1] for at in range(len(piece))] if case.sizes > 0 else [piece]
        for one in pieces:
            writer.write(one)
            if case.sizes > 0:
                await writer.drain()
                await asyncio.sleep(0.001)
        if case.half_close:
            writer.write_eof()

    async def words(self, case: Words, port: int) -> str:
        """What a conversation comes to: `as said`, or what each side got."""
        key = (self.road.address, port)
        self.server.said.pop(key, None)
        got: list[bytes] = []
        try:
            async with asyncio.timeout(SECONDS + 5):
                reader, writer = await self._dial(port)
                try:
                    if self.road.way is Way.EXPLICIT:
                        place = f"{self.road.name}:{port}"
                        writer.write(f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n\r\n".encode())
                        head = await reader.readuntil(b"\r\n\r\n")
                        if b" 200" not in head.partition(b"\r\n")[0]:
                            return f"no tunnel: {head[:40]!r}"
                    await talk(case, reader, writer, got, server=False)
                finally:
                    writer.transport.abort()
        except TimeoutError:
            got.append(b"(timeout)")
        except (OSError, asyncio.IncompleteReadError):
            got.append(b"(reset)")
        theirs = self.server.said.get(key, [])
        first = 0 if case.server_first else 1
        wanted = [*case.turns[first::2], b""], [*case.turns[1 - first :: 2], b""]
        if (got, theirs) == wanted:
            return "as said"
        return f"client got {_brief(got)}, server got {_brief(theirs)}"


def _brief(turns: list[bytes]) -> str:
    return "[" + ", ".join(f"{len(turn)}:{turn[:24]!r}" for turn in turns) + "]"


def _answer(octets: bytes, method: bytes, ended: bool) -> tuple[Message | None, bytes]:
    """The first answer, if it is there, and what follows it."""
    begin = octets.lstrip(b"\r\n")
    if begin and not re.match(rb"(?i)(HTTP/|ICY )", begin[:5].ljust(5, b"/") if len(begin) >= 5 else b"HTTP/"):
        return (Message(b"", b"", begin), b"") if ended else (None, octets)
    parts = split_head(octets)
    if parts is None:
        return (Message(b"HTTP/1.1 000", b"", octets, whole=False), b"") if ended and octets else (None, octets)
    start, head, rest = parts
    message = Message(start, head)
    none = method == b"HEAD" or message.status[0] == "1" or message.status in ("204", "304")
    found = body_of(head, rest, none=none, to_end=True, ended=ended)
    if found is None:
        return None, octets
    message.body, rest, message.whole = found
    return message, rest
