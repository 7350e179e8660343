"""What a gate itself answers to CONNECT, in HTTP/1.1 (RFC 9110 §9.3.6). All other answers are an opener's."""

from http import HTTPStatus
from typing import Final

from tokgate.blocklog.stamp import Stamp
from tokgate.gate.enforcer import Ruling


def _answer(status: HTTPStatus, words: str = "", fields: str = "") -> bytes:
    """A whole response, after which the connection ends."""
    body = f"tokgate: {words}\n".encode() if words else b""
    kind = "Content-Type: text/plain; charset=utf-8\r\n" if words else ""
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\n{kind}{fields}Content-Length: {len(body)}\r\nConnection: close\r\n"
    )
    return head.encode("latin-1", "replace") + b"\r\n" + body


ESTABLISHED: Final = b"HTTP/1.1 200 Connection established\r\n\r\n"
BAD_REQUEST: Final = _answer(HTTPStatus.BAD_REQUEST)
INSIDE_WORDS: Final = "what only the proxy's own machine can reach is closed to others."
INSIDE: Final = _answer(HTTPStatus.FORBIDDEN, INSIDE_WORDS)
LEADS_BACK: Final = _answer(HTTPStatus.FORBIDDEN, "this would lead back to the proxy itself.")
UNREACHABLE: Final = _answer(HTTPStatus.BAD_GATEWAY)
UNAVAILABLE: Final = _answer(HTTPStatus.SERVICE_UNAVAILABLE, fields="Retry-After: 10\r\n")


def refusal(ruling: Ruling, host: str, stamp: Stamp) -> bytes:
    """A refusal in short, for when no opener can write the page: why, and the record's id."""
    ban = ruling.snapshot.bans.get(ruling.decision.ban or "")
    fields, words = f"Cache-Control: no-store\r\nTokgate-Event: {stamp.id}\r\n", f"{host} is blocked"
    if ban is not None:
        fields += f"Tokgate-Ban: {ban.name}\r\n"
        words += f": {', '.join(filter(None, (ban.title, ban.authority, ban.basis, ban.contact)))}"
    return _answer(HTTPStatus.FORBIDDEN, words, fields)
