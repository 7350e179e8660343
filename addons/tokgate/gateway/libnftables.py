"""nftables' own library, libnftables (libnftables(3)), which also the program `nft` is made of.

Debian's `python3-nftables` is a wrapper of it like this one, but belongs to the system's Python; PyPI has none that is
kept. Each call has a context of its own, so that forks inherit nothing.
"""

import ctypes
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Final

from tokgate.gateway.errors import GatewayError

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


def ask(command: str) -> list[dict[str, Any]]:
    """The objects that a `list` command returns (libnftables-json(5)), without counters. Raises as `run`."""
    return _ask(command, _OUTPUT)


def _ask(command: str, output: int) -> list[dict[str, Any]]:
    with _context() as context:
        _library().nft_ctx_output_set_flags(context, output)
        answer = _run(context, command)
    found: list[dict[str, Any]] = json.loads(answer)["nftables"] if answer else []
    return [each for each in found if "metainfo" not in each]


def counters(table: str) -> list[dict[str, Any]]:
    """The named counters of a table of family inet, with their values. Raises as `run`; NftError without the table."""
    return _ask(f"list counters table inet {table}", _JSON)


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


def missing() -> str | None:
    """What is missing, and how to install it; None where all is there."""
    try:
        _library()
    except GatewayError as error:
        return str(error)
    return None


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
    library = _library()
    context = library.nft_ctx_new(0)
    if not context:
        raise GatewayError("libnftables has no memory")
    try:
        library.nft_ctx_buffer_output(context)
        library.nft_ctx_buffer_error(context)
        yield context
    finally:
        library.nft_ctx_free(context)


def _run(context: ctypes.c_void_p, commands: str) -> str:
    """The output of commands, if any."""
    library = _library()
    if library.nft_run_cmd_from_buffer(context, commands.encode()) != 0:
        said = library.nft_ctx_get_error_buffer(context) or b""
        raise NftError(said.decode(errors="replace").strip() or "nftables refuses, and says nothing")
    output: bytes = library.nft_ctx_get_output_buffer(context) or b""
    return output.decode()
