"""`tokgate explain`: the decision about a query or an event of the log, with the steps that led to it."""

import argparse
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypedDict
from urllib.parse import urlsplit

from whenever import Instant

from tokgate.blocklog.paths import whole_log
from tokgate.blocklog.read.reader import client_network, find
from tokgate.blocklog.read.replay_query import RecordedQuery, alias_of, is_traffic, is_unreadable, recorded
from tokgate.blocklog.records.record import text_at
from tokgate.cli.arguments import settle, time_argument
from tokgate.cli.commands import CommandError, Exit, Subparsers, add_command
from tokgate.cli.configuration import default_confdir, default_log
from tokgate.cli.decision_query import (
    Answer,
    DecisionQuery,
    Question,
    Seen,
    add_identity_options,
    answer,
    client_address,
    destination,
    identity_of,
    judge,
    outcome,
    who,
    zone_of,
)
from tokgate.cli.decision_steps import StepOutput, step, step_lines, steps
from tokgate.cli.log.access import add_purpose, record_look
from tokgate.cli.log.source import add_log_option, require
from tokgate.cli.policy.warnings import held_bans
from tokgate.cli.policy_source import add_policies_option, find_revision, open_source
from tokgate.cli.terminal import narrate, print_json, print_lines, visible, wants_color
from tokgate.config.diagnostics import did_you_mean, render
from tokgate.config.format.test_model import PolicyTest
from tokgate.policy.analysis.now import now_of
from tokgate.policy.bans import Exemption
from tokgate.policy.decision import Decision, Reason, Verdict
from tokgate.policy.membership import folded
from tokgate.policy.networks import Network, hardware_address
from tokgate.policy.snapshot import Snapshot
from tokgate.policy.values import Origin
from tokgate.policy.values.prefixes import within
from tokgate.policy.values.text import both, readable
from tokgate.traffic.policy_tests import Carrier, by_carrier

EPILOG = """\
examples:
  tokgate explain --client 192.0.2.7 --host www.example.org
  tokgate explain --client 192.0.2.7 --host www.example.org --at 2023-03-10T00:00+01:00
  tokgate explain --client 192.0.2.7 --host www.example.org --at 2023-03-10T08:00 --json
  tokgate explain --client 192.0.2.7 --url 'https://play.google.com/store/apps/details?id=org.example.app'
  tokgate explain --client 192.0.2.7 --user alice --group press --host www.example.org
  tokgate explain --client 192.0.2.7 --device 00:53:00:aa:bb:cc --host www.example.org
  tokgate explain --event 01862000-0000-7000-8000-000000000001 --log block.ndjson
                                                    a line of the block log, by the id that is on the block page
  tokgate explain --event 01862000-0000-7000-8000-000000000001 --policies HEAD~3:policies

A time without offset is wall time in the zone of the client's (narrowest) network. A URL is decided together with the
host, as a decrypted request would be: the strictest wins. What was considered and does not count is marked with `-`.
A host may be pasted as a URL, with a path, a port or userinfo. The verdict is what live traffic gets, the strictest
where a ClientHello, a plain request, CONNECT and a DNS question differ; a last step then says what each of them gets.

--policies takes a folder or file, or REV:DIR for a folder in a git revision. An event is explained by the policies
given, or by that of the last git revisions of their folder which the log names for it. When neither are those that the
log names, this is said, and what they would decide is shown.

The exit code is 0 whatever the verdict is. With --event it is 1 when the policies are not those of the log, when they
decide otherwise than it says, or when there is no such event."""
_TINTS = {Verdict.ALLOW: "32", Verdict.MONITOR: "36", Verdict.WARN: "33", Verdict.BLOCK: "31"}


class Explained(Answer):
    """A decision with its steps in order."""

    steps: list[StepOutput]


class CarrierOutput(TypedDict):
    """What a client that asks for the host, or the URL, in a protocol gets."""

    carrier: Carrier
    verdict: Verdict
    reason: Reason


class ExplainedQuery(Explained):
    """`tokgate explain --json`: the decision about a query. Its verdict is the strictest of the carriers'."""

    carriers: list[CarrierOutput]


class Logged(TypedDict):
    """An event of the log."""

    id: str | None
    file: str
    line: int
    count: int
    policy: str | None
    logged: dict[str, str | None]
    seen: list[Seen]


class ExplainedEvent(Explained):
    """`tokgate explain --event ID --json`: as for a query, with the event and whether the log agrees."""

    event: Logged
    policy: str
    same_policy: bool
    agrees: bool


@dataclass(frozen=True, slots=True)
class Recollection:
    """An event, and the decision about it of the policies from `source`."""

    event: RecordedQuery
    snapshot: Snapshot
    source: str
    decision: Decision

    @property
    def same_policy(self) -> bool:
        """Whether the snapshot is of the policy that decided the event."""
        return self.event.version == self.snapshot.version

    @property
    def logged(self) -> dict[str, str | None]:
        return {key: self.event.field(key) for key in _COMPARED}

    @property
    def differences(self) -> list[tuple[str, object, object]]:
        """The fields in which record and decision differ, with both values."""
        now: Mapping[str, object] = outcome(self.decision)
        return [(key, logged, now[key]) for key, logged in self.logged.items() if logged != now[key]]

    @property
    def notes(self) -> Iterator[str]:
        """Which policy decides, and that it does so as the log says, in sentences."""
        event = self.event
        if self.same_policy:
            yield f"By the policy that decided it: version {self.snapshot.version}, {visible(self.source)}."
        if event.count > 1:
            yield f"The line stands for {event.count} events; the first of them is explained."
        if not self.differences:
            hidden = alias_of(event.line.record)
            yield "Decided the same again" + (f", if {visible(hidden)} was {visible(event.client)}." if hidden else ".")

    @property
    def warnings(self) -> Iterator[str]:
        """What keeps the explanation from being that of the event, in sentences."""
        if not self.same_policy:
            named, here = visible(self.event.version or "none"), self.snapshot.version
            yield (
                f"Not by the policy that decided it: the line names version {named}, which is not to be had here; "
                f"{visible(self.source)} is {here}."
            )
        if self.differences:
            changes = "; ".join(f"{key}: {was or 'none'}, now {now or 'none'}" for key, was, now in self.differences)
            yield f"Decided otherwise now than the line says: {visible(changes)}."
            if any(sighting.signal.is_url for sighting in self.event.sightings):
                yield "The log keeps no query of a URL: a rule for a store listing may depend on it."

    def document(self) -> ExplainedEvent:
        """The JSON of `explain`, preceded by the event. `host` is the name that was decided about."""
        event = self.event
        return {
            "event": {
                "id": text_at(event.line.record, "event", "id"),
                "file": event.line.file,
                "line": event.line.number,
                "count": event.count,
                "policy": event.version,
                "logged": self.logged,
                "seen": [{"signal": each.signal, "value": each.value} for each in event.sightings],
            },
            "policy": self.snapshot.version,
            "same_policy": self.same_policy,
            "agrees": not self.differences,
            **answer(
                DecisionQuery(event.client, event.sightings[0].value, event.at, identity=event.identity), self.decision
            ),
            "steps": list(steps(self.snapshot, event)),
        }


def add_parser(subparsers: Subparsers) -> None:
    parser = add_command(subparsers, "explain", EPILOG)
    add_policies_option(parser, revisions=True)
    parser.add_argument("--client", metavar="IP", help="address of the client; of an event only where the log hides it")
    parser.add_argument("--host", metavar="NAME", help="name or address asked for, as seen in a ClientHello")
    parser.add_argument("--url", metavar="URL", help="absolute URL, as seen in a decrypted request")
    parser.add_argument("--at", type=time_argument, metavar="TIME", help="instant, local time or `now` (default: now)")
    parser.add_argument("--event", metavar="ID", help="explain this event of the block log")
    add_log_option(parser, f"logs to look in, those rotated away included (default: {default_log()})")
    add_identity_options(parser)
    add_purpose(parser)
    parser.add_argument("--json", action="store_true", help="the decision and its steps as one JSON object")
    parser.set_defaults(run=run, usage_error=parser.error)


def run(options: argparse.Namespace) -> int:
    """Explain the decision about one query, or one event of the log."""
    now = Instant.now()
    if options.event is not None:
        return _event(options, now)
    if options.client is None:
        options.usage_error("one of the arguments --client --event is required")
    if options.host is None and options.url is None:
        options.usage_error("one of the arguments --host --url is required")
    client, (host, url) = client_address(options.client), destination(options.host, options.url)
    snapshot = open_source(options.policies, now)
    identity = identity_of(options)
    for held in held_bans(snapshot.policy, Path(options.policies), now, default_confdir()):
        narrate(render(held, color=wants_color(sys.stderr)))
    membership = snapshot.membership(client, identity)
    zone = zone_of(snapshot, membership)
    moment = now if options.at is None else options.at
    at = settle(moment, zone)
    if not isinstance(moment, Instant):
        narrate(f"--at {moment.format_iso()} is read in {zone}: {both(at, zone)}")
    opened = (each.sentence for each in now_of(snapshot, at).opened if each.network in membership.networks)
    for warning in (*_strangers(snapshot, options), *opened):
        narrate(warning)
    query = DecisionQuery(client, host, at, url, identity)
    judged, named = judge(snapshot, query).decision, host or urlsplit(url or "").hostname or ""
    asked = PolicyTest(client, named, url, at, judged.verdict, Origin("", 1, 1), identity=identity)
    carriers = by_carrier(snapshot, asked)
    decision = max(carriers.values(), key=lambda each: each.verdict.severity)
    found = [*steps(snapshot, query), *_live(query, named, judged, carriers)]
    if options.json:
        echoed = replace(query, client=options.client, host=options.host)
        each = [CarrierOutput(carrier=carrier, verdict=d.verdict, reason=d.reason) for carrier, d in carriers.items()]
        print_json(ExplainedQuery(**answer(echoed, decision), steps=found, carriers=each))
    else:
        print_lines(_text(snapshot, query, decision, found))
    return Exit.DONE


def _strangers(snapshot: Snapshot, options: argparse.Namespace) -> Iterator[str]:
    """What was said about the client and stands in no network or exemption, so that it makes no difference."""
    policy = snapshot.policy
    listings: list[Network | Exemption] = [*policy.networks.values(), *policy.exemptions.values()]
    devices = {device.name for network in policy.networks.values() for device in network.devices if device.name}
    for kind, said, known in (
        ("user", (options.user,), {name for each in listings for name in each.users}),
        ("group", options.group, {name for each in listings for name in each.groups}),
        ("interface", (options.interface,), {name for each in listings for name in each.interfaces}),
        ("device", (options.device,) if hardware_address(options.device or "") is None else (), devices),
    ):
        fold = str if kind == "interface" else folded
        for name in said:
            if name and fold(name) not in map(fold, known):
                hint = did_you_mean(name, sorted(known))
                yield f"no network or exemption names the {kind} {visible(name)}{hint and visible(hint)}"


def _live(
    query: DecisionQuery, host: str, judged: Decision, carriers: Mapping[Carrier, Decision]
) -> Iterator[StepOutput]:
    """A last step, where protocols differ from one another or from what was decided of all that the query names."""
    alike: dict[tuple[Verdict, Reason], list[Carrier]] = {}
    for carrier, decision in carriers.items():
        alike.setdefault((decision.verdict, decision.reason), []).append(carrier)
    if list(alike) == [(judged.verdict, judged.reason)]:
        return
    lines = [f"{', '.join(group)}: {verdict}, because {reason}" for (verdict, reason), group in alike.items()]
    tls = carriers.get(Carrier.TLS)
    if query.url is not None and tls is not None and tls.verdict.severity < judged.verdict.severity:
        hidden = "over https this URL is not seen, since the policy does not have the connection opened"
        lines.insert(0, f"{hidden}: the steps above say what would be if it were")
    yield step(6 + (len(query.sightings) > 1), f"Live traffic to {visible(host)}", lines)


def _event(options: argparse.Namespace, now: Instant) -> Exit:
    """Explain a line of the log, with the policies that it names if they are available."""
    given = [name for name in ("host", "url", "at") if getattr(options, name) is not None]
    if given:
        options.usage_error(f"argument --{given[0]}: not allowed with argument --event")
    record_look(options, "tokgate explain")
    event = find_event(options.log or [default_log()], options.event, options.client)
    told = identity_of(options)
    if told is not None:  # where the log hides who it was
        event = replace(event, identity=told)
    source = options.policies
    snapshot = open_source(source, now)
    if event.version not in (None, snapshot.version):
        found = find_revision(source, str(event.version), now)
        snapshot, source = (snapshot, source) if found is None else (open_source(found, now), found)
    recalled = Recollection(event, snapshot, source, judge(snapshot, event).decision)
    if options.json:
        print_json(recalled.document())
    else:
        line = event.line
        stated = (f"{key}={visible(value)}" for key, value in recalled.logged.items() if value is not None)
        print_lines((
            f"event {text_at(line.record, 'event', 'id')} [{line.file}:{line.number}]",
            f"logged: {visible(text_at(line.record, 'message') or '')}",
            f"logged: {' '.join(stated)}",
            *recalled.notes,
            *recalled.warnings,
            "",
        ))  # fmt: skip
        print_lines(_text(snapshot, event, recalled.decision, steps(snapshot, event)))
    return Exit.DONE if recalled.same_policy and not recalled.differences else Exit.FINDINGS


def _text(snapshot: Snapshot, query: Question, decision: Decision, found: Iterable[StepOutput]) -> Iterator[str]:
    color = wants_color(sys.stdout)
    verdict = f"\x1b[1;{_TINTS[decision.verdict]}m{decision.verdict}\x1b[0m" if color else str(decision.verdict)
    asked, *rest, change = said(snapshot, query, decision)
    yield f"{verdict}: {asked}"
    yield from rest
    for each in found:
        yield ""
        yield from step_lines(each, everything=True)
    yield ""
    yield change


def said(snapshot: Snapshot, query: Question, decision: Decision) -> Iterator[str]:
    """A decision in lines: who asked for what and the code of its reason, when, by which ban, and what changes it."""
    zone = zone_of(snapshot, snapshot.membership(query.client, query.identity))
    asked = " ".join(visible(sighting.value) for sighting in query.sightings)
    yield f"{visible(query.client)}{who(query.identity)} {asked} ({decision.reason})"
    yield f"at {both(query.at, zone)}"
    if decision.ban is not None:
        ban = snapshot.bans[decision.ban]
        yield readable(f"ban {ban.name}: " + "; ".join(part for part in (ban.title, ban.authority, ban.basis) if part))
        if ban.reason is not None:
            yield readable(f"reason: {' '.join(ban.reason.split())}")
        if decision.response is not None:
            yield f"response: {decision.response}"
    change = decision.next_change
    yield f"Next change: {'none' if change is None else both(change, zone)}"


_COMPARED: Final = (
    *("verdict", "reason", "phase", "service", "rule", "signal"),
    *("network", "ban", "exemption", "response"),
)
"""What a record and a decision both say."""


def find_event(logs: Sequence[Path], event: str, client: str | None) -> RecordedQuery:
    """The event with an id. If it is missing, or can't be decided again, the command ends.

    `client` is the address behind a pseudonym or a prefix in the log.
    """
    require(list(logs), rotated=True)
    files = whole_log(logs)
    line = find(files, event.strip().lower())
    if line is None:
        where = ", ".join(str(path) for path in logs)
        raise CommandError(
            f"no event {visible(event)} in {visible(where)} nor in what was rotated from it", Exit.FINDINGS
        )
    hidden = alias_of(line.record)
    if hidden is not None and client is None:
        raise CommandError(f"the log shows the client only as {visible(hidden)}: give its address with --client")
    if hidden is None and client is not None:
        raise CommandError("the log says who the client was: --client is for those that it does not name", Exit.USAGE)
    with suppress(ValueError):  # a pseudonym is no prefix
        if hidden is not None and not within(client_network(str(client)), client_network(hidden)):
            why = f"the log says that the client is in {hidden}: {visible(str(client))} is not"
            raise CommandError(why, Exit.USAGE)
    found = recorded(line, client)
    if found is None:
        about = "it lacks what was asked for" if is_traffic(line.record) else "it is about tokgate itself, not traffic"
        if is_unreadable(line.record):
            about = "it could not be read where it led, and no ban refused it"
        raise CommandError(f"{line.file}:{line.number}: the event can't be decided again: {about}", Exit.FINDINGS)
    return found
