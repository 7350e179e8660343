"""What the review page asks of a log, wherever it is: files (`Index`) or a server (`ClickHouseIndex`)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from tokgate.analytics.sql import Row
from tokgate.blocklog.read.reader import Junk, Line


@dataclass(frozen=True, slots=True)
class IndexState:
    """The progress of the index. `version` changes with its content; `waiting` counts files that are not read yet."""

    version: int
    files: int
    waiting: int
    damage: tuple[Junk, ...]


class Source(Protocol):
    """The table `lines` and the lines that it is made of. Every method blocks, and any thread may call it."""

    @property
    def found(self) -> bool:
        """Whether there is a log yet."""

    @property
    def state(self) -> IndexState:
        """The state after the last `catch_up`."""

    def catch_up(self, seconds: float) -> IndexState:
        """Read what is new, for about so many seconds. Raises OSError, LogError."""

    def ask(self, sql: str, parameters: Mapping[str, Any] | None = None) -> list[Row]:
        """Run tokgate's own SQL over `lines`. Raises LogError."""

    def line(self, event: str) -> Line | None:
        """The last line with that `event.id`. Raises OSError, LogError."""

    def prove(self, event: str) -> dict[str, Any]:
        """The proof of the record with that `event.id`. Raises NoProof, OSError, LogError."""

    def related(self, line: Line) -> list[Line]:
        """The other lines about its connection, or its repeats. Raises OSError, LogError."""

    def close(self) -> None:
        """Give everything back."""
