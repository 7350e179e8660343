"""Reads response policy zones (RPZ, draft-vixie-dnsop-dns-rpz): zone files whose owners are the names to be refused."""

import re
from ipaddress import IPv6Address, ip_network
from typing import Any, Final

import dns.exception
import dns.name
import dns.rdataclass
import dns.rdatatype
import dns.tokenizer
import dns.zonefile

from tokgate.config.service_lists.entries import Entry, EntryKind, Place, ServiceList

_TRIGGERS: Final = ("rpz-ip", "rpz-client-ip", "rpz-nsdname", "rpz-nsip")
_MOST_BAD: Final = 50
"""Lines that are left out, one a reading, before the file is taken to be no zone."""
_IGNORED: Final = frozenset({dns.rdatatype.SOA, dns.rdatatype.NS})
_IPV4: Final = 32
_OCTETS: Final = 4

_Record = tuple[dns.name.Name, Any, int]
"""Owner, rdata and line."""


def read_rpz(file: str, text: str) -> ServiceList:
    """Read a zone file. A name with `*.name` beside it is a suffix; `*.name` alone is taken as one, too."""
    found = ServiceList()
    lines = text.splitlines()
    for _ in range(_MOST_BAD):
        reading = _Reading("\n".join((*lines, "")))
        bad = reading.run()
        if bad is None:
            break
        number, why = _line_with_text(lines, bad[0]), bad[1]
        found.refuse(Place(file, number), lines[number - 1], f"not a record of a zone file: {why}")
        lines[number - 1] = ""
    else:
        found.refuse(Place(file, 1), "", f"more than {_MOST_BAD} lines can't be read: no zone file")
        return found
    apex = reading.apex
    for owner, rdata, number in reading.records:
        if rdata.rdtype == dns.rdatatype.SOA:
            found.said.setdefault("revision", f"serial {rdata.serial}")
        if rdata.rdtype not in _IGNORED:
            _take(found, owner.relativize(apex), rdata, Place(file, number), lines[number - 1])
    _join_wildcards(found)
    return found


def _line_with_text(lines: list[str], number: int) -> int:
    """The number of the nearest line that says something, at or before `number`, else after it."""
    before = (n for n in range(min(number, len(lines)), 0, -1) if lines[n - 1].strip())
    return next(before, next((n for n, line in enumerate(lines, 1) if line.strip()), 1))


def _take(found: ServiceList, owner: dns.name.Name, rdata: Any, place: Place, line: str) -> None:
    labels = [label.decode("ascii", "replace") for label in owner.labels if label]
    trigger = next((label for label in labels[-1:] if label in _TRIGGERS), None)
    target = rdata.target.to_text().lower() if rdata.rdtype == dns.rdatatype.CNAME else ""
    if target.startswith("rpz-tcp-only"):
        found.refuse(place, line, "it sends clients to TCP and refuses nothing")
    elif trigger == "rpz-ip":
        prefix = _prefix(labels[:-1])
        if prefix is None:
            found.refuse(place, line, "not an address in the form of `rpz-ip`")
        else:
            _keep(found, Entry(EntryKind.ADDRESS, prefix, place), target)
    elif trigger is not None:
        found.refuse(place, line, f"`{trigger}` is about clients or name servers, not about a service's names")
    elif labels:
        wild = labels[0] == "*"
        name = ".".join(labels[wild:])
        _keep(found, Entry(EntryKind.SUFFIX if wild else EntryKind.EXACT, name, place), target)


def _keep(found: ServiceList, entry: Entry, target: str) -> None:
    (found.exceptions if target.startswith("rpz-passthru") else found.entries).append(entry)


def _join_wildcards(found: ServiceList) -> None:
    """Leave out the exact entry where the same name is a suffix."""
    below = {each.value for each in found.entries if each.kind is EntryKind.SUFFIX}
    found.entries = [each for each in found.entries if each.kind is not EntryKind.EXACT or each.value not in below]


def _prefix(labels: list[str]) -> str | None:
    """`24.0.2.0.192` as 192.0.2.0/24, `48.zz.db8.2001` as 2001:db8::/48; None for anything else."""
    try:
        length, parts = int(labels[0]), labels[:0:-1]
        if len(parts) == _OCTETS and all(part.isdecimal() for part in parts) and length <= _IPV4:
            return str(ip_network(f"{'.'.join(parts)}/{length}"))
        written = ":".join("" if part == "zz" else part for part in parts)
        written = f":{written}" if parts[0] == "zz" else written
        written = f"{written}:" if parts[-1] == "zz" else written
        return str(ip_network(f"{IPv6Address(written)}/{length}"))
    except (ValueError, IndexError):
        return None


class _Reading:
    """One reading of a zone file by dnspython, as the transaction that its reader fills; owners are absolute."""

    def __init__(self, text: str) -> None:
        self.records: list[_Record] = []
        self._origin: dns.name.Name | None = None
        self._tokens: Final = dns.tokenizer.Tokenizer(re.sub(r"(?m)^//.*$", "", text))
        self.manager: Final = self

    @property
    def apex(self) -> dns.name.Name:
        """The zone's own name: of its SOA, else the first `$ORIGIN`, else the root."""
        of_soa = (owner for owner, rdata, _ in self.records if rdata.rdtype == dns.rdatatype.SOA)
        return next(of_soa, self._origin or dns.name.root)

    def run(self) -> tuple[int, str] | None:
        """Read all records; the line that ended the reading and why, or None at the end of the file."""
        reader = dns.zonefile.Reader(
            self._tokens,
            dns.rdataclass.IN,
            self,  # type: ignore[arg-type]
            allow_directives=("$ORIGIN", "$TTL"),  # others read files, or make records without end
            default_ttl=0,
        )
        try:
            reader.read()
        except (dns.exception.DNSException, ValueError) as error:
            where = self._tokens.where()[1]
            return max(1, where - self._behind()), str(error).rpartition(": ")[2] or type(error).__name__
        return None

    def _behind(self) -> int:
        """One, where the tokenizer has read the end of the line already."""
        return int(self._tokens.ungotten_token is not None and self._tokens.ungotten_token.is_eol())

    # What the reader asks of its transaction and of its manager.

    def origin_information(self) -> tuple[dns.name.Name, bool, dns.name.Name]:
        return dns.name.root, False, dns.name.root

    def check_put_rdataset(self, _check: object) -> None:
        """A policy zone may hold what another zone may not."""

    def add(self, owner: dns.name.Name, _ttl: int, rdata: Any) -> None:
        self.records.append((owner, rdata, max(1, self._tokens.where()[1] - 1)))

    def _set_origin(self, origin: dns.name.Name) -> None:
        self._origin = self._origin or origin
