"""Reads what came back for an HTTP request: a page, a refusal, or bytes that are no HTTP."""

import re
from collections.abc import Callable
from typing import Final

from tokgate.evasion.stream import Result, ServerReply, broken

_STATUS: Final = re.compile(rb"\AHTTP/[0-9.]+ ([0-9]{3})")
_REFUSALS: Final = frozenset(
    {400, 403, 405, 407, 408, 411, 413, 414, 417, 421, 426, 431, 451, 500, 501, 502, 503, 504, 505}
)
"""Statuses that serve nobody: from tokgate, or from a server that does not take the request."""
_MOST: Final = 1 << 20


def read_page(receive: Callable[[], bytes], wanted: int = 1) -> ServerReply:
    """Read to the end of the stream, or until nothing more comes. `wanted`: which of the pages is the one."""
    said, error = bytearray(), None
    try:
        while len(said) < _MOST and (piece := receive()):
            said += piece
    except OSError as raised:
        error = raised
    if not said:
        return ServerReply(Result.CLOSED) if error is None else broken(error)
    return judge(bytes(said), wanted)


def judge(said: bytes, wanted: int = 1) -> ServerReply:
    """What an answer is. Served is who gets as many pages as `wanted`."""
    if said.startswith(b"\x15\x03"):
        return ServerReply(Result.REFUSED, "a TLS alert", said)
    statuses = [int(found) for found in re.findall(rb"HTTP/[0-9.]+ ([0-9]{3})", said)]
    if not _STATUS.match(said):
        return ServerReply(Result.SERVED, f"answered {said[:24]!r}", said)
    taken = [status for status in statuses if status not in _REFUSALS and status >= 200]
    if len(taken) >= wanted:
        return ServerReply(Result.SERVED, f"status {taken[wanted - 1]}", said)
    return ServerReply(Result.REFUSED, f"status {statuses[-1]}", said)
