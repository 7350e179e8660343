"""Checks of the times of bans and exemptions, in each time zone that applies to them, and at a given instant."""

import re
from collections.abc import Collection, Iterable, Mapping
from itertools import pairwise
from typing import Final

from whenever import Instant, PlainDateTime, Time

from tokgate.config import build
from tokgate.config.diagnostics import Code
from tokgate.config.format.bans import BanModel, ExemptionModel
from tokgate.config.sections import PolicyEntry, Sections, zones_of
from tokgate.config.yaml.source import Report
from tokgate.policy.analysis.terms import outlasts
from tokgate.policy.bans import Action, Ban, OnExpiry, Overrides
from tokgate.policy.decision import Phase
from tokgate.policy.networks import Network
from tokgate.policy.schedule import Duration, Edge, Schedule, resolve
from tokgate.policy.settings import LONGEST_OVERRIDE
from tokgate.policy.snapshot import schedule_of
from tokgate.policy.values.prefixes import Cover
from tokgate.policy.values.text import both, local

_HISTORY: Final = 24 * 180
"""Hours after which a ban that has lapsed is history, which needs no warning."""
_STEPS: Final = 1000
"""Most changes of a ban that are searched for one at which it applies."""
_MINUTES: Final = re.compile(r"[Pp][Tt]0*([1-9][0-9]?)[Mm]")

_Schedules = dict[str, Schedule]
"""A ban's schedule in each zone."""


def check(sections: Sections, networks: Mapping[str, Network], now: Instant, report: Report) -> None:
    """Run all checks that depend on time; `networks` are those that are valid."""
    exemptions: dict[str, list[PolicyEntry[ExemptionModel]]] = {}
    for exemption in sections.exemptions.values():
        if exemption.model is not None and _exemption(exemption, exemption.model, sections, now, report):
            exemptions.setdefault(exemption.model.ban, []).append(exemption)
    for name, entries in exemptions.items():
        _outside(name, entries, sections, networks, report)
    extended = frozenset(entry.model.extends for entry in sections.bans.values() if entry.model is not None)
    valid: set[str] = set()
    for entry in sections.bans.values():
        if entry.model is not None:
            schedules = _ban(entry, entry.model, sections, report)
            if schedules:
                valid.add(entry.name)
                for exemption in exemptions.get(entry.name, ()):
                    _idle(exemption, entry, schedules, report)
                if entry.name not in extended:
                    _over(entry, entry.model, schedules, now, report)
    _extensions(sections, valid, report)


def _ban(entry: PolicyEntry[BanModel], model: BanModel, sections: Sections, report: Report) -> _Schedules | None:
    """Check one ban; its schedules, or None after an error."""
    before = len(report.diagnostics)
    ends = [key for key in ("expires", "duration", "last_day") if getattr(model, key) is not None]
    for key in ends[1:]:
        message = f"`{ends[0]}` and `{key}` both say when the ban ends: keep one"
        report.error(entry.source, entry.at(key), Code.TWO_ENDS, message)
    _action(entry, model, report)
    for number, window in enumerate(model.windows):
        opening = entry.text("windows", number, "from") or "00:00"
        if window.start == window.end and entry.text("windows", number, "to") == opening:
            message = f"a window from {opening} to {opening} is empty: for the whole day say from 00:00 to 24:00"
            report.error(entry.source, entry.at("windows", number, "to"), Code.BAD_TIME, message)
    if len(report.diagnostics) > before:
        return None
    written = entry.text("duration") or ""
    if (found := _MINUTES.fullmatch(written)) is not None:  # in ISO 8601 months have no `T` before them
        message = f"`{written}` is {found[1]} minutes: for {found[1]} months write `P{found[1]}M`"
        report.warning(entry.source, entry.at("duration"), Code.DURATION_MINUTES, message)
    ban, zones = build.ban(entry, model), zones_of(model.networks, sections) or ("UTC",)
    schedules: _Schedules = {}
    for zone in zones:
        if not _in_order(entry, ban, zone, report):
            return None
        try:
            schedules[zone] = schedule_of(ban, zone)
        except ValueError:
            message = "the ban ends beyond the end of the calendar: leave out the end for a ban until lifted"
            report.error(entry.source, entry.at(*(ends or ["starts"])), Code.BAD_DURATION, message)
            return None
    _clock_changes(entry, model, zones, report)
    _applies(entry, schedules, report)
    return schedules


def _clock_changes(entry: PolicyEntry[BanModel], model: BanModel, zones: Collection[str], report: Report) -> None:
    """Warn of times of day that the clocks of a zone skip or show twice; midnight means where a day begins anyway."""
    edges = {"expires": Edge.END} | dict.fromkeys(("monitor_from", "warn_from", "starts"), Edge.START)
    for key, edge in edges.items():
        moment = getattr(model, key)
        for zone in zones if isinstance(moment, PlainDateTime) else ():
            early, late = (moment.assume_tz(zone, disambiguation=way) for way in ("earlier", "later"))
            skipped, midnight = early.to_plain() != moment, moment.time() == Time.MIN
            if early == late or (midnight and (skipped or edge is Edge.START)):
                continue
            meant = resolve(moment, zone, edge)
            which = "the first instant after it" if skipped else "the earlier" if edge is Edge.START else "the later"
            how = "skipped" if skipped else "shown twice"
            exact = local(meant, zone).replace(" ", "T", 1).replace(" ", "")
            write = f"; write `{exact}`" if len(zones) == 1 else ""
            message = (
                f"`{entry.text(key)}` is {how} by the clocks of {zone}: {which} is meant, {both(meant, zone)}{write}"
            )
            report.warning(entry.source, entry.at(key), Code.CLOCK_CHANGE, message)
            break


def _action(entry: PolicyEntry[BanModel], model: BanModel, report: Report) -> None:
    """Check that phases before the start are milder than the action."""
    allowed = {"monitor_from": (Action.WARN, Action.BLOCK), "warn_from": (Action.BLOCK,)}
    for key, actions in allowed.items():
        if getattr(model, key) is not None and model.action not in actions:
            needs = " or ".join(f"`{action}`" for action in actions)
            message = f"`{key}` comes before something stricter: it needs the action {needs}, not `{model.action}`"
            report.error(entry.source, entry.at(key), Code.REVERSED_TIMES, message)


def _in_order(entry: PolicyEntry[BanModel], ban: Ban, zone: str, report: Report) -> bool:
    """Check that announced ≤ monitor_from < warn_from < starts < end, as far as they are given."""
    keys = ("announced", "monitor_from", "warn_from", "starts")
    moments = ((key, getattr(ban, key)) for key in keys)
    given = [(key, resolve(moment, zone, Edge.START)) for key, moment in moments if moment is not None]
    ordered = True
    for (earlier, first), (later, second) in pairwise(given):
        if first > second or (first == second and earlier != "announced"):
            relation = "after" if first > second else "at the same time as"
            message = f"`{earlier}` is {relation} `{later}`{_in_zone(zone)}"
            report.error(entry.source, entry.at(earlier), Code.REVERSED_TIMES, message)
            ordered = False
    if ban.expires is not None and resolve(ban.expires, zone, Edge.END) <= resolve(ban.starts, zone, Edge.START):
        key = "last_day" if entry.text("last_day") is not None else "expires"
        relation = "lies before" if key == "last_day" else "must be later than"
        message = f"the ban ends before it starts{_in_zone(zone)}: `{key}` {relation} `starts`"
        if key == "expires" and ban.expires == ban.starts:
            message = "the ban ends at the instant at which it starts"
        report.error(entry.source, entry.at(key), Code.REVERSED_TIMES, message)
        ordered = False
    return ordered


def _in_zone(zone: str) -> str:
    return "" if zone == "UTC" else f" in {zone}"


def _first(schedule: Schedule) -> Instant:
    """The first instant at which the ban has an effect, ignoring windows."""
    return next(change.at for change in schedule.changes if change.phase not in (Phase.ANNOUNCED, Phase.EXPIRED))


def _applies(entry: PolicyEntry[BanModel], schedules: _Schedules, report: Report) -> None:
    """Check that the ban is ever in force: its windows may never open between its start and its end."""
    for schedule in schedules.values():
        at = _first(schedule)
        for _ in range(_STEPS):
            state = schedule.state_at(at)
            if state.idle is None:
                return
            at = state.span.end
            if state.phase is Phase.EXPIRED or at == Instant.MAX:
                break
    message = f"the ban `{entry.name}` can never apply: no window opens between its start and its end"
    report.error(entry.source, entry.at("windows"), Code.NEVER_APPLIES, message)


def _over(entry: PolicyEntry[BanModel], model: BanModel, schedules: _Schedules, now: Instant, report: Report) -> None:
    ends = {zone: schedule.ends for zone, schedule in schedules.items() if schedule.ends is not None}
    if len(ends) < len(schedules) or max(ends.values()) > now:
        return
    zone = max(ends, key=lambda each: ends[each])
    if model.on_expiry is OnExpiry.LAPSE and ends[zone].add(hours=_HISTORY) < now:
        return
    state = "it has lapsed" if model.on_expiry is OnExpiry.LAPSE else "it is held, and overdue"
    message = f"the ban `{entry.name}` ended {both(ends[zone], zone)}: {state}"
    report.warning(entry.source, entry.place, Code.BAN_OVER, message)


def _exemption(
    entry: PolicyEntry[ExemptionModel], model: ExemptionModel, sections: Sections, now: Instant, report: Report
) -> bool:
    """Check one exemption by itself and in the zones of its ban; whether its times are valid."""
    ban = sections.bans.get(model.ban)
    networks = [name for name, _ in ban.items("networks")] if ban else []
    zones = zones_of(networks, sections) or ("UTC",)
    for zone in zones:
        end = resolve(model.until, zone, Edge.END)
        if model.starts is not None and end <= resolve(model.starts, zone, Edge.START):
            message = f"the exemption ends before it starts{_in_zone(zone)}: `until` must be later than `starts`"
            report.error(entry.source, entry.at("until"), Code.REVERSED_TIMES, message)
            return False
    end, zone = max((resolve(model.until, zone, Edge.END), zone) for zone in zones)
    if model.override:
        return end > now and _override(entry, model, zones, sections, report)  # past overrides are kept as a record
    if end <= now:
        message = f"the exemption `{entry.name}` ended {both(end, zone)}"
        report.warning(entry.source, entry.place, Code.EXEMPTION_OVER, message)
    return True


def _override(
    entry: PolicyEntry[ExemptionModel], model: ExemptionModel, zones: Iterable[str], sections: Sections, report: Report
) -> bool:
    """Check that the ban and the settings allow an override."""
    before = len(report.diagnostics)
    ban = sections.bans.get(model.ban)
    if ban is not None and ban.model is not None and ban.model.overrides is Overrides.FORBIDDEN:
        message = f"the ban `{model.ban}` forbids overrides ({ban.source.origin(ban.at('overrides'))})"
        report.error(entry.source, entry.at("ban"), Code.OVERRIDE_FORBIDDEN, message)
    stated = sections.settings.get("overrides")
    longest: Duration = LONGEST_OVERRIDE if stated is None else stated.longest
    starts = model.starts
    if starts is None:
        message = "an override says when it `starts`: else it has no length"
        report.error(entry.source, entry.place, Code.OVERRIDE_TOO_LONG, message)
    elif any(outlasts(starts, model.until, longest, zone) for zone in zones):
        message = f"an override lasts at most {longest.format_iso()} (`settings.overrides.longest`)"
        report.error(entry.source, entry.at("until"), Code.OVERRIDE_TOO_LONG, message)
    return len(report.diagnostics) == before


def _outside(
    name: str,
    exemptions: Iterable[PolicyEntry[ExemptionModel]],
    sections: Sections,
    networks: Mapping[str, Network],
    report: Report,
) -> None:
    """Warn of exempt clients that are in no network of the ban, where addresses alone say who is in them."""
    ban = sections.bans.get(name)
    held = [networks.get(network) for network, _ in ban.items("networks")] if ban else []
    if not all(network is not None and network.by_address for network in held):
        return
    covered = Cover(prefix for network in held if network is not None for prefix in network.prefixes)
    for entry in exemptions if covered else ():
        for cidr, (_, place) in zip(entry.model.clients if entry.model else (), entry.items("clients"), strict=True):
            if not covered.meets(cidr):
                message = f"`{cidr}` is in no network of the ban `{name}`: the exemption does nothing for it"
                report.warning(entry.source, place, Code.EXEMPTION_OUTSIDE, message)


def _idle(
    entry: PolicyEntry[ExemptionModel], ban: PolicyEntry[BanModel], schedules: _Schedules, report: Report
) -> None:
    """Warn of an exemption that ends before its ban has an effect, or begins when that is over."""
    model = entry.model
    if model is None:
        return
    for zone, schedule in schedules.items():
        starts = Instant.MIN if model.starts is None else resolve(model.starts, zone, Edge.START)
        held = ban.model is not None and ban.model.on_expiry is OnExpiry.HOLD
        over = Instant.MAX if schedule.ends is None or held else schedule.ends
        if starts >= over or resolve(model.until, zone, Edge.END) <= _first(schedule):
            never = f"the exemption never meets the ban `{ban.name}`{_in_zone(zone)}"
            message = f"{never}: one ends before the other starts"
            report.warning(entry.source, entry.at("until"), Code.EXEMPTION_IDLE, message)


def _extensions(sections: Sections, valid: Collection[str], report: Report) -> None:
    """Check all extensions among the bans whose own times are valid."""
    for entry in (sections.bans[name] for name in sections.bans if name in valid):
        old = None if entry.model is None else sections.bans.get(entry.model.extends or "")
        if old is entry:
            message = f"the ban `{entry.name}` can't extend itself: name the one that ended"
            report.error(entry.source, entry.at("extends"), Code.EXTENSION_OVERLAP, message)
        elif old is not None and old.name in valid and old.model is not None and entry.model is not None:
            _extension_times(entry, entry.model, old, old.model, sections, report)
            _narrower(entry, old, report)


def _extension_times(
    entry: PolicyEntry[BanModel],
    model: BanModel,
    old: PolicyEntry[BanModel],
    before: BanModel,
    sections: Sections,
    report: Report,
) -> None:
    where = old.source.origin(old.place)
    for zone in zones_of(model.networks, sections) or ("UTC",):
        schedule, starts = schedule_of(build.ban(old, before), zone), resolve(model.starts, zone, Edge.START)
        ends = None if before.on_expiry is OnExpiry.HOLD else schedule.ends
        if starts <= schedule.starts:
            message = f"`{old.name}` would never apply, since it starts {both(schedule.starts, zone)} ({where})"
            report.error(entry.source, entry.at("starts"), Code.EXTENSION_OVERLAP, message)
            return
        if ends is not None and starts > ends:
            message = (
                f"until {both(starts, zone)} neither ban is in force: `{old.name}` ends {both(ends, zone)} ({where})"
            )
            write = local(ends, zone).replace(" ", "T", 1).replace(" ", "")
            message += f": write `starts: {write}`, or `on_expiry: hold` there"
            report.error(entry.source, entry.at("starts"), Code.EXTENSION_GAP, message)
            return


def _narrower(entry: PolicyEntry[BanModel], old: PolicyEntry[BanModel], report: Report) -> None:
    """Warn of services and networks for which the measure ends where it is extended for others."""
    for key, kind in (("services", "service"), ("networks", "network")):
        kept = {word for word, _ in entry.items(key)}
        for word in dict(old.items(key)):
            if word not in kept:
                message = f"the {kind} `{word}` of `{old.name}` is not in its extension: for it the measure ends there"
                report.warning(entry.source, entry.at(key), Code.EXTENSION_NARROWER, message)
