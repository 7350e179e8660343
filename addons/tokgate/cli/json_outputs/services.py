"""What `tokgate service` prints in JSON."""

from typing import TypedDict

from tokgate.config.service_lists.entries import ListFormat


class ServiceListed(TypedDict):
    """A service: how many names, addresses and listings it has, the bans that name it, and where it is defined."""

    name: str
    title: str
    names: int
    addresses: int
    store: int
    bans: list[str]
    catalogue: bool
    origin: str


class ServiceList(TypedDict):
    """`tokgate service list --json`."""

    services: list[ServiceListed]


class SourceOutput(TypedDict):
    """The list from which the names were imported; the keys are those of `source` in YAML."""

    list: str
    format: ListFormat
    part: str | None
    revision: str | None
    licence: str | None
    date: str | None
    attributes: "list[str]"
    subdomains: bool
    keywords: bool


class ServicePatterns(TypedDict):
    """Name patterns by kind."""

    exact: list[str]
    suffix: list[str]
    regex: list[str]
    label: list[str]


class ServiceContent(TypedDict):
    """What belongs to the service; listings by store."""

    names: ServicePatterns
    addresses: list[str]
    store: dict[str, list[str]]


class ServiceShown(TypedDict):
    """`tokgate service show --json`."""

    name: str
    title: str
    bans: list[str]
    catalogue: bool
    origin: str
    source: SourceOutput | None
    content: ServiceContent


class NameTested(TypedDict):
    """A name: whether it belongs to the service and by which rule; other services by name, with their rules."""

    host: str
    belongs: bool
    rule: str | None
    others: dict[str, str]
    problem: str | None


class ServiceTested(TypedDict):
    """`tokgate service test --json`."""

    service: str
    results: list[NameTested]


class LineLeft(TypedDict):
    """A line of a list that was not taken, and why; lines count from 1."""

    file: str
    line: int
    text: str
    reason: str


class NamesCounted(TypedDict):
    """How many patterns of each kind there are."""

    suffix: int
    exact: int
    regex: int
    address: int


class NamesListed(TypedDict):
    """Patterns by kind."""

    suffix: list[str]
    exact: list[str]
    regex: list[str]
    address: list[str]


class ServiceImported(TypedDict):
    """`tokgate service import --json`. `file` is null, and `yaml` the file's text, where it was printed only."""

    service: str
    file: str | None
    yaml: str | None
    format: ListFormat
    names: NamesCounted
    repeated: int
    dropped: list[LineLeft]
    unreadable: list[LineLeft]


class ServiceUpdated(TypedDict):
    """`tokgate service update --json`."""

    service: str
    format: ListFormat
    revision: str
    added: NamesListed
    removed: NamesListed
    written: bool
    dropped: list[LineLeft]
    unreadable: list[LineLeft]
