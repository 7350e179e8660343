"""The differences of two policies in what they state: every key that changes what somebody gets or reads."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from enum import StrEnum
from typing import Any, Final

from tokgate.policy.bans import ALL, Ban
from tokgate.policy.networks import Network
from tokgate.policy.services import Service
from tokgate.policy.settings import (
    EchKeys,
    EchOuter,
    EncryptedDns,
    MissingSni,
    OnError,
    Passage,
    Settings,
    UnknownClients,
)
from tokgate.policy.snapshot import Policy

MAX_WORDS: Final = 5
"""Most words of a change in its text; the rest is counted."""


@dataclass(frozen=True, slots=True)
class Redefinition:
    """What was added to and removed from a definition, as the policy states it; `kind` is the section in YAML.

    Bans and exemptions have one for each key that differs; networks, services and settings one for each name.
    """

    kind: str
    name: str
    added: tuple[str, ...]
    removed: tuple[str, ...]
    key: str | None = None


class ChangeKind(StrEnum):
    """Whether a name was added, removed or changed between two policies."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class DefinitionChange:
    """A name whose definition differs; `what` differs is given only if both policies define it.

    For bans and exemptions these are keys; for networks, services and settings added (`+`) and removed (`-`) values.
    """

    kind: str
    name: str
    how: ChangeKind
    what: tuple[str, ...] = ()

    @property
    def words(self) -> tuple[str, ...]:
        """What differs, up to MAX_WORDS; the rest is counted."""
        more = len(self.what) - MAX_WORDS
        return (*self.what[:MAX_WORDS], f"{more} more") if more > 0 else self.what

    def __str__(self) -> str:
        return f"{self.kind}.{self.name} {self.how}" + (f": {', '.join(self.words)}" if self.what else "")


def changes(old: Policy, new: Policy) -> Iterator[DefinitionChange]:
    """The definitions that differ, by section and name; positions in the files make no difference."""
    found: dict[tuple[str, str], list[Redefinition]] = {}
    for each in redefinitions(old, new):
        found.setdefault((each.kind, each.name), []).append(each)
    for (kind, name), parts in found.items():
        if kind != "settings" and name not in getattr(old, kind):
            yield DefinitionChange(kind, name, ChangeKind.ADDED)
        elif kind != "settings" and name not in getattr(new, kind):
            yield DefinitionChange(kind, name, ChangeKind.REMOVED)
        else:  # `end` stands for each way to state a ban's end
            keys = dict.fromkeys("end" if each.key in ("expires", "duration") else each.key for each in parts)
            sides = [side for each in parts for side in (("+", each.added), ("-", each.removed))]
            words = (f"{sign}{word}" for sign, side in sides for word in side)
            what = tuple(words) if None in keys else tuple(key for key in keys if key)
            yield DefinitionChange(kind, name, ChangeKind.CHANGED, what)


def redefinitions(old: Policy, new: Policy) -> Iterator[Redefinition]:
    """What was added to and removed from all definitions, also those that only one policy has."""
    yield from _restated("bans", old.bans, new.bans)
    yield from _restated("exemptions", old.exemptions, new.exemptions)
    yield from _redefined("networks", old.networks, new.networks, _network)
    yield from _redefined("services", old.services, new.services, _service)
    yield from _redefined("settings", _settings(old.settings), _settings(new.settings), frozenset)


def _restated(kind: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Redefinition]:
    """The keys of bans or exemptions that differ; of those that only one policy has, all that aren't the default."""
    for name in dict.fromkeys((*old, *new)):
        before, after = old.get(name), new.get(name)
        if before == after:
            continue
        entry: Any = before or after
        unstated = {_key(each.name): each.default for each in fields(entry) if each.name not in _UNSAID}
        defaults = {key: frozenset(() if value is MISSING else _values(value)) for key, value in unstated.items()}
        was, becomes = (defaults if each is None else _entry(each) for each in (before, after))
        for each in _redefined(kind, was, becomes, frozenset):
            added, removed = () if after is None else each.added, () if before is None else each.removed
            yield Redefinition(kind, name, added, removed, each.name)


def _redefined[T](
    kind: str, old: Mapping[str, T], new: Mapping[str, T], meaning: Callable[[T], frozenset[str]]
) -> Iterator[Redefinition]:
    for name in dict.fromkeys((*old, *new)):
        was, becomes = old.get(name), new.get(name)
        if was != becomes:
            before, after = (_NONE if each is None else meaning(each) for each in (was, becomes))
            if before != after:
                yield Redefinition(kind, name, tuple(sorted(after - before)), tuple(sorted(before - after)))


_NONE: Final[frozenset[str]] = frozenset()
_UNSAID: Final = ("name", "origin", "on_all")


def _entry(entry: Any) -> Mapping[str, frozenset[str]]:
    """What a ban or an exemption states, by its keys."""
    keys = (each.name for each in fields(entry) if each.name not in _UNSAID)
    said = {_key(key): frozenset(_values(getattr(entry, key))) for key in keys}
    return said | {"services": frozenset({ALL})} if isinstance(entry, Ban) and entry.on_all else said


def _key(name: str) -> str:
    """As it stands in YAML: `except` is no name in Python."""
    return "except" if name == "excepted" else name


def _values(value: Any) -> Iterable[str]:
    return map(_written, value if isinstance(value, tuple) else () if value is None else (value,))


def _written(value: Any) -> str:
    """A value in the words of YAML."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _network(network: Network) -> frozenset[str]:
    """Its statements; a device by its addresses, since these are what a client shows."""
    said = {f"timezone:{network.timezone}", *map(str, network.cidrs)}
    if network.title is not None:
        said.add(f"title:{network.title}")
    if network.language is not None:
        said.add(f"language:{network.language}")
    for kind, names in (("user", network.users), ("group", network.groups), ("interface", network.interfaces)):
        said |= {f"{kind}:{name}" for name in names}
    said |= {f"network:{name}" for name in network.networks}
    said |= {f"except:{each}" for each in (*network.except_cidrs, *network.except_networks)}
    devices = (known for d in network.devices for known in (*map(str, d.addresses), *d.hardware))
    return frozenset(said | {f"device:{known}" for known in devices})


def _service(service: Service) -> frozenset[str]:
    """Its title and description, where it was imported from, and its rules, as in `Decision.rule`."""
    said = {f"title:{service.title}", *(f"{pattern.kind}:{pattern.value}" for pattern in service.patterns)}
    if service.description is not None:
        said.add(f"description:{service.description}")
    source = service.source
    imported = {} if source is None else {each.name: getattr(source, each.name) for each in fields(source)}
    for key, value in imported.items():
        if value:
            said.add(f"source.{key}:{' '.join(value) if isinstance(value, tuple) else _written(value)}")
    said |= {f"address:{prefix}" for prefix in service.addresses}
    return frozenset(said | {f"store:{each.store}/{each.identifier}" for each in service.stores})


def _settings(settings: Any, above: str = "") -> dict[str, frozenset[str]]:
    """Keys as they stand in YAML, with a dot for each level."""
    found: dict[str, frozenset[str]] = {}
    for each in fields(settings):
        value = getattr(settings, each.name)
        if is_dataclass(value) and each.compare:
            found |= _settings(value, f"{above}{each.name}.")
        elif each.compare:
            found[f"{above}{each.name}"] = frozenset(_values(value))
    if isinstance(settings, Settings) and len(settings.upstream) > 1:  # the first that is for a destination reaches it
        found["upstream"] = frozenset(f"{place}. {parent}" for place, parent in enumerate(settings.upstream, 1))
    return found


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


def weaker_settings(changed: Iterable[DefinitionChange]) -> Iterator[str]:
    """Those of the changes by which less is enforced, in words: `missing_sni: block -> allow`."""
    for change in changed:
        if change.kind == "settings":
            added, removed = ([word[1:] for word in change.what if word.startswith(sign)] for sign in "+-")
            order = [*map(str, _FROM_LAX.get(change.name, ()))]
            if order and order.index(added[0]) < order.index(removed[0]):
                yield f"{change.name}: {removed[0]} -> {added[0]}"
            elif change.name in _EACH_FILTERS and removed:
                yield f"{change.name}: without {', '.join(removed)}"
            elif change.name == "egress.own_ports" and added:
                yield f"{change.name}: with {', '.join(added)}"
