"""Stands in for `gateway_keeper.GatewayKeeper` where the kernel's part is not tokgate's to keep."""

import math
from typing import Any, Final


class NoGateway:
    """The same methods, without effect."""

    sockets: Final[list[Any]] = []

    def up(self) -> None:
        """Nothing is to be loaded."""

    def noticed(self) -> None:
        """Nothing is watched."""

    def take_over(self) -> None:
        """Nothing is to be loaded."""

    def let_go(self) -> None:
        """Nothing is open."""

    def due(self) -> float:
        return math.inf

    def look(self) -> None:
        """Nothing is compared."""

    def state(self) -> dict[str, Any] | None:
        return None

    def drain(self, *, restarts: bool = False) -> None:
        """Nothing is loaded."""

    def down(self) -> None:
        """Nothing is to be taken out."""
