"""Settings by which a new policy enforces less than the one before, so that a file emptied by mistake is noticed.

Bans are held (`held_bans`); settings take effect, and are told.
"""

from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Final

from tokgate.policy.analysis.definitions import DefinitionChange, Redefinition
from tokgate.policy.settings import EchKeys, EchOuter, EncryptedDns, MissingSni, OnError, Passage, UnknownClients

_FROM_LAX: Final[Mapping[str, tuple[StrEnum, ...]]] = {
    "unknown_clients": (UnknownClients.ALLOW, UnknownClients.BLOCK),
    "on_error": (OnError.ALLOW, OnError.BLOCK),
    "missing_sni": (MissingSni.ALLOW, MissingSni.CHECK_ADDRESS, MissingSni.CHECK_CERTIFICATE, MissingSni.BLOCK),
    "ech_outer": (EchOuter.ALLOW, EchOuter.INSPECT, EchOuter.BLOCK),
    "encrypted_dns": (EncryptedDns.ALLOW, EncryptedDns.DISCOURAGE),
    "dns.ech_keys": (EchKeys.ALLOW, EchKeys.WITHHOLD),
    "gateway.on_stop": (Passage.OPEN, Passage.CLOSED),
    "gateway.on_crash": (Passage.OPEN, Passage.CLOSED),
}
"""The values of settings, from the one that lets most pass to the strictest."""
_EACH_FILTERS: Final = ("gateway.ports", "nat64_prefixes")
"""Settings of which each value has more filtered."""


def weaker_settings(changes: Iterable[DefinitionChange | Redefinition]) -> tuple[str, ...]:
    """Those of the changes by which less is enforced, in words: `missing_sni: block -> allow`."""
    return tuple(each for change in changes if change.kind == "settings" for each in _weaker(change))


def _weaker(change: DefinitionChange | Redefinition) -> Iterator[str]:
    if isinstance(change, Redefinition):
        added, removed = change.added, change.removed
    else:
        added, removed = (tuple(w[1:] for w in change.what if w.startswith(sign)) for sign in "+-")
    order = [*map(str, _FROM_LAX.get(change.name, ()))]
    if order and order.index(added[0]) < order.index(removed[0]):
        yield f"{change.name}: {removed[0]} -> {added[0]}"
    elif change.name in _EACH_FILTERS and removed:
        yield f"{change.name}: without {', '.join(removed)}"
