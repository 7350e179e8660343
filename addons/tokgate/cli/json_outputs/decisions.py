"""A decision in JSON: of `explain`, `simulate`, and within `check` and `diff`. Times are RFC 3339, in UTC."""

from typing import NotRequired, TypedDict

from tokgate.policy.decision import Phase, Reason, Response, Signal, Verdict


class Grounds(TypedDict):
    """Why something was decided; what does not apply is null."""

    phase: Phase | None
    service: str | None
    rule: str | None
    signal: Signal | None
    network: str | None
    ban: str | None
    exemption: str | None
    response: Response | None
    reason: Reason
    next_change: str | None


class Outcome(Grounds):
    """What was decided, and why; what does not apply is null."""

    verdict: Verdict


class Who(TypedDict):
    """Who the client is besides its address; only what was stated."""

    user: NotRequired[str]
    groups: NotRequired[list[str]]
    device: NotRequired[str]
    interface: NotRequired[str]


class Step(TypedDict):
    """A step of the decision. `lines` led to it; `others` were considered and don't count."""

    number: int
    title: str
    lines: list[str]
    others: list[str]


class Explained(Outcome, Who):
    """`tokgate explain --json`: the decision about a query, with its steps in order."""

    client: str
    host: str | None
    at: str
    steps: list[Step]


class Seen(TypedDict):
    """A name, address or URL that was decided about, and where it was seen."""

    signal: Signal
    value: str


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


class Simulated(Grounds):
    """A line of `tokgate simulate`. `client` and `host` are echoed as they came, whatever they are."""

    client: object
    host: object
    at: object
    user: NotRequired[object]
    groups: NotRequired[object]
    device: NotRequired[object]
    interface: NotRequired[object]
    verdict: Verdict | None
