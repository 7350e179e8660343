"""Rows of what is asked of tokgate's resolver: the banned name, its disguises, and names that only lead to it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

BANNED: Final = "www.clips.example.org"
_ALIAS: Final = "cloaked.example.com"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One question, over UDP and over TCP."""

    name: str
    kind: str = "A"
    answers: tuple[str, ...]
    """What the name server has: owner, TTL, type and data of each record, as in zone files."""
    edns: bool = True
    what: str

    @property
    def id(self) -> str:
        return f"{self.what.replace(' ', '-')}-{self.kind}"

    @property
    def twin(self) -> Question:
        """The same with an allowed name in the place of the banned one."""
        name, *answers = (
            re.sub("clips.example.org", "example.net", text, flags=re.I) for text in (self.name, *self.answers)
        )
        return replace(self, name=name, answers=tuple(answers))


def questions() -> Iterator[Question]:
    yield from _by_name()
    yield from _by_alias()


def _of(what: str, name: str, kind: str = "A", data: str = "192.0.2.80", *, edns: bool = True) -> Question:
    return Question(what=what, name=name, kind=kind, answers=(f"{name}. 60 {kind} {data}",), edns=edns)


def _by_name() -> Iterator[Question]:
    kinds = {"A": "192.0.2.80", "AAAA": "2001:db8::80", "HTTPS": "1 . alpn=h2", "TXT": '"x"', "MX": "5 mx.example.net."}
    for kind, data in kinds.items():
        yield _of("the name", BANNED, kind, data)
    yield _of("mixed case", "wWw.cLIps.eXample.oRg")
    yield _of("without EDNS", BANNED, edns=False)
    for name in ("_8443._https.www", "_dns.www", "*.www", r"a\.b", r"a\000b", r"a\032b", r"\200x"):
        yield _of(f"below {name}", f"{name}.clips.example.org", "TXT", "x")
    for name in ("_443._https.www", "xn--caf-dma", "a_b", "w" * 63, ".".join("a" * 100)):
        yield _of(f"an A record below {name[:16]}", f"{name}.clips.example.org")
    for kind in ("NS", "SOA", "SRV", "CAA", "PTR", "NAPTR", "LOC", "TYPE65280", "ANY", "DNSKEY", "DS", "TLSA", "URI"):
        plain = (f"{BANNED}. 60 A 192.0.2.80",)
        yield Question(what="the name by another type", name=BANNED, kind=kind, answers=plain)


def _by_alias() -> Iterator[Question]:
    def alias(what: str, *answers: str, kind: str = "A") -> Question:
        return Question(what=what, name=_ALIAS, kind=kind, answers=answers)

    to_it, address = f"{_ALIAS}. 60 CNAME {BANNED}.", f"{BANNED}. 60 A 192.0.2.80"
    for kind, data in (("A", "192.0.2.80"), ("AAAA", "2001:db8::80"), ("HTTPS", "1 . alpn=h2")):
        yield alias("an alias of it", to_it, f"{BANNED}. 60 {kind} {data}", kind=kind)
    between, from_there = f"{_ALIAS}. 60 CNAME x.example.net.", f"x.example.net. 60 CNAME {BANNED}."
    yield alias("an alias of an alias of it", between, from_there, address)
    chain = [_ALIAS, *(f"c{number}.example.net" for number in range(12)), BANNED]
    links = (f"{one}. 60 CNAME {following}." for one, following in pairwise(chain))
    yield alias("a chain of twelve aliases to it", *links, address)
    yield alias("an alias in disorder", address, to_it)
    yield alias("an alias in capitals", f"{_ALIAS}. 60 CNAME {BANNED.upper()}.", f"{BANNED.upper()}. 60 A 192.0.2.80")
    yield alias("an alias without its end", to_it)
    for what, name in (("an alias below it", "a.b"), ("an alias with an odd label", "a!b")):
        yield alias(what, f"{_ALIAS}. 60 CNAME {name}.{BANNED}.", f"{name}.{BANNED}. 60 A 192.0.2.80")
    yield alias("two aliases", between, to_it)
    renamed = "example.com. 60 DNAME clips.example.org."
    below = "cloaked.clips.example.org."
    yield alias("a renamed tree", renamed, f"{_ALIAS}. 60 CNAME {below}", f"{below} 60 A 192.0.2.80")
    yield alias("a renamed tree alone", renamed)
    yield alias("another owner", address)
    yield alias("an alias with a root that is not its own", between, f"X.EXAMPLE.NET. 60 CNAME {BANNED}.")
    yield alias("a loop of aliases and it", between, f"x.example.net. 60 CNAME {_ALIAS}.", from_there)
    for kind in ("HTTPS", "SVCB"):
        for what, services in {
            "a service of second priority at it": ("1 . alpn=h2", f"2 {BANNED}. alpn=h3"),
            "a service with a port at it": (f"1 {BANNED}. port=8443",),
            "a service with hints at it": (f"1 {BANNED}. alpn=h2 ipv4hint=192.0.2.80",),
        }.items():
            yield alias(what, *(f"{_ALIAS}. 60 {kind} {each}" for each in services), kind=kind)
    yield alias("an alias in a service record", f"{_ALIAS}. 60 HTTPS 0 {BANNED}.", kind="HTTPS")
    yield alias("a service at it", f"{_ALIAS}. 60 SVCB 1 {BANNED}. alpn=h2", kind="SVCB")
