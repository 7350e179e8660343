"""A query of explain, simulate and policy tests, its decision, and the answer in JSON."""

import argparse
import re
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Final, NotRequired, TypedDict, cast
from urllib.parse import urlsplit

from whenever import Instant

from tokgate.blocklog.read.replay_query import RecordedQuery
from tokgate.cli.commands import CommandError, Exit
from tokgate.cli.terminal import visible
from tokgate.policy.decide import Judgement, Sighting, decide, decide_signals
from tokgate.policy.decision import Decision, Phase, Reason, Response, Signal, Verdict
from tokgate.policy.membership import Identity, Membership
from tokgate.policy.snapshot import Snapshot
from tokgate.policy.values.hostname import MAX_NAME, AddressLiteral, normalise, parse_address
from tokgate.policy.values.text import shown, utc


class Grounds(TypedDict):
    """Why something was decided; what does not apply is null."""

    phase: Phase | None
    service: str | None
    rule: str | None
    signal: Signal | None
    network: str | None
    ban: str | None
    exemption: str | None
    response: Response | None
    reason: Reason
    next_change: str | None


class Outcome(Grounds):
    """What was decided, and why; what does not apply is null."""

    verdict: Verdict


class Who(TypedDict):
    """Who the client is besides its address; only what was stated."""

    user: NotRequired[str]
    groups: NotRequired[list[str]]
    device: NotRequired[str]
    interface: NotRequired[str]


class Answer(Outcome, Who):
    """A query and its decision."""

    client: str
    host: str | None
    at: str


class Seen(TypedDict):
    """A name, address or URL that was decided about, and where it was seen."""

    signal: Signal
    value: str


@dataclass(frozen=True, slots=True)
class DecisionQuery:
    """A client, an instant, and a destination: a host as in a ClientHello, a URL as in a decrypted request, or both."""

    client: str
    host: str | None
    at: Instant
    url: str | None = None
    identity: Identity | None = None

    @property
    def sightings(self) -> tuple[Sighting, ...]:
        """The signals that live traffic would show, in its order."""
        seen = ((Signal.SNI, self.host), (Signal.URL, self.url))
        return tuple(Sighting(signal, value) for signal, value in seen if value is not None)


type Question = DecisionQuery | RecordedQuery
"""A client, an instant, and the signals in which a name is seen."""
_SCHEME: Final = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
_PORT: Final = re.compile(r"(?<=[^:\]]):[0-9]{1,5}\Z", re.ASCII)


def client_address(said: str) -> str:
    """The address that stands in what was pasted: bare, in brackets, with a port, or as a prefix of one address.

    Any other text ends the command as a wrong usage.
    """
    text = said.strip()
    if parse_address(text) is not None:
        return text
    name = normalise(text)
    if isinstance(name, AddressLiteral):
        return str(name)
    try:
        prefix = ip_network(text, strict=False)
    except ValueError:
        why = "is no IP address: write one, as 192.0.2.7 (--user, --group, --device, --interface say who else it is)"
        raise CommandError(f"--client {visible(said)} {why}", Exit.USAGE) from None
    if prefix.num_addresses > 1:
        why = f"is {prefix.num_addresses} addresses: write one of them, as {prefix[1]}"
        raise CommandError(f"--client {visible(said)} {why}", Exit.USAGE)
    return str(prefix.network_address)


def destination(host: str | None, url: str | None) -> tuple[str | None, str | None]:
    """The host and the URL that a client would ask for, of what was pasted as one of them, or as both.

    A host with a scheme or a path is a URL; one without a scheme is of `https`. What a client never sends is left out:
    userinfo and fragment. What names no host ends the command as a wrong usage.
    """
    asked = None if url is None else _url("--url", url)[1]
    if host is None:
        return None, asked
    text = host.strip()
    if re.search(r"[/?#\\]", text):
        if url is not None:
            raise CommandError("--host is a URL, as --url is: write only its host", Exit.USAGE)
        named, asked = _url("--host", text)
        return (named if asked.startswith("https:") else None), asked
    text = text.rpartition("@")[2]
    text = text if text.count(":") > 1 else _PORT.sub("", text)
    if not text.strip(".") or len(text) > 4 * MAX_NAME:
        raise CommandError("--host names no host: write one, as www.example.org", Exit.USAGE)
    return text, asked


def _url(option: str, said: str) -> tuple[str, str]:
    """The host of a URL, and the URL as a client sends it. Browsers read a backslash as a slash."""
    text = said.strip().replace("\\", "/")
    scheme = _SCHEME.match(text)
    if scheme is None:
        text = f"https:{text}" if text.startswith("//") else f"https://{text}"
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname or "", parts.port
    except ValueError as error:
        raise CommandError(f"{option} {visible(said)} is no URL: {visible(str(error))}", Exit.USAGE) from None
    if parts.scheme not in ("http", "https") or not host.strip(".") or len(host) > 4 * MAX_NAME:
        why = "names no host: write https://HOST/PATH, or http://HOST/PATH"
        raise CommandError(f"{option} {visible(said)} {why}", Exit.USAGE)
    return host, parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="").geturl()


def judge(snapshot: Snapshot, query: Question) -> Judgement:
    """The strictest decision over all that was seen."""
    return decide_signals(snapshot, query.client, query.sightings, query.at, query.identity)


def decided(snapshot: Snapshot, query: Question, at: Instant) -> Decision:
    """The same at another instant, without whether signals differ: of one signal at a third of the cost."""
    sightings = query.sightings
    if len(sightings) == 1:
        return decide(snapshot, query.client, sightings[0].value, at, sightings[0].signal, query.identity)
    return decide_signals(snapshot, query.client, sightings, at, query.identity).decision


def zone_of(snapshot: Snapshot, membership: Membership) -> str:
    """The time zone of a client: that of its narrowest network, UTC without one."""
    network = next(iter(membership.networks), None)
    return "UTC" if network is None else snapshot.policy.networks[network].timezone


def answer(query: DecisionQuery, decision: Decision) -> Answer:
    """A decision as JSON, in the order that is documented."""
    return {
        "client": query.client,
        "host": query.host,
        "at": utc(query.at),
        **identified(query.identity),
        **outcome(decision),
    }


def identified(identity: Identity | None) -> Who:
    """The parts of the identity that are stated, as JSON."""
    told = identity or Identity()
    said = {"user": told.user, "groups": sorted(told.groups), "device": told.device, "interface": told.interface}
    return cast(Who, {key: value for key, value in said.items() if value})


def who(identity: Identity | None) -> str:
    """The stated parts of the identity in words, to follow the client's address; empty if there are none."""
    said = (
        (key, " ".join(value) if isinstance(value, list) else str(value)) for key, value in identified(identity).items()
    )
    return "".join(f", {key} {visible(value)}" for key, value in said)


def add_identity_options(parser: argparse.ArgumentParser) -> None:
    who = parser.add_argument_group("who the client is, besides its address")
    who.add_argument("--user", metavar="NAME", help="the user that it has proved to be, with an explicit proxy")
    who.add_argument("--group", metavar="NAME", action="append", default=[], help="a group of that user; repeatable")
    who.add_argument("--device", metavar="MAC|NAME", help="its hardware address, or its name in an inventory")
    who.add_argument("--interface", metavar="NAME", help="the gateway's interface by which it comes")


def identity_of(options: argparse.Namespace) -> Identity | None:
    """The identity that the options state; None if they state none."""
    return Identity(options.user, frozenset(options.group), options.device, options.interface) or None


def outcome(decision: Decision) -> Outcome:
    """The part of an answer that does not depend on the query."""
    return {"verdict": decision.verdict, **shown(Grounds, decision)}
