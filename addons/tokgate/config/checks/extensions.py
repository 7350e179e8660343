"""Checks that a ban which extends another begins at the instant at which that ends, and leaves nobody out."""

from collections.abc import Collection

from tokgate.config import build
from tokgate.config.checks.sections import PolicyEntry, Sections, zones_of
from tokgate.config.diagnostics import Code
from tokgate.config.format.bans import BanModel
from tokgate.config.yaml.source import Report
from tokgate.policy.bans import OnExpiry
from tokgate.policy.schedule import Edge, resolve
from tokgate.policy.snapshot import schedule_of
from tokgate.policy.values.time_text import both, local


def check(sections: Sections, valid: Collection[str], report: Report) -> None:
    """Check all extensions among the bans whose own times are valid."""
    for entry in (sections.bans[name] for name in sections.bans if name in valid):
        old = None if entry.model is None else sections.bans.get(entry.model.extends or "")
        if old is entry:
            message = f"the ban `{entry.name}` can't extend itself: name the one that ended"
            report.error(entry.source, entry.at("extends"), Code.EXTENSION_OVERLAP, message)
        elif old is not None and old.name in valid and old.model is not None and entry.model is not None:
            _times(entry, entry.model, old, old.model, sections, report)
            _narrower(entry, old, report)


def _times(
    entry: PolicyEntry[BanModel],
    model: BanModel,
    old: PolicyEntry[BanModel],
    before: BanModel,
    sections: Sections,
    report: Report,
) -> None:
    where = old.source.origin(old.place)
    if before.on_expiry is OnExpiry.HOLD:
        message = (
            f"`{old.name}` is held past its end, beside its extension: leave out `on_expiry: hold` there ({where})"
        )
        report.error(entry.source, entry.at("extends"), Code.EXTENSION_OVERLAP, message)
        return
    for zone in zones_of(model.networks, sections) or ("UTC",):
        ends = schedule_of(build.ban(old, before), zone).ends
        if ends is None:
            message = f"`{old.name}` has no end, so that there is nothing to extend ({where})"
            report.error(entry.source, entry.at("extends"), Code.EXTENSION_OVERLAP, message)
            return
        starts = resolve(model.starts, zone, Edge.START)
        if starts == ends:
            continue
        write = local(ends, zone).replace(" ", "T", 1).replace(" ", "")
        right = f"`{old.name}` ends {both(ends, zone)} ({where}): write `starts: {write}`"
        if starts > ends:
            message = f"until {both(starts, zone)} neither ban is in force: {right}"
            report.error(entry.source, entry.at("starts"), Code.EXTENSION_GAP, message)
        else:
            message = f"both bans are in force from {both(starts, zone)} on: {right}"
            report.error(entry.source, entry.at("starts"), Code.EXTENSION_OVERLAP, message)
        return


def _narrower(entry: PolicyEntry[BanModel], old: PolicyEntry[BanModel], report: Report) -> None:
    """Warn of services and networks for which the measure ends where it is extended for others."""
    for key, kind in (("services", "service"), ("networks", "network")):
        kept = {word for word, _ in entry.items(key)}
        for word in dict(old.items(key)):
            if word not in kept:
                message = f"the {kind} `{word}` of `{old.name}` is not in its extension: for it the measure ends there"
                report.warning(entry.source, entry.at(key), Code.EXTENSION_NARROWER, message)
