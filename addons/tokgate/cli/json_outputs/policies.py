"""What commands about policies print in JSON: check, diff, timeline, override list."""

from typing import Literal, NotRequired, TypedDict

from tokgate.cli.json_outputs.decisions import Outcome, Seen
from tokgate.cli.override.list import OverrideState
from tokgate.config.diagnostics import Code, Level
from tokgate.config.format.test_model import TestTransport
from tokgate.policy.analysis.timeline import TransitionKind
from tokgate.policy.bans import OnExpiry
from tokgate.policy.decision import Phase, Reason, Response, Verdict


class DiagnosticOutput(TypedDict):
    """An error or a warning; line and column count from 1."""

    level: Level
    file: str
    line: int
    column: int
    message: str
    code: Code


class TestOutput(Outcome):
    """A test of the policy, what was decided, and for a failed one the steps that led to it.

    `sni` and `ech` are null unless the test says `none` or `outer`; `status` is the HTTP status that a client gets.
    `expected` has what the test expects besides the verdict.
    """

    file: str
    line: int
    passed: bool
    expect: str
    client: str
    host: str | None
    url: str | None
    transport: TestTransport
    sni: Literal["none"] | None
    ech: Literal["outer"] | None
    at: str
    status: int | None
    expected: dict[str, str | int]
    trace: list[str]


class CatalogueOutput(TypedDict):
    """What comes from the catalogue inside the package, and the definitions that go before it."""

    version: str | None
    services: list[str]
    own: list[str]


class EndingOutput(TypedDict):
    """A ban, or an exemption from it, that ends soon."""

    ban: str
    exemption: str | None
    networks: list[str]
    ends: str
    local: str
    zone: str
    on_expiry: OnExpiry


class Checked(TypedDict):
    """`tokgate check --json`."""

    at: str
    version: str | None
    summary: str
    files: list[str]
    errors: int
    warnings: int
    passed: int
    failed: int
    diagnostics: list[DiagnosticOutput]
    tests: list[TestOutput]
    catalogue: CatalogueOutput
    ending: list[EndingOutput]


class PolicySource(TypedDict):
    """Where a policy is from, and its version."""

    source: str
    version: str


class Treatment(TypedDict):
    """What a client gets."""

    verdict: Verdict
    phase: Phase | None
    ban: str | None
    response: Response | None
    reason: Reason


VerdictDifference = TypedDict(
    "VerdictDifference",
    {
        "network": str | None,
        "service": str,
        "from": str | None,
        "to": str | None,
        "before": Treatment,
        "after": Treatment,
    },
)
ExemptionDifference = TypedDict(
    "ExemptionDifference",
    {
        "ban": str,
        "client": str,
        "from": str | None,
        "to": str | None,
        "before": str | None,
        "after": str | None,
    },
)


class Redefinition(TypedDict):
    """What is added to and removed from a definition."""

    kind: str
    name: str
    key: NotRequired[str | None]
    added: list[str]
    removed: list[str]


class CountRow(TypedDict):
    """How often a key occurred."""

    key: str
    count: int


class Counts(TypedDict):
    """The most frequent keys, and how many events the others have."""

    rows: list[CountRow]
    other: int


class TrafficExample(TypedDict):
    """An event that comes out differently."""

    client: str
    at: str
    seen: list[Seen]
    before: Outcome
    after: Outcome


class Effect(TypedDict):
    """Events with the same verdicts before and after."""

    before: str
    after: str
    count: int
    networks: Counts
    clients: Counts
    names: Counts
    examples: list[TrafficExample]


class Traffic(TypedDict):
    """What traffic that was seen would get by both policies."""

    events: int
    unreadable: int
    other_version: int
    first: str | None
    last: str | None
    changed: int
    newly_blocked: int
    newly_allowed: int
    effects: list[Effect]


Difference = TypedDict(
    "Difference",
    {
        "old": PolicySource,
        "new": PolicySource,
        "from": str,
        "to": str,
        "differs": bool,
        "verdicts": list[VerdictDifference],
        "exemptions": list[ExemptionDifference],
        "definitions": list[Redefinition],
        "held": list[str],
        "weaker_settings": list[str],
        "traffic": Traffic | None,
    },
)
Difference.__doc__ = (
    "`tokgate diff --json`. `from` and `to` of a difference are null where it goes beyond the span. `held` are "
    "bans in force that NEW neither states nor lifts: a running tokgate keeps them. `weaker_settings` are settings "
    "by which NEW lets more pass, with both values."
)


class TransitionOutput(TypedDict):
    """A change of phase, a window, or an exemption that starts or ends."""

    at: str
    local: str
    zone: str
    kind: TransitionKind
    ban: str
    title: str
    services: list[str]
    networks: list[str]
    before: Phase | None
    after: Phase | None
    exemption: str | None
    extends: str | None
    extended_by: list[str]


Timeline = TypedDict("Timeline", {"from": str, "to": str, "more": bool, "transitions": list[TransitionOutput]})
Timeline.__doc__ = "`tokgate timeline --json`. `more`: there are more than --limit allows."


class OverrideOutput(TypedDict):
    """An override."""

    name: str
    state: OverrideState
    ban: str
    clients: list[str]
    users: list[str]
    groups: list[str]
    devices: list[str]
    interfaces: list[str]
    starts: str | None
    until: str
    reason: str
    ticket: str | None
    by: str | None
    ended_by: str | None
    file: str | None


class OverrideList(TypedDict):
    """`tokgate override list --json`."""

    at: str
    overrides: list[OverrideOutput]
