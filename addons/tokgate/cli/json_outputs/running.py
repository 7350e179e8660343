"""What commands about a running tokgate print in JSON: status, reload, evasion, authority show, phone list."""

from typing import Literal, TypedDict

from tokgate.cli.json_outputs.policies import DiagnosticOutput
from tokgate.evasion.trial import TrialResult
from tokgate.gate.sockets import Entry
from tokgate.gateway.canary.canary import CanaryOrigin
from tokgate.policy.analysis.definitions import ChangeKind
from tokgate.policy.decision import Phase
from tokgate.policy.observation import KernelRefusal
from tokgate.runtime.status import Condition


class TakenServices(TypedDict):
    """Services from the catalogue inside the package, and its version."""

    version: str
    services: list[str]


class TermStatus(TypedDict):
    """The term of a ban that another extends, in one time zone; `ends` is null where it has no end."""

    ban: str
    starts: str
    ends: str | None


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


class PolicyStatus(TypedDict):
    """The policy in force; `error` is why a newer one is not."""

    version: str
    loaded_at: str
    error: str | None
    restart_needed: list[str]
    next_transition: str | None
    held: list[str]
    catalogue: TakenServices | None
    bans: list[BanStatus]


class WorkerStatus(TypedDict):
    """A process. The keys of `report` depend on what it does; docs/admin.md has those to watch."""

    name: str
    pid: int
    seconds: float
    version: str | None
    retired: bool
    condition: Condition
    report: dict[str, object]


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


class Status(TypedDict):
    """`tokgate status --json`. `ok`: no operator is needed; `problems`: what can't do its work now, in sentences.

    `listening` has the listeners of gates that are processes of their own.
    """

    ok: bool
    problems: list[str]
    at: str
    listening: list[ListenerStatus]
    policy: PolicyStatus
    gateway: GatewayStatus | None
    workers: list[WorkerStatus]


class SourceDiagnostic(DiagnosticOutput):
    """A diagnostic with the line that it is about, and how many characters of it."""

    source: str | None
    length: int


class DefinitionChangeOutput(TypedDict):
    """A name whose definition changed."""

    section: str
    name: str
    how: ChangeKind
    what: list[str]


class BanEffects(TypedDict):
    """The bans that a reload touched, by what became of them; `held` are all that are held now."""

    begun: list[str]
    ended: list[str]
    lifted: list[str]
    held: list[str]


class PolicyRevision(TypedDict):
    """The last git commit that changed the policy files. `uncommitted`: they were changed since."""

    commit: str
    author: str
    uncommitted: bool


class ReloadAnswer(TypedDict):
    """`tokgate reload --json`. `missing` are processes that have not got the policy yet.

    `weaker_settings` are changed settings that let more pass than before, with both values. `not_held` are bans that
    were to be lifted and are not held.
    """

    ok: bool
    read: bool
    before: str
    version: str
    unchanged: bool
    since: str
    changes: list[DefinitionChangeOutput]
    bans: BanEffects
    revision: PolicyRevision | None
    more_changes: int
    weaker_settings: list[str]
    diagnostics: list[SourceDiagnostic]
    restart_needed: list[str]
    workers: list[str]
    missing: list[str]
    gateway: GatewayStatus | None
    not_held: list[str]


class AttemptResult(TypedDict):
    """What became of one attempt to get round a ban; `documented` is where docs say that it passes."""

    attempt: str
    family: str
    by: str
    what: str
    verdict: TrialResult
    answer: str
    detail: str
    documented: str | None


class EvasionResult(TypedDict):
    """`tokgate evasion --json`: how many attempts came to what, and each of them."""

    stopped: int
    documented: int
    passed: int
    attempts: list[AttemptResult]


class CertificateOutput(TypedDict):
    """A certificate of the authority; `names` is null for one that is believed for any."""

    subject: str
    role: Literal["root", "issuing"]
    sha256: str
    valid_from: str
    valid_until: str
    days_left: int
    valid: bool
    names: list[str] | None


class AuthorityShown(TypedDict):
    """`tokgate authority show --json`: the chain, from the gateway's certificate to the root."""

    certificates: list[CertificateOutput]


class PhoneOutput(TypedDict):
    """A phone; `seen` is when it last proved its key, `revoked` is null for one that may use the tunnel."""

    name: str
    owner: str | None
    addresses: list[str]
    public_key: str
    added: str
    seen: str | None
    revoked: str | None


class PhoneList(TypedDict):
    """`tokgate phone list --json`: the tunnel, and the phones in the order in which they were added."""

    interface: str
    up: bool
    endpoint: str
    phones: list[PhoneOutput]
