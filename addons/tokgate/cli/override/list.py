"""`tokgate override list`: the active and upcoming overrides; with `--all` also the ended ones."""

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Final

from whenever import Instant

from tokgate.cli.exits import Exit
from tokgate.cli.policy_source import open_snapshot
from tokgate.cli.tables import aligned
from tokgate.cli.terminal import narrate
from tokgate.cli.time_arguments import common_zone
from tokgate.policy.analysis.terms import Override, overrides
from tokgate.policy.snapshot import Snapshot
from tokgate.policy.values.text import local, readable, utc

_HEADINGS: Final = ("name", "state", "ban", "for whom", "until", "by", "reason")
_NAMED: Final = 3
"""Maximum clients in a row of the table."""


class OverrideState(StrEnum):
    """The states of an override in time."""

    ACTIVE = "active"
    UPCOMING = "upcoming"
    ENDED = "ended"


def state(override: Override, now: Instant) -> OverrideState:
    """The state of an override at `now`."""
    if now in override.span:
        return OverrideState.ACTIVE
    return OverrideState.UPCOMING if now < override.span.start else OverrideState.ENDED


def show(policies: Path, *, everything: bool, as_json: bool) -> Exit:
    """Print the overrides of a policy, the next to end first."""
    now = Instant.now()
    snapshot = open_snapshot(policies, now)
    known = sorted(overrides(snapshot).values(), key=lambda each: (each.span.end, each.exemption.name))
    found = [each for each in known if everything or state(each, now) is not OverrideState.ENDED]
    if as_json:
        document = {"at": utc(now), "overrides": [_document(each, now) for each in found]}
        sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    elif found:
        rows = [[readable(cell) for cell in _row(each, snapshot, now)] for each in found]
        sys.stdout.writelines(f"{line}\n" for line in aligned([_HEADINGS, *rows]))
    else:
        narrate("no overrides" if everything else "no overrides in force or to come")
    return Exit.DONE


def _document(override: Override, now: Instant) -> dict[str, object]:
    exemption = override.exemption
    return {
        "name": exemption.name,
        "state": state(override, now),
        "ban": exemption.ban,
        "clients": [str(client) for client in exemption.clients],
        "users": list(exemption.users),
        "groups": list(exemption.groups),
        "devices": list(exemption.devices),
        "interfaces": list(exemption.interfaces),
        "starts": None if override.span.start == Instant.MIN else utc(override.span.start),
        "until": utc(override.span.end),
        "reason": exemption.reason,
        "ticket": exemption.ticket,
        "by": exemption.by,
        "ended_by": exemption.ended_by,
        "file": None if exemption.origin is None else exemption.origin.file,
    }


def _row(override: Override, snapshot: Snapshot, now: Instant) -> tuple[str, ...]:
    exemption = override.exemption
    clients = exemption.whom
    more = len(clients) - _NAMED
    zone = common_zone(snapshot.policy.networks[name] for name in snapshot.bans[exemption.ban].networks)
    who = exemption.by or "-"
    if exemption.ended_by is not None:
        who += f", ended by {exemption.ended_by}"
    return (
        exemption.name,
        state(override, now),
        exemption.ban,
        ", ".join(clients[:_NAMED]) + (f" and {more} more" if more > 0 else ""),
        f"{local(override.span.end, zone)} {zone}",
        who,
        exemption.reason + ("" if exemption.ticket is None else f" ({exemption.ticket})"),
    )
