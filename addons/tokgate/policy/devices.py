"""Devices of an inventory: their addresses, their owners, and who paid for them."""

import re
from dataclasses import dataclass
from typing import Final

from tokgate.policy.values.prefix_table import IPNetwork
from tokgate.policy.values.source_position import Origin

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
    """An EUI-48 address in any usual notation as `00:53:00:aa:bb:cc`; None if it isn't one."""
    digits = raw.strip().translate(_SEPARATORS).lower()
    if not _HARDWARE.match(digits):
        return None
    return ":".join(digits[at : at + 2] for at in range(0, 12, 2))
