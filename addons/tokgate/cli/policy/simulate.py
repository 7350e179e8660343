"""`tokgate simulate`: reads queries and prints decisions, line by line, in constant memory."""

import argparse
import json
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from datetime import datetime
from functools import lru_cache
from io import BufferedIOBase
from pathlib import Path
from typing import Any, Final, NotRequired, cast

from whenever import Instant

from tokgate.cli.arguments import moment_or_now, settle, time_argument
from tokgate.cli.commands import Exit, Subparsers, add_command
from tokgate.cli.decision_query import DecisionQuery, Grounds, answer, decided, zone_of
from tokgate.cli.policy_source import add_policies_option, open_source
from tokgate.cli.terminal import Patience, narrate, visible
from tokgate.policy.decide import decide_on_error
from tokgate.policy.decision import Reason, Verdict
from tokgate.policy.membership import Identity
from tokgate.policy.schedule import Moment
from tokgate.policy.snapshot import Snapshot

EPILOG = """\
examples:
  echo '{"client": "192.0.2.7", "host": "www.example.org"}' | tokgate simulate -
  tokgate simulate --at 2023-03-10T00:00+01:00 queries.ndjson > decisions.ndjson
  tokgate simulate /var/log/squid/access.log                 what last week's traffic would get

--policies takes a folder or file, or REV:DIR for a folder in a git revision.

Each line is an object with `client`, with `host` or `url` (what a decrypted request showed) or both, and where wanted
`at` (an RFC 3339 instant, or a wall time in the zone of the client's network) and who the client is besides its
address: `user`, `groups` (a list), `device` (hardware address, or name in an inventory), `interface`. Other keys are
ignored. It may also be a line of Squid's access.log, of the query log of dnsmasq or Unbound, of Zeek's ssl.log or
dns.log, or of what conntrack prints; of these, lines that ask for nothing get no answer.

Without `at` a query is decided at --at, or at the instant it is read. Each line gets one line, in order; one
that is no query gets the verdict null and the reason `invalid-query`, and makes the exit code 1; stderr says of the
first 20 which they are and what is wrong. Each answer is flushed: another program can keep this one running and ask as
it goes."""
_TOLD: Final = 20
"""Most lines that are no query of which it is said why."""
MAX_LINE: Final = 1 << 20
"""Bytes of one query. A longer line is no query, and is not kept."""


class InvalidQuery(ValueError):
    """A line that is no query; `client` and `host` are kept for the answer, where they could be read."""

    def __init__(self, why: str, client: object = None, host: object = None) -> None:
        """Take what was there; `why` says what is wrong, without the values."""
        super().__init__(why)
        self.client, self.host = client, host


class QueryReader:
    """Reads queries from lines of NDJSON, and of other programs' logs."""

    def __init__(self, snapshot: Snapshot, at: Moment | None, *, live: bool) -> None:
        """`at` is the instant of lines without one. Without it they are asked as they are read, where `live`."""
        self._snapshot: Final = snapshot
        self._at: Final = at
        self._live: Final = live
        self._loads: Final = json.JSONDecoder(parse_constant=_no_constant).decode
        self._moment: Final = lru_cache(maxsize=4096)(moment_or_now)
        self._others: Final = ProgramLines(Instant.now())

    def read(self, line: bytes | None) -> DecisionQuery | None:
        """The query of a line; None for a line of another program that asks for nothing. Raises InvalidQuery.

        A line that is None is one that was too long.
        """
        if line is None:
            raise InvalidQuery(f"longer than {MAX_LINE} bytes")
        try:
            asked = self._asked(line)
        except UnicodeDecodeError:
            raise InvalidQuery("not UTF-8") from None
        except (ValueError, OverflowError) as error:
            raise InvalidQuery(str(error)) from None
        if asked is None:
            return None
        client, host, url = asked.get("client"), asked.get("host"), asked.get("url")
        wrong = next((key for key, value in (("host", host), ("url", url)) if not isinstance(value, str | None)), None)
        if wrong is not None or not isinstance(client, str):
            key = "client" if wrong is None else wrong
            why = f"`{key}` is missing" if asked.get(key) is None else f"`{key}` is not text"
            raise InvalidQuery(why, client, host)
        if host is None and url is None:
            raise InvalidQuery("`host` or `url` is missing", client)
        try:
            identity = None if asked.keys().isdisjoint(IDENTITY) else read_identity(asked)
            at = self._instant(client, identity, asked.get("at"))
        except ValueError as error:
            raise InvalidQuery(str(error), client, host) from None
        return DecisionQuery(client, host, at, url, identity)

    def _asked(self, line: bytes) -> Mapping[str, Any] | None:
        text = line.decode()
        try:
            asked = self._loads(text)
        except (ValueError, RecursionError):
            return self._others.read(text)
        if not isinstance(asked, dict):
            raise ValueError("not an object")
        return of_zeek(asked) if "id.orig_h" in asked else asked

    def _instant(self, client: str, identity: Identity | None, at: Any) -> Instant:
        if at is None:
            moment = self._at
            if moment is None and not self._live:
                raise ValueError("neither the flow nor --at says when")
            if moment is None:
                return Instant.now()
        elif isinstance(at, str) and at != "now":
            moment = self._moment(at)
        else:
            raise ValueError("`at` is no time")
        if isinstance(moment, Instant):
            return moment
        return settle(moment, zone_of(self._snapshot, self._snapshot.membership(client, identity)))


class Simulation:
    """Answers lines, and counts invalid queries."""

    def __init__(self, snapshot: Snapshot, at: Moment | None) -> None:
        """`at` is the instant of lines without one; None means the time of reading."""
        self.asked = self.invalid = self.failed = 0
        self.told: list[str] = []
        """The first lines that are no query, and why."""
        self._snapshot: Final = snapshot
        self._reader: Final = QueryReader(snapshot, at, live=True)
        self._dumps: Final = json.JSONEncoder(allow_nan=False).encode

    def answer(self, line: bytes | None) -> str:
        """The answer to a line, with its newline; none to a line of another program that asks for nothing."""
        self.asked += 1
        try:
            query = self._reader.read(line)
        except InvalidQuery as invalid:
            self.invalid += 1
            if len(self.told) < _TOLD:
                self.told.append(f"line {self.asked}: {invalid}")
            echoed = {"client": self._echo(invalid.client), "host": self._echo(invalid.host)}
            return f"{self._dumps(echoed | _INVALID)}\n"
        if query is None:
            return ""
        try:
            decision = decided(self._snapshot, query, query.at)
        except Exception:  # as live traffic: what `on_error` says, and counted
            self.failed += 1
            decision = decide_on_error(self._snapshot, query.host or "")
        return f"{self._dumps(answer(query, decision))}\n"

    def _echo(self, value: object) -> object:
        try:
            self._dumps(value)
        except (ValueError, RecursionError):  # 1e999, or nested deeper than can be written
            return None
        return value


class Simulated(Grounds):
    """A line of `tokgate simulate`. `client` and `host` are echoed as they came, whatever they are."""

    client: object
    host: object
    at: object
    user: NotRequired[object]
    groups: NotRequired[object]
    device: NotRequired[object]
    interface: NotRequired[object]
    verdict: Verdict | None


def add_parser(subparsers: Subparsers) -> None:
    parser = add_command(subparsers, "simulate", EPILOG)
    parser.add_argument("--at", type=time_argument, metavar="TIME", help="the instant for lines without one")
    parser.add_argument("file", metavar="FILE", help="file of queries, or - for standard input")
    add_policies_option(parser, revisions=True)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Answer each line of the input. Exit code 1 if a line is no query."""
    snapshot = open_source(options.policies, Instant.now())
    simulation = Simulation(snapshot, options.at)
    watched = sys.stderr.isatty() and not sys.stdout.isatty() and not sys.stdin.isatty()
    with opened(options.file) as source, Patience("queries") as patience:
        for line in lines_of(source):
            sys.stdout.write(simulation.answer(line))
            sys.stdout.flush()  # another program may wait for it, and ask as it goes
            if watched:
                patience(simulation.asked, None)
    if simulation.failed:
        narrate(f"tokgate: {simulation.failed} of {simulation.asked} queries could not be decided (internal-error)")
    for told in simulation.told:
        narrate(f"tokgate: {visible(told)}")
    if simulation.invalid:
        narrate(f"tokgate: {simulation.invalid} of {simulation.asked} lines hold no query (invalid-query)")
        return Exit.FINDINGS
    return Exit.DONE


def opened(file: str) -> AbstractContextManager[BufferedIOBase]:
    """A file to be read, or standard input for `-`, which stays open. Raises OSError."""
    return nullcontext(cast(BufferedIOBase, sys.stdin.buffer)) if file == "-" else Path(file).open("rb")


def lines_of(source: BufferedIOBase) -> Iterator[bytes | None]:
    """The lines, which end at LF only, as they come; None for one that is longer than MAX_LINE, which is not kept."""
    while line := source.readline(MAX_LINE + 1):
        if len(line) <= MAX_LINE or line.endswith(b"\n"):
            yield line.removesuffix(b"\n")
            continue
        while (rest := source.readline(MAX_LINE)) and not rest.endswith(b"\n"):
            pass
        yield None


IDENTITY: Final = frozenset({"user", "groups", "device", "interface"})
"""The keys of a query that say who the client is besides its address."""


def read_identity(asked: Mapping[str, Any]) -> Identity | None:
    """The identity in a query. Raises ValueError if it is invalid."""
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


_NOTHING: Final = ("at", "verdict", "phase", "service", "rule", "signal", "network", "ban", "exemption", "response")
_INVALID: Final = {**dict.fromkeys(_NOTHING), "reason": Reason.INVALID_QUERY, "next_change": None}


_WHEN: Final = r"(?:(?P<stamp>[A-Z][a-z]{2} [ \d]\d [\d:]{8})|(?P<iso>\d{4}-\d\d-\d\dT\S+)|\[(?P<epoch>\d+)\])"
"""As syslog and most programs write it, in ISO 8601, or in seconds since 1970."""
_QUERIES: Final = tuple(
    re.compile(pattern)
    for pattern in (
        # squid: time elapsed client code/status octets method URL user hierarchy type
        r"(?P<epoch>\d+\.\d{3}) +-?\d+ (?P<client>\S+) \S+/\d+ \d+ (?P<method>[A-Z]+) (?P<asked>\S+) (?P<user>\S+) ",
        # combined: client ident user [time] "method URL version" …
        r'(?P<client>\S+) \S+ (?P<user>\S+) \[(?P<day>[^\]]+)\] "(?P<method>[A-Z]+) (?P<asked>\S+) \S+" ',
        # dnsmasq with log-queries, or log-queries=extra
        rf"{_WHEN} (?:\S+ )?dnsmasq\[\d+\]: (?:\d+ \S+ )?query\[\S+\] (?P<asked>\S+) from (?P<client>\S+)$",
        # Unbound with log-queries
        rf"{_WHEN} (?:\S+ )?unbound\[[\d:]+\](?:: \[[\d:]+\])? info: (?P<client>\S+) (?P<asked>\S+) \S+ IN$",
        # conntrack -L, or -E with -o timestamp or without it
        r"(?:\[(?P<epoch>[\d.]+)\]\s+)?(?:\[NEW\] )?(?:ipv\d +\d+ )?\w+ +\d+ .*?src=(?P<client>\S+) dst=(?P<asked>\S+)",
    )
)
_OTHERS: Final = re.compile(
    rf"{_WHEN} (?:\S+ )?(?:dnsmasq|unbound)(?:-\w+)?\[[\d:]+\]|#|"
    r"\d+\.\d{3} +-?\d+ \S+ NONE|\S+ \S+ \S+ \[[^\]]+\] \"- error:|"
    r"conntrack v|(?:\[\d+\.\d+\]\s+)?\[(?:UPDATE|DESTROY)\]"
)
"""Lines of these programs that ask for nothing: answers, starts, headings, what was no request, ends of connections."""


class ProgramLines:
    """Reads lines of other programs' logs as queries: who asked for which name or address, and when.

    Squid's access.log (`squid`, `combined`), the query logs of dnsmasq and Unbound (files of their own or syslog),
    Zeek's ssl.log and dns.log, and what conntrack prints. Each line tells by itself of which of them it is.
    """

    def __init__(self, now: Instant) -> None:
        """`now` tells the year of times that have none: the latest that is not ahead."""
        self._now: Final = now
        self._fields: list[str] = []
        """The columns of Zeek's log, as its heading names them."""

    def read(self, line: str) -> Mapping[str, Any] | None:
        """A line as a query in the keys of NDJSON; None for one that asks for nothing. Raises ValueError."""
        line = line.rstrip("\r")
        if line.startswith("#fields\t"):
            self._fields = line.split("\t")[1:]
        elif self._fields and line.count("\t") + 1 == len(self._fields) and not line.startswith("#"):
            return of_zeek(dict(zip(self._fields, line.split("\t"), strict=True)))
        line = line.strip()
        for pattern in _QUERIES:
            if (found := pattern.match(line)) is not None:
                return self._query(found.groupdict())
        if _OTHERS.match(line):
            return None
        raise ValueError("not JSON, and no line of Squid, dnsmasq, Unbound, Zeek or conntrack")

    def _query(self, said: dict[str, str | None]) -> dict[str, Any]:
        asked, method = said["asked"] or "", said.get("method")
        query: dict[str, Any] = {"client": said["client"], "at": self._at(said)}
        if method == "CONNECT":
            query["host"] = asked.rpartition(":")[0]
        else:
            query["url" if method else "host"] = asked
        if said.get("user") not in (None, "-"):
            query["user"] = said["user"]
        return query

    def _at(self, said: dict[str, str | None]) -> str | None:
        if (epoch := said.get("epoch")) is not None:
            return _of_epoch(epoch)
        if (day := said.get("day")) is not None:
            return datetime.strptime(day, "%d/%b/%Y:%H:%M:%S %z").isoformat()
        if (stamp := said.get("stamp")) is not None:
            tomorrow = self._now.add(hours=24).to_stdlib().replace(tzinfo=None)
            for year in range(tomorrow.year, tomorrow.year - 8, -1):  # of which two at most have a 29 February
                with suppress(ValueError):  # it has no year: in the latest in which it is not ahead
                    at = datetime.strptime(f"{year} {stamp}", "%Y %b %d %H:%M:%S")
                    if at < tomorrow:
                        return at.isoformat()
            raise ValueError(f"{stamp!r} is no time")
        return said.get("iso")


def of_zeek(row: Mapping[str, Any]) -> dict[str, Any] | None:
    """A row of ssl.log or dns.log as a query in the keys of NDJSON; None for one that asks for nothing.

    A connection without a name is one to its address.
    """
    name = row.get("query") if "query" in row else row.get("server_name")
    if name in (None, "-", "(empty)", ""):
        name = None if "query" in row else row.get("id.resp_h")
    ts = row.get("ts")
    if name is None:
        return None
    at = ts if isinstance(ts, str) and "T" in ts else _of_epoch(ts)
    return {"client": row.get("id.orig_h"), "host": name, "at": at}


def _of_epoch(said: Any) -> str | None:
    """Seconds since 1970 as an instant in ISO 8601; None where nothing is said. Raises ValueError."""
    return None if said is None else Instant.from_timestamp(float(said)).format_iso()
