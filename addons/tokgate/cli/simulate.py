"""`tokgate simulate`: queries in, decisions out, a line for a line, in constant memory, for as long as lines come."""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from io import BufferedIOBase
from pathlib import Path
from typing import Any, Final, cast

from whenever import Instant

from tokgate.cli.commands import COMMANDS
from tokgate.cli.exits import Exit
from tokgate.cli.instants import read_moment, settle, time_argument
from tokgate.cli.queries import Query, identified, judge, member, outcome, zone_of
from tokgate.cli.revisions import add_source_option, open_source
from tokgate.cli.terminal import narrate, progress_on_stderr
from tokgate.policy.decide import decide, fallback
from tokgate.policy.decision import Decision, Reason
from tokgate.policy.identity import Identity
from tokgate.policy.instants import utc
from tokgate.policy.schedule import Moment
from tokgate.policy.snapshot import Snapshot

EPILOG = """\
examples:
  echo '{"client": "192.0.2.7", "host": "www.example.org"}' | tokgate simulate -
  tokgate simulate --at 2023-03-10T00:00+01:00 queries.ndjson > decisions.ndjson

--policies takes a folder or file, or REV:DIR for a folder in a git revision.

Each line is an object with `client` and `host`, and where wanted `at` (an RFC 3339 instant, or a wall time in the zone
of the client's network), `url` (what a decrypted request showed), and who the client is besides its address: `user`,
`groups` (a list), `device` (hardware address, or name in an inventory), `interface`. Other keys are ignored. Without
`at` a query is decided at --at, or at the instant it is read. Each line gets one line, in order; one that is no query
gets the verdict null and the reason `invalid-query`, is counted on stderr, and makes the exit code 1. Answers are
flushed whenever no further line is waiting: another program can keep this one running and ask as it goes."""

CHUNK: Final = 1 << 18
MAX_LINE: Final = 1 << 20
"""Bytes of one query. A longer line is no query, and is not kept."""


class InvalidQuery(ValueError):
    """A line that is no query; `client` and `host` are echoed as far as they can be."""

    def __init__(self, client: object = None, host: object = None) -> None:
        """Take what was there."""
        super().__init__("no query")
        self.client, self.host = client, host


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `simulate`."""
    summary = COMMANDS["simulate"]
    parser = subparsers.add_parser("simulate", help=summary, description=summary, epilog=EPILOG)
    add_source_option(parser)
    parser.add_argument("--at", type=time_argument, metavar="TIME", help="the instant for lines without one")
    parser.add_argument("file", metavar="FILE", help="file of queries, or - for standard input")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Answer all lines."""
    snapshot = open_source(options.policies, Instant.now())
    simulation = Simulation(snapshot, options.at)
    with _open(options.file) as source:
        _pump(simulation, source)
    if simulation.failed:
        narrate(f"tokgate: {simulation.failed} of {simulation.asked} queries could not be decided (internal-error)")
    if simulation.invalid:
        narrate(f"tokgate: {simulation.invalid} of {simulation.asked} lines hold no query (invalid-query)")
        return Exit.FINDINGS
    return Exit.DONE


def _open(file: str) -> AbstractContextManager[BufferedIOBase]:
    if file == "-":
        return nullcontext(cast(BufferedIOBase, sys.stdin.buffer))
    return Path(file).open("rb")


def _pump(simulation: "Simulation", source: BufferedIOBase) -> None:
    """Answer batch by batch; on a terminal that shows nothing else, with progress."""
    watched = sys.stderr.isatty() and not sys.stdout.isatty() and not sys.stdin.isatty()
    display = progress_on_stderr(count=True) if watched else None
    task = None if display is None else display.add_task("queries", total=None)
    with display or nullcontext():
        for lines in batches(source):
            sys.stdout.write("".join(map(simulation.answer, lines)))
            sys.stdout.flush()
            if display is not None and task is not None:
                display.update(task, description=f"{simulation.asked:,} queries")


def batches(source: BufferedIOBase) -> Iterator[list[bytes | None]]:
    """All lines that have come, as they come; None stands for a line that is too long. Lines end at LF only."""
    rest, skipping = b"", False
    while chunk := source.read1(CHUNK):
        *lines, rest = (rest + chunk).split(b"\n")
        batch: list[bytes | None] = [line if len(line) <= MAX_LINE else None for line in lines]
        if skipping and batch:
            batch[0], skipping = None, False
        if len(rest) > MAX_LINE or skipping:
            rest, skipping = b"", True
        if batch:
            yield batch
    if skipping:
        yield [None]
    elif rest:
        yield [rest]


class Simulation:
    """Answers lines one after another, and counts what was no query."""

    _TAILS: Final = 4096

    def __init__(self, snapshot: Snapshot, at: Moment | None) -> None:
        """`at` is the instant for lines without one; None means the instant at which a line is read."""
        self.asked = self.invalid = self.failed = 0
        self._snapshot: Final = snapshot
        self._at: Final = at
        self._loads: Final = json.JSONDecoder(parse_constant=_no_constant).decode
        self._dumps: Final = json.JSONEncoder(allow_nan=False).encode
        self._moment: Final = lru_cache(maxsize=1024)(read_moment)
        # Decisions are shared between queries that cannot be told apart, so most are put into words only once.
        self._tails: dict[int, tuple[Decision, str]] = {}

    def answer(self, line: bytes | None) -> str:
        """One line for one line, with its newline."""
        self.asked += 1
        try:
            query = self._query(line)
        except InvalidQuery as invalid:
            self.invalid += 1
            client, host = self._echo(invalid.client), self._echo(invalid.host)
            return f'{{"client": {client}, "host": {host}, "at": null, {_INVALID}\n'
        head = f'{{"client": {self._dumps(query.client)}, "host": {self._dumps(query.host)}, "at": "{utc(query.at)}", '
        if query.identity is not None:
            head += f"{self._dumps(identified(query.identity))[1:-1]}, "
        return f"{head}{self._tail(self._decide(query))}\n"

    def _query(self, line: bytes | None) -> Query:
        if line is None:
            raise InvalidQuery
        try:
            asked = self._loads(line.decode())
        except (ValueError, RecursionError):
            raise InvalidQuery from None
        if not isinstance(asked, dict):
            raise InvalidQuery
        client, host, url = asked.get("client"), asked.get("host"), asked.get("url")
        if not isinstance(client, str) or not isinstance(host, str) or not isinstance(url, str | None):
            raise InvalidQuery(client, host)
        try:
            identity = None if asked.keys().isdisjoint(IDENTITY) else read_identity(asked)
            at = self._instant(client, identity, asked.get("at"))
        except ValueError:
            raise InvalidQuery(client, host) from None
        return Query(client, host, at, url, identity)

    def _instant(self, client: str, identity: Identity | None, at: Any) -> Instant:
        if at is None:
            moment = self._at
            if moment is None:
                return Instant.now()
        elif isinstance(at, str) and at != "now":
            moment = self._moment(at)
        else:
            raise ValueError("`at` is no time")
        if isinstance(moment, Instant):
            return moment
        return settle(moment, zone_of(self._snapshot, member(self._snapshot, client, identity)))

    def _decide(self, query: Query) -> Decision:
        try:
            if query.url is None and query.host is not None:  # the same as judging one sighting, at a third of the cost
                return decide(self._snapshot, query.client, query.host, query.at, identity=query.identity)
            return judge(self._snapshot, query).decision
        except Exception:  # as live traffic: what `on_error` says, and counted
            self.failed += 1
            return fallback(self._snapshot, query.host or "")

    def _tail(self, decision: Decision) -> str:
        found = self._tails.get(id(decision))
        if found is not None:
            return found[1]
        if len(self._tails) >= self._TAILS:
            self._tails.clear()
        tail = self._dumps(outcome(decision))[1:]
        self._tails[id(decision)] = decision, tail  # keeping the decision keeps its id from being used again
        return tail

    def _echo(self, value: object) -> str:
        try:
            return self._dumps(value)
        except (ValueError, RecursionError):  # 1e999, or nested deeper than can be written
            return "null"


IDENTITY: Final = frozenset({"user", "groups", "device", "interface"})
"""The keys of a query that say who the client is besides its address."""


def read_identity(asked: Mapping[str, Any]) -> Identity | None:
    """Who a query says that the client is. Raises ValueError when that makes no sense."""
    user, device, interface = asked.get("user"), asked.get("device"), asked.get("interface")
    groups = asked.get("groups") or []
    if not all(isinstance(each, str | None) for each in (user, device, interface)):
        raise ValueError("who the client is is said by text")
    if not isinstance(groups, list) or not all(isinstance(group, str) for group in groups):
        raise ValueError("`groups` is a list of names")
    return Identity(user, frozenset(groups), device, interface) or None


def _no_constant(name: str) -> object:
    """NaN and Infinity are not JSON (RFC 8259 §6), although Python reads them."""
    raise ValueError(name)


_INVALID: Final = json.dumps(
    dict.fromkeys(
        ("verdict", "phase", "service", "rule", "signal", "network", "ban", "exemption", "response"),
    )
    | {"reason": Reason.INVALID_QUERY, "next_change": None}
)[1:]
