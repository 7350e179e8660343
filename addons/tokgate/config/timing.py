"""Whether the times of bans and exemptions make sense, in each zone in which they are read, and at the time given."""

from collections.abc import Iterable
from itertools import pairwise
from typing import Final

from whenever import Instant

from tokgate.config import build
from tokgate.config.cover import Cover
from tokgate.config.diagnostics import Code
from tokgate.config.models import BanModel, ExemptionModel
from tokgate.config.sections import Entry, Sections
from tokgate.config.source import Report
from tokgate.policy.bans import LONGEST_OVERRIDE, Action, Ban, OnExpiry, Overrides
from tokgate.policy.decision import Phase
from tokgate.policy.instants import both
from tokgate.policy.overrides import outlasts
from tokgate.policy.prefixes import IPNetwork
from tokgate.policy.schedule import Duration, Edge, Schedule, Span, resolve
from tokgate.policy.shadowing import window_within
from tokgate.policy.snapshot import schedule_of

_FOR_EVER: Final = 24 * 365 * 50
"""Hours: an exemption that long from a ban without end outlives any policy."""
_STEPS: Final = 1000
"""How many changes of a ban are followed in search of one at which it applies."""

_Schedules = dict[str, Schedule]
"""A ban's schedule in each zone."""

_Hole = tuple[Entry[ExemptionModel], ExemptionModel]


def check(sections: Sections, now: Instant, report: Report) -> None:
    """All checks that depend on time."""
    holes: dict[str, list[_Hole]] = {}
    for exemption in sections.exemptions.values():
        if exemption.model is not None and _exemption(exemption, exemption.model, sections, now, report):
            holes.setdefault(exemption.model.ban, []).append((exemption, exemption.model))
    for name in holes:
        _outside(name, holes[name], sections, report)
    for entry in sections.bans.values():
        if entry.model is not None:
            schedules = _ban(entry, entry.model, sections, now, report)
            if schedules and entry.name in holes:
                _holes(entry, holes[entry.name], schedules, sections, report)


def _zones(names: Iterable[str], sections: Sections) -> tuple[str, ...]:
    """The zones of the networks that are known, in order."""
    models = (sections.networks[name].model for name in names if name in sections.networks)
    return tuple(dict.fromkeys(model.timezone for model in models if model is not None))


def _ban(
    entry: Entry[BanModel], model: BanModel, sections: Sections, now: Instant, report: Report
) -> _Schedules | None:
    """Check one ban; its schedules if they can be relied upon."""
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
    _windows(entry, model, report)
    ban, zones = build.ban(entry, model), _zones(model.networks, sections) or ("UTC",)
    schedules: _Schedules = {}
    for zone in zones:
        if not _in_order(entry, ban, zone, report):
            return None
        try:
            schedules[zone] = schedule_of(ban, zone)
        except (ValueError, OverflowError):
            message = "the ban ends beyond the end of the calendar: leave out the end for a ban until lifted"
            report.error(entry.source, entry.at(*(ends or ["starts"])), Code.BAD_DURATION, message)
            return None
    _applies(entry, schedules, report)
    _over(entry, ban, schedules, now, report)
    return schedules


def _windows(entry: Entry[BanModel], model: BanModel, report: Report) -> None:
    """Windows that add nothing to another; of two that are the same the first is kept."""
    windows = [build.window(each) for each in model.windows]
    for number, window in enumerate(windows):
        for other, outer in enumerate(windows):
            within = other != number and window_within(window, outer)
            if within and (other < number or not window_within(outer, window)):
                where = entry.source.origin(entry.at("windows", other))
                message = f"this window adds nothing: it is open only while another is ({where})"
                report.warning(entry.source, entry.at("windows", number), Code.WINDOW_USELESS, message)
                break


def _action(entry: Entry[BanModel], model: BanModel, report: Report) -> None:
    """What comes before the start is milder than the start."""
    allowed = {"monitor_from": (Action.WARN, Action.BLOCK), "warn_from": (Action.BLOCK,)}
    for key, actions in allowed.items():
        if getattr(model, key) is not None and model.action not in actions:
            needs = " or ".join(f"`{action}`" for action in actions)
            message = f"`{key}` comes before something stricter: it needs the action {needs}, not `{model.action}`"
            report.error(entry.source, entry.at(key), Code.REVERSED_TIMES, message)


def _in_order(entry: Entry[BanModel], ban: Ban, zone: str, report: Report) -> bool:
    """announced ≤ monitor_from < warn_from < starts < end, as far as they are given."""
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
    """The first instant at which the ban does anything, windows aside."""
    return next(change.at for change in schedule.changes if change.phase not in (Phase.ANNOUNCED, Phase.EXPIRED))


def _applies(entry: Entry[BanModel], schedules: _Schedules, report: Report) -> None:
    """Whether the ban is ever in force: its windows may never open during its life."""
    for schedule in schedules.values():
        at = _first(schedule)
        for _ in range(_STEPS):
            standing = schedule.standing(at)
            if standing.idle is None:
                return
            at = standing.span.end
            if standing.phase is Phase.EXPIRED or at == Instant.MAX:
                break
    message = f"the ban `{entry.name}` can never apply: no window opens between its start and its end"
    report.error(entry.source, entry.at("windows"), Code.NEVER_APPLIES, message)


def _over(entry: Entry[BanModel], ban: Ban, schedules: _Schedules, now: Instant, report: Report) -> None:
    ends = {zone: schedule.ends for zone, schedule in schedules.items() if schedule.ends is not None}
    if len(ends) < len(schedules) or max(ends.values()) > now:
        return
    zone = max(ends, key=lambda each: ends[each])
    state = "it has lapsed" if ban.on_expiry is OnExpiry.LAPSE else "it is held, and overdue"
    message = f"the ban `{entry.name}` ended {both(ends[zone], zone)}: {state}"
    report.warning(entry.source, entry.place, Code.BAN_OVER, message)


def _exemption(
    entry: Entry[ExemptionModel], model: ExemptionModel, sections: Sections, now: Instant, report: Report
) -> bool:
    """Check one exemption on its own and against the networks of its ban; whether its times make sense."""
    ban = sections.bans.get(model.ban)
    networks = [name for name, _ in ban.items("networks")] if ban else []
    zones = _zones(networks, sections) or ("UTC",)
    for zone in zones:
        end = resolve(model.until, zone, Edge.END)
        if model.starts is not None and end <= resolve(model.starts, zone, Edge.START):
            message = f"the exemption ends before it starts{_in_zone(zone)}: `until` must be later than `starts`"
            report.error(entry.source, entry.at("until"), Code.REVERSED_TIMES, message)
            return False
    end, zone = max((resolve(model.until, zone, Edge.END), zone) for zone in zones)
    if model.override:
        return end > now and _override(entry, model, zones, sections, report)  # one that is over is kept as a record
    if end <= now:
        message = f"the exemption `{entry.name}` ended {both(end, zone)}"
        report.warning(entry.source, entry.place, Code.EXEMPTION_OVER, message)
    return True


def _override(
    entry: Entry[ExemptionModel], model: ExemptionModel, zones: Iterable[str], sections: Sections, report: Report
) -> bool:
    """Whether an override is one that its ban and the settings allow."""
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


def _outside(name: str, holes: list[_Hole], sections: Sections, report: Report) -> None:
    """Clients whom a ban does not concern need no exemption from it."""
    ban = sections.bans.get(name)
    covered = Cover(_covered([network for network, _ in ban.items("networks")] if ban else (), sections))
    for entry, model in holes if covered else ():
        for cidr, (_, place) in zip(model.clients, entry.items("clients"), strict=True):
            if not covered.meets(cidr):
                message = f"`{cidr}` is in no network of the ban `{name}`: the exemption does nothing for it"
                report.warning(entry.source, place, Code.EXEMPTION_OUTSIDE, message)


def _covered(names: Iterable[str], sections: Sections) -> list[IPNetwork]:
    """All prefixes of some networks; empty when not all of their clients are known by address."""
    networks = []
    for name in names:
        entry = sections.networks.get(name)
        if entry is None or entry.model is None:
            return []
        networks.append(build.network(entry, entry.model, sections))
    if not all(network.by_address for network in networks):
        return []
    return [prefix for network in networks for prefix in network.prefixes]


def _holes(
    entry: Entry[BanModel], holes: list[_Hole], schedules: _Schedules, sections: Sections, report: Report
) -> None:
    """What the exemptions from one ban leave of it."""
    by_zone: dict[str, list[str]] = {zone: [] for zone in schedules}
    for name, _ in entry.items("networks"):
        for zone in _zones([name], sections):
            by_zone[zone].append(name)
    everywhere: dict[str, bool] = {}
    for zone, schedule in schedules.items():
        life = Span(_first(schedule), _end(entry, schedule))
        lasting: list[_Hole] = []
        for hole, model in holes:
            starts = Instant.MIN if model.starts is None else resolve(model.starts, zone, Edge.START)
            ends = resolve(model.until, zone, Edge.END)
            if starts <= life.start and ends >= life.end:
                lasting.append((hole, model))
            elif ends <= life.start or starts >= life.end:
                never = f"the exemption never meets the ban `{entry.name}`{_in_zone(zone)}"
                message = f"{never}: one ends before the other starts"
                report.warning(hole.source, hole.at("until"), Code.EXEMPTION_IDLE, message)
        exempt = Cover(cidr for _, model in lasting for cidr in model.clients)
        covered = _covered(by_zone[zone], sections)
        everywhere[zone] = bool(covered) and all(exempt.holds(cidr) for cidr in covered)
    if all(everywhere.values()):
        message = (
            f"the ban `{entry.name}` can never apply: its exemptions take out all its networks for as long as it lasts"
        )
        report.error(entry.source, entry.place, Code.NEVER_APPLIES, message)


def _end(entry: Entry[BanModel], schedule: Schedule) -> Instant:
    held = entry.model is not None and entry.model.on_expiry is OnExpiry.HOLD
    return _first(schedule).add(hours=_FOR_EVER) if schedule.ends is None or held else schedule.ends
