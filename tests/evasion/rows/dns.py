"""Rows of what is asked of tokgate's resolver: the banned name, its disguises, and names that only lead to it."""

from collections.abc import Iterator
from dataclasses import dataclass

BANNED = "www.clips.example.org"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One question, over UDP and over TCP."""

    name: str
    kind: str = "A"
    answers: tuple[str, ...] = ()
    """What the name server has: owner, TTL, type and data of each record, as in zone files."""
    twin: str = "www.example.org"
    """A name that the same question is answered for, with `twin_answers`."""
    twin_answers: tuple[str, ...] = ()
    edns: bool = True
    what: str

    @property
    def id(self) -> str:
        """How pytest names it."""
        return f"{self.what.replace(' ', '-')}-{self.kind}"


_KINDS = {"A": "192.0.2.80", "AAAA": "2001:db8::80", "HTTPS": "1 . alpn=h2", "TXT": '"x"', "MX": "5 mx.example.net."}


def questions() -> Iterator[Question]:
    """All that have to be refused."""
    for kind, data in _KINDS.items():
        yield Question(
            what="the name",
            name=BANNED,
            kind=kind,
            answers=(f"{BANNED}. 60 {kind} {data}",),
            twin_answers=(f"www.example.org. 60 {kind} {data}",),
        )
    plain = ("www.example.org. 60 A 192.0.2.80",)
    yield Question(
        what="mixed case", name="wWw.cLIps.eXample.oRg", answers=(f"{BANNED}. 60 A 192.0.2.80",), twin_answers=plain
    )
    yield Question(
        what="without EDNS", name=BANNED, answers=(f"{BANNED}. 60 A 192.0.2.80",), edns=False, twin_answers=plain
    )
    for name in ("_8443._https.www", "_dns.www", "*.www", r"a\.b", r"a\000b", r"a\ b", r"\200x"):
        full = f"{name}.clips.example.org"
        yield Question(
            what=f"below {name}",
            name=full,
            kind="TXT",
            answers=(f"{full}. 60 TXT x",),
            twin_answers=("www.example.org. 60 TXT x",),
        )
    alias = "cloaked.example.com"
    for kind, data in (("A", "192.0.2.80"), ("AAAA", "2001:db8::80"), ("HTTPS", "1 . alpn=h2")):
        yield Question(
            what="an alias of it",
            name=alias,
            kind=kind,
            answers=(f"{alias}. 60 CNAME {BANNED}.", f"{BANNED}. 60 {kind} {data}"),
            twin_answers=("www.example.org. 60 CNAME x.example.net.", f"x.example.net. 60 {kind} {data}"),
        )
    yield Question(
        what="an alias of an alias of it",
        name=alias,
        answers=(
            f"{alias}. 60 CNAME x.example.net.",
            f"x.example.net. 60 CNAME {BANNED}.",
            f"{BANNED}. 60 A 192.0.2.80",
        ),
        twin_answers=("www.example.org. 60 CNAME x.example.net.", "x.example.net. 60 A 192.0.2.80"),
    )
    chain = [f"c{number}.example.net" for number in range(12)]
    yield Question(
        what="a chain of twelve aliases to it",
        name=alias,
        answers=(
            f"{alias}. 60 CNAME {chain[0]}.",
            *(f"{one}. 60 CNAME {next_one}." for one, next_one in zip(chain, [*chain[1:], BANNED], strict=True)),
            f"{BANNED}. 60 A 192.0.2.80",
        ),
        twin_answers=("www.example.org. 60 CNAME x.example.net.", "x.example.net. 60 A 192.0.2.80"),
    )
    for what, answers in {
        "an alias in disorder": (f"{BANNED}. 60 A 192.0.2.80", f"{alias}. 60 CNAME {BANNED}."),
        "an alias in capitals": (f"{alias}. 60 CNAME {BANNED.upper()}.", f"{BANNED.upper()}. 60 A 192.0.2.80"),
        "an alias without its end": (f"{alias}. 60 CNAME {BANNED}.",),
        "an alias below it": (f"{alias}. 60 CNAME a.b.{BANNED}.", f"a.b.{BANNED}. 60 A 192.0.2.80"),
        "an alias with an odd label": (f"{alias}. 60 CNAME a!b.{BANNED}.", f"a!b.{BANNED}. 60 A 192.0.2.80"),
        "two aliases": (f"{alias}. 60 CNAME x.example.net.", f"{alias}. 60 CNAME {BANNED}."),
        "a renamed tree": (
            "example.com. 60 DNAME clips.example.org.",
            f"{alias}. 60 CNAME cloaked.clips.example.org.",
            "cloaked.clips.example.org. 60 A 192.0.2.80",
        ),
        "a renamed tree alone": ("example.com. 60 DNAME clips.example.org.",),
        "another owner": (f"{BANNED}. 60 A 192.0.2.80",),
    }.items():
        yield Question(
            what=what,
            name=alias,
            answers=answers,
            twin_answers=("www.example.org. 60 CNAME x.example.net.", "x.example.net. 60 A 192.0.2.80"),
        )
    for kind in ("HTTPS", "SVCB"):
        for what, services in {
            "a service of second priority at it": ("1 . alpn=h2", f"2 {BANNED}. alpn=h3"),
            "a service with a port at it": (f"1 {BANNED}. port=8443",),
            "a service with hints at it": (f"1 {BANNED}. alpn=h2 ipv4hint=192.0.2.80",),
        }.items():
            yield Question(
                what=what,
                name=alias,
                kind=kind,
                answers=tuple(f"{alias}. 60 {kind} {each}" for each in services),
                twin_answers=(f"www.example.org. 60 {kind} 1 x.example.net. alpn=h2",),
            )
    for kind in ("NS", "SOA", "SRV", "CAA", "PTR", "NAPTR", "LOC", "TYPE65280", "ANY", "DNSKEY", "DS", "TLSA", "URI"):
        yield Question(
            what="the name by another type",
            name=BANNED,
            kind=kind,
            twin_answers=("www.example.org. 60 A 192.0.2.80",),
        )
    yield Question(
        what="an alias in a service record",
        name=alias,
        kind="HTTPS",
        answers=(f"{alias}. 60 HTTPS 0 {BANNED}.",),
        twin_answers=("www.example.org. 60 HTTPS 0 x.example.net.",),
    )
    yield Question(
        what="a service at it",
        name=alias,
        kind="SVCB",
        answers=(f"{alias}. 60 SVCB 1 {BANNED}. alpn=h2",),
        twin_answers=("www.example.org. 60 SVCB 1 x.example.net. alpn=h2",),
    )
    for name in ("_443._https.www", "xn--caf-dma", "a_b", "w" * 63, ".".join("a" * 100)):
        full = f"{name}.clips.example.org"
        yield Question(
            what=f"an A record below {name[:16]}",
            name=full,
            answers=(f"{full}. 60 A 192.0.2.80",),
            twin_answers=plain,
        )
    yield Question(
        what="an alias with a root that is not its own",
        name=alias,
        answers=(f"{alias}. 60 CNAME x.example.net.", f"X.EXAMPLE.NET. 60 CNAME {BANNED}."),
        twin_answers=("www.example.org. 60 CNAME x.example.net.", "x.example.net. 60 A 192.0.2.80"),
    )
    yield Question(
        what="a loop of aliases and it",
        name=alias,
        answers=(
            f"{alias}. 60 CNAME x.example.net.",
            f"x.example.net. 60 CNAME {alias}.",
            f"x.example.net. 60 CNAME {BANNED}.",
        ),
        twin_answers=("www.example.org. 60 CNAME x.example.net.", "x.example.net. 60 A 192.0.2.80"),
    )
