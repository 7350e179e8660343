"""The channels between the supervisor and its children. Each is made once: whoever starts again inherits it."""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Self

from tokgate.blocklog.write import channel
from tokgate.gate import handoff


@dataclass(frozen=True, slots=True)
class Channels:
    """Both ends of all channels; `…_in` is to write or to ask, `…_out` to read or to answer."""

    records_in: socket.socket
    records_out: socket.socket
    reports_in: socket.socket
    reports_out: socket.socket
    vitals_in: socket.socket
    vitals_out: socket.socket
    openers_in: socket.socket
    openers_out: socket.socket
    transfers_in: socket.socket
    """Where a retired gate hands connections over, to `transfers_out` in new gates."""
    transfers_out: socket.socket
    lifeline_in: int
    """A pipe that ends with the supervisor; nothing is ever written."""
    lifeline_out: int

    @classmethod
    def made(cls) -> Self:
        lifeline_out, lifeline_in = os.pipe2(os.O_CLOEXEC)
        return cls(
            *channel.channel(),
            *socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET),
            *socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET),
            *handoff.channel(),
            *handoff.channel(),
            lifeline_in,
            lifeline_out,
        )

    @classmethod
    def inherited(cls, descriptors: Mapping[str, int]) -> Self:
        """The channels from the numbers that `descriptors` gave. Raises KeyError if one is missing."""
        numbers = {each.name: descriptors[each.name] for each in fields(cls)}
        return cls(**{name: n if "lifeline" in name else socket.socket(fileno=n) for name, n in numbers.items()})  # type: ignore[arg-type]

    def descriptors(self) -> dict[str, int]:
        """The descriptor of each end by its name, for `inherited`."""
        ends = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: end if isinstance(end, int) else end.fileno() for name, end in ends.items()}
