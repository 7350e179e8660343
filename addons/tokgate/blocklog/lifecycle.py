"""Records about tokgate itself: start and stop, policies, phases, errors, its own history. Pure, as records.py is."""

import traceback
from collections.abc import Sequence
from typing import Final

from whenever import Instant

from tokgate.blocklog.chain import Head
from tokgate.blocklog.checkpoint import Checkpoint
from tokgate.blocklog.document import EventAction, Record, clean, frame, pruned, timestamp
from tokgate.blocklog.impersonal import impersonal, impersonal_trace
from tokgate.blocklog.segment import Torn
from tokgate.blocklog.stamp import Stamp
from tokgate.blocklog.wording import by_whom, counted, wall_time
from tokgate.policy.bans import Exemption
from tokgate.policy.snapshot import Policy, Track
from tokgate.policy.timeline import Kind, Transition

MAX_PROBLEMS: Final = 20
"""Most errors of one failed load that are kept in the record; the rest is counted. `tokgate check` shows all."""
MAX_TRACE: Final = 8192
MAX_CLIENTS: Final = 16
"""Most prefixes of an override that its records name; the policy file has all."""


def started(stamp: Stamp, pid: int, policy: Policy) -> Record:
    """tokgate began to enforce a policy."""
    message = f"tokgate {stamp.observer.version} started with policy {policy.version}: {_extent(policy)}."
    record = frame(stamp, EventAction.STARTED, message, category=("process",), kinds=("start",))
    return record | {"process": {"pid": pid}, "tokgate": {"policy": _policy(policy)}}


def stopped(stamp: Stamp, pid: int, why: str) -> Record:
    """tokgate ends in an orderly way; `why` is such as `SIGTERM`. Without this record it was killed."""
    message = f"tokgate stopped: {clean(why)}."
    record = frame(stamp, EventAction.STOPPED, message, category=("process",), kinds=("end",), reason=clean(why))
    return record | {"process": {"pid": pid}}


def policy_loaded(
    stamp: Stamp, policy: Policy, *, replaced: str | None = None, warnings: int = 0, restart: Sequence[str] = ()
) -> Record:
    """A policy is in force; `replaced` is the version before it, `restart` the settings that wait for a restart."""
    message = f"Policy {policy.version} is in force: {_extent(policy)}."
    if replaced is not None:
        message = f"Policy {policy.version} replaced {replaced}: {_extent(policy)}."
    if restart:
        message += f" Only after a restart: {', '.join(restart)}."
    record = frame(stamp, EventAction.POLICY_LOADED, message, category=("configuration",), kinds=("change",))
    more = pruned({"replaced": replaced, "warnings": warnings, "restart_needed": list(restart)})
    return record | {"tokgate": {"policy": _policy(policy) | more}}


def policy_load_failed(stamp: Stamp, problems: Sequence[str], *, kept: str | None) -> Record:
    """A policy edit was wrong; `kept` is the version that stays in force, if any. Problems are lines of text."""
    first = clean(problems[0]) if problems else "no details"
    stays = f"policy {kept} stays in force" if kept is not None else "no policy is in force"
    message = f"The policies could not be loaded ({counted(len(problems), 'error')}), {stays}: {first}"
    record = frame(
        stamp,
        EventAction.POLICY_LOAD_FAILED,
        message,
        category=("configuration",),
        kinds=("change",),
        succeeded=False,
        reason=first,
    )
    shown = [clean(problem) for problem in problems[:MAX_PROBLEMS]]
    return record | pruned({"tokgate": {"policy": {"version": kept, "errors": len(problems), "problems": shown}}})


def phase_changed(stamp: Stamp, change: Transition, policy_version: str) -> Record:
    """A ban, one of its windows or an exemption from it reached an instant at which something changes."""
    ban, when = change.ban, wall_time(change.at, change.zone)
    networks = ", ".join(change.networks)
    did = {
        Kind.PHASE: f"went from {change.before or 'unannounced'} to {change.after or 'unannounced'}",
        Kind.OVERDUE: "is past its end and held",
        Kind.WINDOW_OPENS: "applies from now on: a window opened",
        Kind.WINDOW_CLOSES: "rests: a window closed",
        Kind.EXEMPTION_STARTS: f"has an exemption from now on: {change.exemption}",
        Kind.EXEMPTION_ENDS: f"has one exemption fewer: {change.exemption} ended",
    }[change.kind]
    message = f"Ban {by_whom(ban)} {did}, for {networks}, at {when}."
    record = frame(stamp, EventAction.PHASE_CHANGED, message, category=("configuration",), kinds=("change",))
    fields = {
        "ban": ban.name,
        "authority": ban.authority,
        "basis": ban.basis,
        "transition": change.kind.value,
        "phase": change.after and change.after.value,
        "phase_before": change.before and change.before.value,
        "exemption": change.exemption,
        "networks": list(change.networks),
        "zone": change.zone,
        "due": timestamp(change.at),
        "policy": {"version": policy_version},
    }
    return record | pruned({"tokgate": fields})


def ban_near_expiry(stamp: Stamp, track: Track, policy_version: str) -> Record:
    """A ban ends soon: whoever answers for it can still prolong it. The track's ban must have an end."""
    ban, ends = track.ban, track.schedule.ends
    if ends is None:
        raise ValueError(f"ban {ban.name} has no end to be near to")
    networks = ", ".join(track.networks)
    message = f"Ban {by_whom(ban)} ends at {wall_time(ends, track.zone)}, for {networks}; then: {ban.on_expiry}."
    record = frame(stamp, EventAction.BAN_NEAR_EXPIRY, message, category=("configuration",), kinds=("info",))
    fields = {
        "ban": ban.name,
        "authority": ban.authority,
        "basis": ban.basis,
        "contact": ban.contact,
        "until": timestamp(ends),
        "on_expiry": ban.on_expiry.value,
        "networks": list(track.networks),
        "zone": track.zone,
        "policy": {"version": policy_version},
    }
    return record | pruned({"tokgate": fields})


def override_started(stamp: Stamp, exemption: Exemption, until: Instant, policy_version: str) -> Record:
    """An override is in force: who made it, for whom, from which ban, until when and why."""
    who, ban, clients = _who(exemption.by), exemption.ban, _clients(exemption)
    why = f"{clean(exemption.reason)}{_ticket(exemption)}"
    message = (
        f"Override {exemption.name} from ban {ban} is in force for {clients} until {timestamp(until)}, {who}: {why}."
    )
    record = frame(stamp, EventAction.OVERRIDE_STARTED, message, category=("configuration",), kinds=("change", "start"))
    actor = None if exemption.by is None else {"name": clean(exemption.by)}
    return record | pruned({"user": actor, "tokgate": _override(exemption, until, policy_version)})


def override_ended(stamp: Stamp, exemption: Exemption, until: Instant, policy_version: str, *, why: str) -> Record:
    """An override is over; `why` is `its time is over`, say. `exemption.ended_by` ended it early."""
    whom = "" if exemption.ended_by is None else f" by {clean(exemption.ended_by)}"
    message = f"Override {exemption.name} from ban {exemption.ban} ended for {_clients(exemption)}: {why}{whom}."
    record = frame(
        stamp, EventAction.OVERRIDE_ENDED, message, category=("configuration",), kinds=("change", "end"), reason=why
    )
    actor = None if exemption.ended_by is None else {"name": clean(exemption.ended_by)}
    return record | pruned({"user": actor, "tokgate": _override(exemption, until, policy_version)})


def _who(by: str | None) -> str:
    return f"made by {clean(by)}" if by is not None else "nobody says by whom"


def _ticket(exemption: Exemption) -> str:
    return "" if exemption.ticket is None else f" ({clean(exemption.ticket)})"


def _clients(exemption: Exemption) -> str:
    named, more = exemption.clients[:MAX_CLIENTS], len(exemption.clients) - MAX_CLIENTS
    return ", ".join(map(str, named)) + (f" and {more} more" if more > 0 else "")


def _override(exemption: Exemption, until: Instant, policy_version: str) -> Record:
    return {
        "ban": exemption.ban,
        "exemption": exemption.name,
        "exemption_reason": clean(exemption.reason),
        "exemption_until": timestamp(until),
        "clients": [str(client) for client in exemption.clients[:MAX_CLIENTS]],
        "widest": pruned({"ipv4": _widest(exemption, 4), "ipv6": _widest(exemption, 6)}),
        "ticket": exemption.ticket and clean(exemption.ticket),
        "by": exemption.by and clean(exemption.by),
        "ended_by": exemption.ended_by and clean(exemption.ended_by),
        "policy": {"version": policy_version},
    }


def _widest(exemption: Exemption, version: int) -> int | None:
    """The length of the prefix that holds most addresses, of all clients, also of those that aren't named."""
    return min((client.prefixlen for client in exemption.clients if client.version == version), default=None)


def internal_error(stamp: Stamp, error: BaseException, where: str) -> Record:
    """Something raised in `where` (a hook's name).

    What traffic it was about isn't said, and addresses and names of hosts are taken out of what the error says: nothing
    shows whether they belong to a banned service. What such traffic met by `on_error` has a record of its own.
    """
    detail = clean(impersonal(str(error))) or "no message"
    kind, trace = type(error).__name__, impersonal_trace("".join(traceback.format_exception(error)))
    record = frame(
        stamp,
        EventAction.INTERNAL_ERROR,
        f"{where} failed with {kind}: {detail}.",
        category=("process",),
        kinds=("info",),
        succeeded=False,
        reason=detail,
        code="internal-error",
    )
    record["error"] = {"type": kind, "message": detail, "stack_trace": trace[-MAX_TRACE:]}
    return record | {"tokgate": {"where": clean(where, 128)}}


def log_gap(stamp: Stamp, dropped: int, since: Instant, until: Instant) -> Record:
    """Records were dropped because the log could not be written; enforcement went on."""
    were = "was" if dropped == 1 else "were"
    when = f"between {timestamp(since)} and {timestamp(until)}"
    message = f"{counted(dropped, 'record')} {were} dropped {when}; enforcement went on."
    record = frame(stamp, EventAction.LOG_GAP, message, category=("process",), kinds=("info",), succeeded=False)
    gap = {"dropped": dropped, "since": timestamp(since), "until": timestamp(until)}
    return record | {"tokgate": {"gap": gap}}


def log_continued(
    stamp: Stamp,
    *,
    file: str | None,
    records: int,
    size: int,
    why: str,
    last: Head | None = None,
    torn: Torn | None = None,
) -> Record:
    """The first record of a new file: which file it follows (None if that is gone), with how many lines and bytes.

    `last` is the old file's last record; `torn` what was written of one that now follows whole.
    """
    held = f"{counted(records, 'record')}, {counted(size, 'byte')}"
    message = f"The log continues from {file or 'a file that is gone'} ({held}): {why}."
    record = frame(stamp, EventAction.LOG_CONTINUED, message, category=("process",), kinds=("info",), reason=why)
    continues = {"file": file, "records": records, "bytes": size}
    if last is not None and last.sequence:
        continues |= {"sequence": last.sequence, "hash": last.hash}
    return record | pruned({"tokgate": {"continues": continues, "torn": torn and _torn(torn)}})


def log_recovered(stamp: Stamp, torn: Torn) -> Record:
    """What stands before this record is torn: its length and digest. It got a newline, and nothing was deleted."""
    what = "The line before this one is" if torn.lines == 1 else f"The {torn.lines} lines before this one are"
    message = f"{what} torn: {counted(torn.size, 'byte')} of records whose writing was interrupted."
    record = frame(stamp, EventAction.LOG_RECOVERED, message, category=("process",), kinds=("info",))
    return record | {"tokgate": {"torn": _torn(torn)}}


def log_deleted(stamp: Stamp, files: Sequence[str], days: int) -> Record:
    """Files of the log were deleted because they were older than `days`."""
    were = "was" if len(files) == 1 else "were"
    message = f"{counted(len(files), 'file')} of the log {were} older than {counted(days, 'day')}: deleted."
    record = frame(stamp, EventAction.LOG_DELETED, message, category=("process",), kinds=("info",))
    return record | {"tokgate": {"deleted": {"files": list(files), "days": days}}}


def log_checkpoint(stamp: Stamp, checkpoint: Checkpoint) -> Record:
    """A signature over the record before this one, and so over everything before it."""
    message = f"Checkpoint: all up to record {checkpoint.head.sequence} of this chain is signed."
    record = frame(stamp, EventAction.LOG_CHECKPOINT, message, category=("process",), kinds=("info",))
    return record | {"tokgate": {"checkpoint": checkpoint.as_json()}}


def _torn(torn: Torn) -> Record:
    said = {"bytes": torn.size, "sha256": torn.sha256}
    return said if torn.lines == 1 else said | {"lines": torn.lines}


def _policy(policy: Policy) -> Record:
    return {
        "version": policy.version,
        "services": len(policy.services),
        "networks": len(policy.networks),
        "bans": len(policy.bans),
        "exemptions": len(policy.exemptions),
        # What a reviewer must hear of when it changes: where the policy lets through what it can't judge.
        "settings": {
            "unknown_clients": policy.settings.unknown_clients.value,
            "on_error": policy.settings.on_error.value,
            "missing_sni": policy.settings.missing_sni.value,
            "ech_outer": policy.settings.ech_outer.value,
        },
    }


def _extent(policy: Policy) -> str:
    parts = ((policy.bans, "ban"), (policy.networks, "network"), (policy.services, "service"))
    return ", ".join(counted(len(held), noun) for held, noun in (*parts, (policy.exemptions, "exemption")))
