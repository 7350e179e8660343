"""What commands that change or examine an installation print in JSON: restart, doctor, gateway."""

from typing import NotRequired, TypedDict

from tokgate.cli.json_outputs.running import GatewayDifferences


class Restarted(TypedDict):
    """`tokgate restart --json`. Either `problems` says why all stays as it is, or the other keys say what serves now.

    `moves`: open connections went to the new program.
    """

    ok: bool
    problems: NotRequired[str]
    before: NotRequired[str]
    version: NotRequired[str]
    moves: NotRequired[bool]


class ExaminedPart(TypedDict):
    """What was looked at, and what was seen; `remedy` is null where all is well."""

    subject: str
    said: str
    remedy: str | None
    ok: bool


class Examined(TypedDict):
    """`tokgate doctor --json`."""

    ok: bool
    results: list[ExaminedPart]


class GatewayLoaded(TypedDict):
    """`tokgate gateway up --json`. With `problems` nothing was changed, and the keys after it are absent.

    `changed` has settings of the kernel with the values that they had; `until`: when another table is due.
    """

    ok: bool
    problems: list[str]
    policy: NotRequired[str]
    changed: NotRequired[dict[str, str]]
    until: NotRequired[str | None]


class GatewayRemoved(TypedDict):
    """`tokgate gateway down --json`. `restored` has settings of the kernel with the values that they have again."""

    ok: bool
    restored: dict[str, str]


class SetSizes(TypedDict):
    """The elements of a set: how many there should be, and how many there are; null without the set."""

    wanted: int
    loaded: int | None


class GatewayCompared(TypedDict):
    """`tokgate gateway show --json` and `check --json`: the kernel beside what should be loaded."""

    ok: bool
    policy: str
    until: str | None
    differences: GatewayDifferences
    sets: dict[str, SetSizes]
