"""The state of a running tokgate: what `tokgate status` prints, and health, metrics and systemd are told."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, TypedDict, cast

from whenever import Instant

from tokgate.blocklog.records import lifecycle
from tokgate.config.diagnostics import render
from tokgate.gate.sockets import Entry
from tokgate.gateway.canary.canary import CanaryOrigin
from tokgate.policy.analysis.now import now_of
from tokgate.policy.analysis.timeline import next_transition
from tokgate.policy.decision import Phase
from tokgate.policy.observation import KernelRefusal
from tokgate.policy.values.text import shown

if TYPE_CHECKING:
    from tokgate.runtime.instance import Instance

SILENT: Final = 3.0
"""Seconds without a report after which a process counts as silent. Each reports about once a second."""

LONGEST: Final = 60.0
"""Seconds for which work is no problem."""


@dataclass(frozen=True, slots=True)
class Work:
    """What keeps a supervisor busy since then, with `normal` seconds for which that is no problem.

    `hands_over`: another process goes on with it, so that this one may end.
    """

    what: str
    since: str
    normal: float = LONGEST
    hands_over: bool = False

    def problem(self, now: Instant) -> str | None:
        """What is wrong with it; None while nothing is."""
        lasts = (now - Instant.parse_iso(self.since)).total("seconds")
        return None if lasts < self.normal else f"{self.what}, since {self.since}"


class Condition(StrEnum):
    """What a process is doing, judged by its reports."""

    STARTING = "starting"
    """It has not reported yet."""
    SERVING = "serving"
    SILENT = "silent"
    """It was stopped, or hangs: no report has come for SILENT seconds."""
    ENDING = "ending"
    """It serves its last connections."""


class TakenServices(TypedDict):
    """Services from the catalogue inside the package, and its version."""

    version: str
    services: list[str]


class TermStatus(TypedDict):
    """The term of a ban that another extends, in one time zone."""

    ban: str
    starts: str
    ends: str


class BanStatus(TypedDict):
    """A ban in the networks of one time zone. `idle` says why it does not apply although its phase would.

    `held`: the files no longer state it, and nobody has lifted it. `extends` has the earlier bans, the first first.
    """

    ban: str
    zone: str
    networks: list[str]
    phase: Phase | None
    idle: str | None
    overdue: bool
    held: bool
    extends: list[TermStatus]
    extended_by: list[str]
    next: str | None
    ends: str | None


class ExemptStatus(TypedDict):
    """An exemption, or an override, that is in force. `whom` are clients, in words; `ticket` and `by` as stated."""

    name: str
    ban: str
    networks: list[str]
    whom: list[str]
    until: str
    override: bool
    by: str | None
    ticket: str | None
    reason: str


class NetworkStatus(TypedDict):
    """A network: the bans that are in force in it, by phase, and the exemptions from them.

    `open` has the bans that apply to none of its clients, since exemptions hold for all of them.
    """

    network: str
    bans: dict[str, Phase]
    exempt: list[str]
    open: list[str]


class PolicyStatus(TypedDict):
    """The policy in force; `error` is why what the files state is not, `errors` are all that say so, at most 20.

    `files` is where it is read from. `in_force` tells how many bans are in force, or that none is; `open` names each
    network that exemptions open as a whole, in a sentence.
    """

    files: str
    version: str
    in_force: str
    open: list[str]
    loaded_at: str
    error: str | None
    errors: list[str]
    error_since: str | None
    restart_needed: list[str]
    next_transition: str | None
    held: list[str]
    catalogue: TakenServices | None
    bans: list[BanStatus]
    exempt: list[ExemptStatus]
    networks: list[NetworkStatus]


class WorkerStatus(TypedDict):
    """A process. `version` is that of its policy, null for a process without one; `seconds` is its age.

    `retired`: it accepts no more and serves its last connections by the previous policy. `report` is what it says of
    itself: its keys depend on what it does.
    """

    name: str
    pid: int
    seconds: float
    version: str | None
    retired: bool
    condition: Condition
    report: dict[str, Any]


def worker_of(
    name: str,
    pid: int,
    seconds: float,
    version: str | None,
    report: dict[str, Any],
    *,
    retired: bool = False,
    silent: float = 0.0,
) -> WorkerStatus:
    """A process whose latest report came `silent` seconds ago."""
    condition = Condition.SERVING if report else Condition.STARTING
    if retired or silent >= SILENT:
        condition = Condition.ENDING if retired else Condition.SILENT
    return {
        "name": name,
        "pid": pid,
        "seconds": round(seconds, 1),
        "version": version,
        "retired": retired,
        "condition": condition,
        "report": report,
    }


class GatewayDifferences(TypedDict):
    """How the kernel differs now from what it should be, in sentences, by part."""

    table: list[str]
    routes: list[str]
    settings: list[str]
    listeners: list[str]
    conflicts: list[str]


class GatewayRestored(TypedDict):
    """How often the kernel's part was put back, when last, and what differed then."""

    count: int
    at: str | None
    what: list[str]


class CanaryStatus(TypedDict):
    """The gateway's canary: `ok` unless two probes in a row failed; `at` of the last probe that says so.

    `asks_from`: a network namespace of its own, or the machine itself where none can be made; null before such a probe.
    `unavailable` is why there can be none, and then nothing is known.
    """

    ok: bool
    at: str | None
    seconds: int
    problems: list[str]
    asks_from: CanaryOrigin | None
    unavailable: str | None


class GatewayStatus(TypedDict):
    """The kernel's part of a gateway. `ok`: nothing differs, nor did in the last two minutes.

    `refused` are packets that the kernel refused since tokgate's start, and no gate saw.
    """

    ok: bool
    table: str
    policy: str | None
    loaded_at: str
    until: str | None
    problems: list[str]
    differences: GatewayDifferences
    restored: GatewayRestored
    refused: dict[KernelRefusal, int]
    canary: CanaryStatus | None


class ListenerStatus(TypedDict):
    """Where gates listen; `entry` says how clients come there."""

    entry: Entry
    host: str
    port: int


class BusyStatus(TypedDict):
    """What the supervisor does besides, such as a start, a restart or draining, and since when."""

    what: str
    since: str


class Status(TypedDict):
    """`tokgate status --json`. `ok`: no operator is needed; `problems`: what can't do its work now, in sentences.

    `listening` has the listeners of gates that are processes of their own. `known`: `now`, or where the supervisor does
    not answer, when it last wrote this, without `workers`.
    """

    ok: bool
    problems: list[str]
    at: str
    known: str
    busy: BusyStatus | None
    log: str
    listening: list[ListenerStatus]
    policy: PolicyStatus
    gateway: GatewayStatus | None
    workers: list[WorkerStatus]


def state_of(
    instance: "Instance",
    workers: Iterable[WorkerStatus],
    *,
    faults: Iterable[str] = (),
    work: Work | None = None,
    listening: list[ListenerStatus] | None = None,
) -> Status:
    """The status. `faults`: what is wrong with processes, in words; `work`: what is done besides."""
    holder, at, gateway = instance.holder, instance.now(), gateway_of(instance)
    taken = holder.snapshot.policy.catalogue
    now, upcoming, known = now_of(holder.snapshot, at), next_transition(holder.snapshot, at), list(workers)
    why = f"{holder.last_error}, since {holder.failing_since}"
    stale = () if holder.last_error is None else (f"the newest policy is not in force: {why}",)
    kernel = () if gateway is None or gateway["ok"] else gateway["problems"]
    late = None if work is None else work.problem(at)
    problems = [
        *stale,
        *(f"the gateway's kernel: {said}" for said in kernel),
        *faults,
        *([] if late is None else [late]),
    ]
    return {
        "ok": not problems and not now.held and not any(has_trouble(worker["report"]) for worker in known),
        "problems": problems,
        "at": str(at),
        "known": "now",
        "busy": None if work is None else {"what": work.what, "since": work.since},
        "log": str(instance.log),
        "listening": listening or [],
        "policy": {
            "files": str(holder.path.absolute()),
            "version": now.version,
            "in_force": now.summary,
            "open": [each.sentence for each in now.opened],
            "loaded_at": str(holder.loaded_at),
            "error": holder.last_error,
            "errors": [render(each).splitlines()[0] for each in holder.errors[: lifecycle.MAX_PROBLEMS]],
            "error_since": None if holder.failing_since is None else str(holder.failing_since),
            "restart_needed": list(instance.restart_needed()),
            "next_transition": None if upcoming is None else str(upcoming),
            "held": list(now.held),
            "catalogue": None if taken is None else shown(TakenServices, taken),
            "bans": [
                shown(
                    BanStatus,
                    each,
                    ban=each.ban.name,
                    extends=[shown(TermStatus, term, ban=term.ban.name) for term in each.extends],
                )
                for each in now.bans
            ],
            "exempt": [
                shown(ExemptStatus, each.exemption, networks=list(each.networks), until=str(each.until))
                for each in now.exempt
            ],
            "networks": [
                {
                    "network": each.network,
                    "bans": {ban.ban.name: ban.phase for ban in each.bans if ban.phase is not None},
                    "exempt": [exempt.exemption.name for exempt in each.exempt],
                    "open": [opened.ban for opened in each.opened],
                }
                for each in now.networks
            ],
        },
        "gateway": gateway,
        "workers": known,
    }


def gateway_of(instance: "Instance") -> GatewayStatus | None:
    """The state of the kernel's part, where tokgate keeps it."""
    return cast("GatewayStatus | None", instance.gateway())


def has_trouble(report: dict[str, Any]) -> bool:
    """Whether a process reports that it failed inside, lost records, or can't write the log."""
    return bool(report.get("errors") or report.get("records_dropped") or report.get("log_error"))
