"""Devices of an inventory: what they are known by on a network, whose they are, and who paid for them."""

import re
from dataclasses import dataclass
from typing import Final

from tokgate.policy.origin import Origin
from tokgate.policy.prefixes import IPNetwork

_SEPARATORS: Final = str.maketrans("", "", ":-. ")
_HARDWARE: Final = re.compile(r"[0-9a-f]{12}\Z")


@dataclass(frozen=True, slots=True)
class Device:
    """One row of an inventory. `addresses` are host prefixes; `hardware` as `hardware_address` writes them."""

    name: str | None
    addresses: tuple[IPNetwork, ...]
    hardware: tuple[str, ...]
    owner: str | None
    paid_by: tuple[str, ...]
    origin: Origin | None = None

    def __str__(self) -> str:
        return self.name or (self.hardware or tuple(str(each.network_address) for each in self.addresses))[0]


def hardware_address(raw: str) -> str | None:
    """A hardware address (EUI-48) in any usual spelling as `00:53:00:aa:bb:cc`; None if it is none."""
    digits = raw.strip().translate(_SEPARATORS).lower()
    if not _HARDWARE.match(digits):
        return None
    return ":".join(digits[at : at + 2] for at in range(0, 12, 2))
