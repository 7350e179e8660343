"""Bodies of requests, where they say what is asked for: of an app store, or of a server that takes them for requests.

A server that ignores the body of a GET goes on reading at its first octet. Only the beginning of a body matters: a
server that finds no request there answers 400 and closes.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from mitmproxy import http

from tokgate.policy import stores
from tokgate.policy.decide import Sighting
from tokgate.policy.decision import Signal
from tokgate.traffic.admission import Admission, admit
from tokgate.traffic.enforcer import Enforcer
from tokgate.traffic.seen import Request

BAD_REQUEST: Final = 400
BODILESS: Final = frozenset({"GET", "HEAD", "OPTIONS", "DELETE", "TRACE"})
"""Methods whose body has no meaning (RFC 9110 §9.3), so that some servers don't read it."""
_LINE: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}[ \t\v\f]+[^ \t\v\f\r\n]")
"""A method and the beginning of a target, whatever they are."""
_METHODS: Final = (b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"TRACE", b"PATCH", b"CONNECT", b"PROPFIND")
_KNOWN: Final = re.compile(b"(?:" + b"|".join(_METHODS) + rb")[ \t\v\f]+(?:[/*]|(?i:https?:)|[^ \t\v\f\r\n]+:[0-9])")
"""The beginning of a request that no text begins with."""
_PERHAPS: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{0,32})([ \t\v\f]+[^ \t\v\f\r\n]*)?")
"""What may yet become one of them: a method, and what has come of its target."""
_MOST_HELD: Final = 1024
_IGNORED: Final = b"\r\n\t \v\f\0"
"""What some server passes over before a request line."""


class BodyStart:
    """Watches a body that passes, until it is clear that it doesn't begin like a request."""

    def __init__(self, method: str) -> None:
        """Text may begin with any word; only where a body means nothing (RFC 9110 §9.3) is that suspicious."""
        self._any_word: Final = method.upper() in BODILESS
        self._held: bytearray | None = bytearray()

    def feed(self, data: bytes) -> bytes | None:
        """What can pass of it by now; None: it begins like a request. Empty `data` is the end."""
        if self._held is None:
            return data
        self._held += data
        begun = bytes(self._held.lstrip(_IGNORED))
        if (_LINE if self._any_word else _KNOWN).match(begun):
            return None
        if data and len(self._held) < _MOST_HELD and self._may_become_one(begun):
            return b""
        return self.release()

    def release(self) -> bytes:
        """Pass it all the same, and what follows."""
        passed, self._held = bytes(self._held or b""), None
        return passed

    def _may_become_one(self, begun: bytes) -> bool:
        perhaps = _PERHAPS.fullmatch(begun)
        if perhaps is None or self._any_word:
            return perhaps is not None
        return perhaps[1] in _METHODS if perhaps[2] else any(each.startswith(perhaps[1]) for each in _METHODS)


def watched(
    enforcer: Enforcer, method: str, admission: Admission, refused: Callable[[], None]
) -> Callable[[bytes], bytes]:
    """Passes a body on, piece by piece; calls `refused` if it begins like a request and the client is under a ban."""
    start, ended = BodyStart(method), False

    def watch(data: bytes) -> bytes:
        nonlocal ended
        passing = b"" if ended else start.feed(data)
        if passing is not None:
            return passing
        refusal = unclear(enforcer, admission)
        if not refusal.ruling.blocks:
            return start.release()
        ended = True
        refusal.record(enforcer, BAD_REQUEST)
        refused()
        return b""

    return watch


def begins_like_a_request(request: http.Request) -> bool:
    """Whether a body that has come whole begins like a request."""
    start = BodyStart(request.method)
    return start.feed(request.raw_content or b"") is None or start.feed(b"") is None


def unclear(enforcer: Enforcer, admission: Admission) -> Admission:
    """The decision about a request of which it turned out that servers may read something else."""
    seen = admission.seen
    return admit(enforcer, admission.arrival, replace(seen, ambiguous=True)) if isinstance(seen, Request) else admission


def unsaid(enforcer: Enforcer, admission: Admission) -> Admission | None:
    """The decision about a request to a store if its body can't be read; None: it isn't needed for a decision."""
    if admission.ruling.blocks or _store_asked(admission) is None:
        return None
    refused = unclear(enforcer, admission)
    return refused if refused.ruling.blocks else None


def with_body(enforcer: Enforcer, admission: Admission, body: bytes) -> Admission:
    """The decision about a request to a store whose body has come whole."""
    store, services, seen = _store_asked(admission), enforcer.snapshot.services, admission.seen
    if store is None or not isinstance(seen, Request):
        return admission
    asked = sorted(each for each in stores.identifiers_in_body(body) if services.lists(store, each))
    urls = (Sighting(Signal.URL, stores.page_of(store, each)) for each in asked)
    return admit(enforcer, admission.arrival, replace(seen, names=(*seen.names, *urls)))


def _store_asked(admission: Admission) -> str | None:
    """The store whose listings are asked for in the body of a request."""
    seen = admission.seen
    if not isinstance(seen, Request) or seen.http.method in BODILESS:
        return None
    urls = (name.value for name in seen.names if name.signal is Signal.URL)
    return next(filter(None, map(stores.asks_in_body, urls)), None)
