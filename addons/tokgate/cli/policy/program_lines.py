"""Lines of other programs' logs as queries: who asked for which name or address, and when.

Squid's access.log (`squid`, `combined`), the query logs of dnsmasq and Unbound (files of their own or syslog), Zeek's
ssl.log and dns.log, and what conntrack prints. Each line tells by itself of which of them it is.
"""

import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any, Final

from whenever import Instant

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
    """Reads lines in the formats of other programs."""

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
            return self._of_stamp(stamp)
        return said.get("iso")

    def _of_stamp(self, stamp: str) -> str:
        """A wall time without a year, in the latest year in which it is not ahead. Raises ValueError."""
        tomorrow = self._now.add(hours=24).to_stdlib().replace(tzinfo=None)
        for year in range(tomorrow.year, tomorrow.year - 8, -1):  # of which two at most have a 29 February
            with suppress(ValueError):
                at = datetime.strptime(f"{year} {stamp}", "%Y %b %d %H:%M:%S")
                if at < tomorrow:
                    return at.isoformat()
        raise ValueError(f"{stamp!r} is no time")


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
