"""The texts for refused clients where there is no page: in DNS, in QUIC, and in a gate's answer to CONNECT."""

from http import HTTPStatus
from typing import Final

from tokgate.blocklog.records.record import Stamp, by_whom
from tokgate.policy.bans import Ban
from tokgate.policy.decision import Reason
from tokgate.traffic.enforcer import Ruling


def _answer(status: HTTPStatus, words: str, fields: str = "") -> bytes:
    """A whole response, after which the connection ends."""
    body = f"tokgate: {words}\n".encode()
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: text/plain; charset=utf-8\r\n{fields}"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode("latin-1", "replace") + body


def pac_answer(file: str) -> bytes:
    """The PAC file as a response, after which the connection ends; browsers ask again after five minutes."""
    head = (
        "HTTP/1.1 200 OK\r\nContent-Type: application/x-ns-proxy-autoconfig\r\nCache-Control: max-age=300\r\n"
        f"Content-Length: {len(file.encode())}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + file.encode()


ESTABLISHED: Final = b"HTTP/1.1 200 Connection established\r\n\r\n"
BAD_REQUEST: Final = _answer(HTTPStatus.BAD_REQUEST, "this is no request that a proxy can carry out.")
INSIDE_WORDS: Final = "what only the proxy's own machine can reach is closed to others."
INSIDE: Final = _answer(HTTPStatus.FORBIDDEN, INSIDE_WORDS)
LEADS_BACK: Final = _answer(HTTPStatus.FORBIDDEN, "this would lead back to the proxy itself.")
UNREACHABLE: Final = _answer(HTTPStatus.BAD_GATEWAY, "the destination has no address, or does not answer.")
UNAVAILABLE: Final = _answer(
    HTTPStatus.SERVICE_UNAVAILABLE, "this can't be done now: try again.", "Retry-After: 10\r\n"
)

SIGN_IN_WORDS: Final = "the proxy has to know who asks: name and password are missing or wrong."
CHALLENGE: Final = 'Basic realm="tokgate", charset="UTF-8"'
"""The value of `Proxy-Authenticate` (RFC 7617 §2)."""
SIGN_IN: Final = _answer(
    HTTPStatus.PROXY_AUTHENTICATION_REQUIRED, SIGN_IN_WORDS, f"Proxy-Authenticate: {CHALLENGE}\r\n"
)


def refusal(ruling: Ruling, host: str, stamp: Stamp) -> bytes:
    """A refusal in short, for when no opener can write the page: why, and the record's id."""
    ban = ruling.ban
    fields, words = f"Cache-Control: no-store\r\nTokgate-Event: {stamp.id}\r\n", f"{host} is blocked"
    if ban is not None:
        fields += f"Tokgate-Ban: {ban.name}\r\n"
        words += f": {', '.join(filter(None, (ban.title, ban.authority, ban.basis, ban.contact)))}"
    return _answer(status_of(ban, ruling.decision.reason, warns=False), words, fields)


def status_of(ban: Ban | None, reason: Reason, *, warns: bool) -> HTTPStatus:
    """451 for a refusal with a legal mandate (RFC 7725); 400 for what can't be read; 403 for all others, and warnings.

    A warning is no 451, since the user may continue. It is no success either: prefetches, downloads and service
    workers must not store it as the requested resource.
    """
    if ban is None and reason in (Reason.UNREADABLE, Reason.INVALID_HOST):
        return HTTPStatus.BAD_REQUEST
    mandated = ban is not None and (ban.authority is not None or ban.basis is not None)
    return HTTPStatus.UNAVAILABLE_FOR_LEGAL_REASONS if mandated and not warns else HTTPStatus.FORBIDDEN


def explanation(ruling: Ruling) -> str:
    """One sentence: by which ban, by whom, and whom to ask."""
    ban = ruling.ban
    if ruling.decision.is_unreadable:
        return "Refused under no ban: it can't be read where this leads"
    if ban is None:
        return "Refused by the policy of this network"
    return by_whom(ban) + (f"; contact: {ban.contact}" if ban.contact else "")
