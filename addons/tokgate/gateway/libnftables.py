"""nftables' own library, libnftables (libnftables(3)), of which `nft` is made, too; and tables, as it lists them.

Debian's `python3-nftables` is a wrapper of it like this one, but belongs to the system's Python; PyPI has none that is
kept. Each call has a context of its own, so that forks inherit nothing.
"""

import ctypes
import json
import signal
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from tokgate.gateway import GatewayError
from tokgate.gateway.nftables import OWNER

LIBRARY: Final = "libnftables.so.1"
_JSON: Final = 1 << 4  # nftables/libnftables.h, as the next ones
_STATELESS: Final = 1 << 2
_HANDLES: Final = 1 << 3
_NUMERIC: Final = 1 << 7 | 1 << 8 | 1 << 9 | 1 << 10
_OUTPUT: Final = _JSON | _STATELESS | _NUMERIC
"""JSON without counters, and numbers instead of names that this machine may not have."""


class NftError(GatewayError):
    """libnftables, or the kernel, refused a command; the text is its message."""


def run(commands: str, *, dry: bool = False) -> None:
    """Run commands as one transaction: all of them or none. `dry`: have the kernel check them, and change nothing.

    Raises:
        NftError: the kernel or the library refuses; the text is nftables' own.
        GatewayError: there is no libnftables.
    """
    with _context() as context:
        _library().nft_ctx_set_dry_run(context, dry)
        _run(context, commands)


def ask(command: str, output: int = _OUTPUT) -> list[dict[str, Any]]:
    """The objects that a `list` command returns (libnftables-json(5)), by default without counters. Raises as `run`."""
    with _context() as context:
        _library().nft_ctx_output_set_flags(context, output)
        return _objects(_run(context, command))


def listed_once(table: str, body: str) -> list[dict[str, Any]]:
    """The objects, as `ask` returns them, of a table that is made asleep, listed, and gone with the call.

    It belongs to the call's socket (nft(8), `flags owner`; Linux 5.12), so the kernel removes it also where this
    process is killed. `body` is what follows the table's opening brace. Raises as `run`.
    """
    with _context() as context:
        _library().nft_ctx_output_set_flags(context, _OUTPUT)
        _run(context, f"{table} {{\n\tflags dormant, owner\n{body}")
        return _objects(_run(context, f"list {table}"))


def _objects(answer: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(answer)["nftables"] if answer else []
    return [each for each in found if "metainfo" not in each]


def counters(table: str) -> list[dict[str, Any]]:
    """The named counters of a table of family inet, with their values. Raises as `run`; NftError without the table."""
    return ask(f"list counters table inet {table}", _JSON)


def rules_as_text(chain: str) -> dict[int, str]:
    """The rules of a chain (`family table name`) by handle; of iptables' conditions JSON has no more than names."""
    with _context() as context:
        _library().nft_ctx_output_set_flags(context, _STATELESS | _HANDLES)
        listed = _run(context, f"list chain {chain}")
    parted = [line.strip().rpartition(" # handle ") for line in listed.splitlines()]
    return {int(handle): text for text, _, handle in parted if text and not text.endswith("{")}


def tables() -> list[str]:
    """The names of the tables of family inet. Raises as `run`."""
    return [each["table"]["name"] for each in ask("list tables inet")]


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise GatewayError(
            f"{LIBRARY} is missing: install nftables (Debian, Ubuntu: apt install libnftables1; "
            "Fedora: dnf install nftables-libs; Alpine: apk add nftables)"
        ) from error
    library.nft_ctx_new.restype = ctypes.c_void_p
    for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
        getattr(library, name).restype = ctypes.c_char_p
    for name in (
        *("nft_ctx_free", "nft_ctx_buffer_output", "nft_ctx_buffer_error"),
        *("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"),
    ):
        getattr(library, name).argtypes = [ctypes.c_void_p]
    library.nft_ctx_set_dry_run.argtypes = [ctypes.c_void_p, ctypes.c_bool]
    library.nft_ctx_output_set_flags.argtypes = [ctypes.c_void_p, ctypes.c_uint]
    library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    return library


@contextmanager
def _context() -> Iterator[ctypes.c_void_p]:
    """A context in which signals wait: one that came would end a call with EINTR after the kernel has obeyed."""
    library = _library()
    context = library.nft_ctx_new(0)
    if not context:
        raise GatewayError("libnftables has no memory")
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        library.nft_ctx_buffer_output(context)
        library.nft_ctx_buffer_error(context)
        yield context
    finally:
        library.nft_ctx_free(context)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _run(context: ctypes.c_void_p, commands: str) -> str:
    """The output of commands, if any."""
    library = _library()
    if library.nft_run_cmd_from_buffer(context, commands.encode()) != 0:
        said = library.nft_ctx_get_error_buffer(context) or b""
        raise NftError(said.decode(errors="replace").strip() or "nftables refuses, and says nothing")
    output: bytes = library.nft_ctx_get_output_buffer(context) or b""
    return output.decode()


# -- tables


@dataclass(frozen=True, slots=True)
class TableState:
    """Chains with their hooks, rules in order, sets with their elements; all as text, without names of the table."""

    chains: Mapping[str, str] = field(default_factory=dict)
    rules: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    sets: Mapping[str, str] = field(default_factory=dict)
    """The declarations."""
    elements: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Of sets that only tokgate changes. Sets with a timeout, to which traffic adds, are left out."""
    maps: frozenset[str] = frozenset()
    """Which of the sets are maps."""
    ours: bool = False
    """Whether tokgate made it."""
    dormant: bool = False
    """Whether its rules are asleep: nft(8), `flags dormant`."""


def table_state(listing: Iterable[Mapping[str, Any]]) -> TableState:
    """The state in what `list table` returns."""
    chains: dict[str, str] = {}
    rules: dict[str, list[str]] = {}
    sets: dict[str, str] = {}
    elements: dict[str, frozenset[str]] = {}
    maps: set[str] = set()
    dormant = False
    for each in listing:
        ((kind, stated),) = each.items()
        if kind == "table":
            dormant = "dormant" in stated.get("flags", ())
        elif kind == "chain":
            chains[stated["name"]] = _text(stated, "type", "hook", "prio", "policy")
        elif kind == "rule":
            rules.setdefault(stated["chain"], []).append(_text(stated, "expr", "comment"))
        elif kind in ("set", "map"):
            sets[stated["name"]] = _text(stated, "type", "map", "flags", "auto-merge", "timeout", "size")
            if "timeout" not in stated.get("flags", ()):
                elements[stated["name"]] = frozenset(json.dumps(each) for each in stated.get("elem", ()))
            if kind == "map":
                maps.add(stated["name"])
    in_order = {chain: tuple(held) for chain, held in rules.items()}
    return TableState(chains, in_order, sets, elements, frozenset(maps), OWNER in chains, dormant)


def _text(stated: Mapping[str, Any], *keys: str) -> str:
    return json.dumps({key: stated[key] for key in keys if key in stated}, sort_keys=True)


def differences(wanted: TableState, loaded: TableState) -> Iterator[str]:
    """How a table differs from the one that should be there, in sentences; `wanted` may be asleep, as it is tried."""
    if loaded.dormant:
        yield "the table is asleep (flags dormant): none of its rules acts"
    for what, should, has in (("chain", wanted.chains, loaded.chains), ("set", wanted.sets, loaded.sets)):
        for name in sorted(should.keys() | has.keys()):
            if name not in has:
                yield f"{what} {name} is missing"
            elif name not in should:
                yield f"{what} {name} is not tokgate's"
            elif should[name] != has[name]:
                yield f"{what} {name} is declared differently"
    for name in sorted(wanted.chains.keys() & loaded.chains.keys()):
        yield from _rules(name, wanted.rules.get(name, ()), loaded.rules.get(name, ()))
    for name in sorted(wanted.elements.keys() & loaded.elements.keys()):
        lacks = len(wanted.elements[name] - loaded.elements[name])
        extra = len(loaded.elements[name] - wanted.elements[name])
        if lacks or extra:
            yield f"set {name} lacks {lacks} elements and has {extra} that it should not"


def _rules(chain: str, wanted: tuple[str, ...], loaded: tuple[str, ...]) -> Iterator[str]:
    lacks, extra = len(set(wanted) - set(loaded)), len(set(loaded) - set(wanted))
    if lacks or extra:
        yield f"chain {chain} lacks {lacks} rules and has {extra} that it should not"
    elif wanted != loaded:
        yield f"the rules of chain {chain} are in another order, or repeated"


def changing(table: str, wanted: str, loaded: TableState) -> tuple[str, str, str]:
    """The transactions that turn a loaded table of tokgate's, or one that isn't there, into one whose text is `wanted`.

    Sets to which traffic adds keep their elements. Sets come before the rules that ask them, and go after these: Linux
    has a set that is made or deleted with its rules empty for up to some milliseconds in which they act.
    """
    words = (line.split() for line in wanted.splitlines())
    declared = {each[1] for each in words if each[:1] + each[2:] in (["chain", "{"], ["set", "{"], ["map", "{"])}
    lines = [f"flush table inet {table}"]  # all rules, so that nothing refers to what goes
    lines += [f"delete chain inet {table} {name}" for name in loaded.chains if name not in declared]
    gone = []
    for name in loaded.sets:
        kind = "map" if name in loaded.maps else "set"
        if name not in declared:
            gone.append(f"delete {kind} inet {table} {name}")
        elif name in loaded.elements:
            lines.append(f"flush {kind} inet {table} {name}")
    first = (f"table inet {table} {{", *_new_sets(wanted, loaded), "}")
    return "\n".join(first), "\n".join((*lines, wanted)), "\n".join(gone)


def _new_sets(wanted: str, loaded: TableState) -> Iterator[str]:
    """The lines of sets that are not loaded; where there is no table, also of the chain that says whose it is."""
    inside = False
    for line in wanted.splitlines():
        match line.split():
            case ["set", name, "{"]:
                inside = name not in loaded.sets
            case ["chain", name, "{"]:
                inside = name == OWNER and name not in loaded.chains
        if inside:
            yield line
        inside &= line != "\t}"
