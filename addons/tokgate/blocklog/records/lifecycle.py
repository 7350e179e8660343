"""Records about tokgate itself: start and stop, policies, phases, overrides, errors. No clock, no I/O."""

import re
import traceback
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from whenever import Instant

from tokgate.blocklog.records.record import (
    EventAction,
    Record,
    Stamp,
    by_whom,
    clean,
    counted,
    frame,
    pruned,
    timestamp,
    wall_time,
)
from tokgate.policy.analysis.definitions import DefinitionChange, weaker_settings
from tokgate.policy.analysis.held_bans import NO_EFFECTS, BanEffects
from tokgate.policy.analysis.timeline import Transition, TransitionKind
from tokgate.policy.bans import Exemption, Lifted
from tokgate.policy.snapshot import Policy, Track
from tokgate.policy.values.hostname import domain_parts, parse_address

MAX_PROBLEMS: Final = 20
"""Most errors of one failed load in its record; the rest is counted. `tokgate check` shows all."""
MAX_TRACE: Final = 8192
MAX_NAMES: Final = 50
"""Most bans and changes that the record of a policy names; the rest is counted."""
MAX_CLIENTS: Final = 16
"""Most prefixes of an override in its records; the policy file has all."""


def started(stamp: Stamp, pid: int, policy: Policy) -> Record:
    """tokgate began to enforce a policy. What the files state as lifted may have been lifted while it was stopped."""
    lifted = [_lifting(each) for each in policy.lifted]
    message = f"tokgate {stamp.observer.version} started with policy {policy.version}: {_extent(policy)}."
    message += (f" Stated as lifted: {_some(lifted)}." if lifted else "") + _held(policy)
    record = frame(stamp, EventAction.STARTED, message, category=("process",), kinds=("start",))
    more = pruned({"lifted_because": lifted[:MAX_NAMES]})
    return record | {"process": {"pid": pid}, "tokgate": {"policy": _policy(policy) | more}}


def stopped(stamp: Stamp, pid: int, why: str) -> Record:
    """tokgate ends in an orderly way; `why` is such as `SIGTERM`. Without this record it was killed."""
    message = f"tokgate stopped: {clean(why)}."
    record = frame(stamp, EventAction.STOPPED, message, category=("process",), kinds=("end",), reason=clean(why))
    return record | {"process": {"pid": pid}}


def policy_loaded(
    stamp: Stamp,
    policy: Policy,
    *,
    replaced: str | None = None,
    warnings: int = 0,
    restart: Sequence[str] = (),
    effects: BanEffects = NO_EFFECTS,
    changes: Sequence[DefinitionChange] = (),
    revision: Mapping[str, str | bool] = MappingProxyType({}),
) -> Record:
    """A policy is in force; `replaced` is the version before it, `restart` the settings that need a restart.

    `effects` and `changes` are those since that version; `revision` has `commit`, `author` and `uncommitted`.
    """
    message = f"Policy {policy.version} is in force: {_extent(policy)}."
    if replaced is not None:
        message = f"Policy {policy.version} replaced {replaced}: {_extent(policy)}."
    lifted = [_lifting(each) for each in policy.lifted if each.ban in effects.lifted]
    for what, names in (("begun", effects.begun), ("ended", effects.ended), ("lifted", lifted)):
        message += f" Bans {what}: {_some(names)}." if names else ""
    message += _held(policy)
    weaker = [clean(each) for each in weaker_settings(changes)]
    message += f" Settings that now let more pass: {'; '.join(weaker)}." if weaker else ""
    if restart:
        message += f" Only after a restart: {', '.join(restart)}."
    if revision:
        since = ", and uncommitted changes" if revision["uncommitted"] else ""
        message += f" Written by {clean(str(revision['author']))} ({clean(str(revision['commit']))}){since}."
    record = frame(stamp, EventAction.POLICY_LOADED, message)
    more = pruned(
        {
            "replaced": replaced,
            "warnings": warnings,
            "restart_needed": list(restart),
            "bans_begun": list(effects.begun[:MAX_NAMES]),
            "bans_ended": list(effects.ended[:MAX_NAMES]),
            "bans_lifted": list(effects.lifted[:MAX_NAMES]),
            "lifted_because": lifted[:MAX_NAMES],
            "changes": [clean(str(change)) for change in changes[:MAX_NAMES]],
            "more_changes": max(0, len(changes) - MAX_NAMES) or None,
            "weaker_settings": weaker,
            **{key: clean(value) if isinstance(value, str) else value for key, value in revision.items()},
        }
    )
    return record | {"tokgate": {"policy": _policy(policy) | more}}


def _held(policy: Policy) -> str:
    return f" Held, since the files no longer state it: {_some(policy.held)}." if policy.held else ""


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return ", ".join(names[:MAX_NAMES]) + more


def _lifting(lifted: Lifted) -> str:
    return clean(f"{lifted.ban}: {lifted.reason}" + (f" ({lifted.by})" if lifted.by else ""))


def policy_load_failed(stamp: Stamp, problems: Sequence[str], *, kept: str | None) -> Record:
    """A policy could not be loaded; `kept` is the version that stays in force. Problems are lines of text."""
    first = clean(problems[0]) if problems else "no details"
    stays = f"policy {kept} stays in force" if kept is not None else "no policy is in force"
    message = f"The policies could not be loaded ({counted(len(problems), 'error')}), {stays}: {first}"
    record = frame(stamp, EventAction.POLICY_LOAD_FAILED, message, succeeded=False, reason=first)
    shown = [clean(problem) for problem in problems[:MAX_PROBLEMS]]
    return record | pruned({"tokgate": {"policy": {"version": kept, "errors": len(problems), "problems": shown}}})


def phase_changed(stamp: Stamp, change: Transition, policy_version: str) -> Record:
    """A transition of a ban, one of its windows or an exemption from it."""
    ban, when = change.ban, wall_time(change.at, change.zone)
    networks = ", ".join(change.networks)
    extended = f", extended by {', '.join(change.extended_by)}" if change.extended_by else ""
    did = {
        TransitionKind.PHASE: f"went from {change.before or 'unannounced'} to {change.after or 'unannounced'}"
        + extended,
        TransitionKind.OVERDUE: "is past its end and held",
        TransitionKind.WINDOW_OPENS: "applies from now on: a window opened",
        TransitionKind.WINDOW_CLOSES: "rests: a window closed",
        TransitionKind.EXEMPTION_STARTS: f"has an exemption from now on: {change.exemption}",
        TransitionKind.EXEMPTION_ENDS: f"has one exemption fewer: {change.exemption} ended",
    }[change.kind]
    message = f"Ban {by_whom(ban)} {did}, for {networks}, at {when}."
    record = frame(stamp, EventAction.PHASE_CHANGED, message)
    fields = {
        "ban": ban.name,
        "authority": ban.authority,
        "basis": ban.basis,
        "transition": change.kind.value,
        "phase": change.after,
        "phase_before": change.before,
        "exemption": change.exemption,
        "networks": list(change.networks),
        "zone": change.zone,
        "due": timestamp(change.at),
        "policy": {"version": policy_version},
    }
    return record | pruned({"tokgate": fields})


def ban_near_expiry(stamp: Stamp, track: Track, policy_version: str) -> Record:
    """A ban ends soon. Raises ValueError if the track's ban has no end."""
    ban, ends = track.ban, track.schedule.ends
    if ends is None:
        raise ValueError(f"ban {ban.name} has no end to be near to")
    networks = ", ".join(track.networks)
    message = f"Ban {by_whom(ban)} ends at {wall_time(ends, track.zone)}, for {networks}; then: {ban.on_expiry}."
    record = frame(stamp, EventAction.BAN_NEAR_EXPIRY, message, kinds=("info",))
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
    """An override came into force: who made it, for whom, from which ban, until when and why."""
    ban, clients = exemption.ban, _clients(exemption)
    who = "nobody says by whom" if exemption.by is None else f"made by {clean(exemption.by)}"
    why = clean(exemption.reason) + ("" if exemption.ticket is None else f" ({clean(exemption.ticket)})")
    message = (
        f"Override {exemption.name} from ban {ban} is in force for {clients} until {timestamp(until)}, {who}: {why}."
    )
    record = frame(stamp, EventAction.OVERRIDE_STARTED, message, kinds=("change", "start"))
    actor = None if exemption.by is None else {"name": clean(exemption.by)}
    return record | pruned({"user": actor, "tokgate": _override(exemption, until, policy_version)})


def override_ended(stamp: Stamp, exemption: Exemption, until: Instant, policy_version: str, *, why: str) -> Record:
    """An override ended; `why` is a phrase such as `its time is over`. `exemption.ended_by` ended it early."""
    whom = "" if exemption.ended_by is None else f" by {clean(exemption.ended_by)}"
    message = f"Override {exemption.name} from ban {exemption.ban} ended for {_clients(exemption)}: {why}{whom}."
    record = frame(stamp, EventAction.OVERRIDE_ENDED, message, kinds=("change", "end"), reason=why)
    actor = None if exemption.ended_by is None else {"name": clean(exemption.ended_by)}
    return record | pruned({"user": actor, "tokgate": _override(exemption, until, policy_version)})


def _clients(exemption: Exemption) -> str:
    whom = exemption.whom
    named, more = whom[:MAX_CLIENTS], len(whom) - MAX_CLIENTS
    return clean(", ".join(named)) + (f" and {more} more" if more > 0 else "")


def _override(exemption: Exemption, until: Instant, policy_version: str) -> Record:
    return {
        "ban": exemption.ban,
        "exemption": exemption.name,
        "exemption_reason": clean(exemption.reason),
        "exemption_until": timestamp(until),
        "clients": [str(client) for client in exemption.clients[:MAX_CLIENTS]],
        "identified": [clean(each) for each in exemption.identified[:MAX_CLIENTS]],
        "widest": pruned({"ipv4": _widest(exemption, 4), "ipv6": _widest(exemption, 6)}),
        "ticket": exemption.ticket and clean(exemption.ticket),
        "by": exemption.by and clean(exemption.by),
        "ended_by": exemption.ended_by and clean(exemption.ended_by),
        "policy": {"version": policy_version},
    }


def _widest(exemption: Exemption, version: int) -> int | None:
    """The shortest prefix length of all clients of an IP version, also of those that the record doesn't name."""
    return min((client.prefixlen for client in exemption.clients if client.version == version), default=None)


def internal_error(stamp: Stamp, error: BaseException, where: str) -> Record:
    """An exception was raised in `where`, such as a hook.

    Addresses and host names are removed from the error's text, since they may not belong to a banned service. What
    `on_error` decided about the traffic has its own record.
    """
    detail = clean(impersonal(str(error))) or "no message"
    kind, lines = type(error).__name__, "".join(traceback.format_exception(error)).split("\n")
    # The unindented lines of a traceback are the exceptions' messages, the others source lines.
    trace = "\n".join(line if line[:1].isspace() else impersonal(line) for line in lines)
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


_GATEWAY: Final = {
    EventAction.GATEWAY_DIFFERS: "The gateway's kernel differs",
    EventAction.GATEWAY_RESTORED: "The gateway's kernel was restored",
    EventAction.CANARY_FAILED: "The canary failed",
    EventAction.CANARY_RECOVERED: "The canary's probes succeed again",
}


def gateway_changed(stamp: Stamp, action: EventAction, differences: Sequence[str], policy_version: str) -> Record:
    """The kernel is not what this policy needs, or is again; the canary was not treated as it should be, or is again.

    `differences` are what was met, in sentences.
    """
    shown = [clean(each) for each in differences[:MAX_PROBLEMS]]
    more = f" (and {len(differences) - 1} more)" if len(differences) > 1 else ""
    record = frame(
        stamp,
        action,
        f"{_GATEWAY[action]}: {shown[0]}{more}.",
        succeeded=action in (EventAction.GATEWAY_RESTORED, EventAction.CANARY_RECOVERED),
        reason=shown[0],
    )
    return record | {"tokgate": {"gateway": {"differences": shown}, "policy": {"version": policy_version}}}


def _policy(policy: Policy) -> Record:
    taken = policy.catalogue
    catalogue = {} if taken is None else {"catalogue": {"version": taken.version, "services": list(taken.services)}}
    return catalogue | {
        "version": policy.version,
        "services": len(policy.services),
        "networks": len(policy.networks),
        "bans": len(policy.bans),
        "exemptions": len(policy.exemptions),
        **({"bans_held": list(policy.held[:MAX_NAMES])} if policy.held else {}),
        # Settings that let traffic pass undecided: a reviewer must see when they change.
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


_WORD: Final = re.compile(r"(?<![\w./-])[\w:.-]*[\w:](?:%[\w.-]+)?(?![\w/-])")
"""A word that could be an address or a host name, and no part of a path."""


def impersonal(text: str) -> str:
    """`[Errno 113] No route to host: ('192.0.2.7', 443)` becomes `… ('(address)', 443)`."""
    return _WORD.sub(lambda found: _instead(found[0]), text)


def _instead(word: str) -> str:
    host, colon, port = word.rpartition(":")
    for bare, rest in ((word, ""), (host, colon + port) if port.isdigit() else (word, "")):
        if parse_address(bare.partition("%")[0]) is not None:
            return "(address)" + rest
        if "." in bare and ":" not in bare and domain_parts(bare.lower()).registered_domain is not None:
            return "(name)" + rest
    return word
