"""Sessions of signed-in users: random tokens in cookies, of which the server keeps SHA-256 digests, in memory."""

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

LIFETIME: Final = 12 * 3600.0
IDLE: Final = 2 * 3600.0
"""Seconds after which a session ends: since its begin, and since its last request."""
MAX_SESSIONS: Final = 1000


@dataclass(slots=True)
class Session:
    """A session's user, and when it began and was used last, in seconds of the clock."""

    user: str
    began: float
    seen: float


class Sessions:
    """Sessions by token, in memory. `clock` returns monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock: Final = clock
        self._sessions: Final[dict[bytes, Session]] = {}

    def begin(self, user: str) -> str:
        """Begin a session and return its token, the cookie's value. With MAX_SESSIONS the least recently used ends."""
        self._sweep()
        if len(self._sessions) >= MAX_SESSIONS:
            self._sessions.pop(min(self._sessions, key=lambda key: self._sessions[key].seen))
        token, now = secrets.token_urlsafe(), self._clock()
        self._sessions[_digest(token)] = Session(user, now, now)
        return token

    def user(self, token: str, *, awake: bool = True) -> str | None:
        """The user of a session that has not ended, else None. `awake` counts as use and delays IDLE."""
        self._sweep()
        session = self._sessions.get(_digest(token))
        if session is None:
            return None
        if awake:
            session.seen = self._clock()
        return session.user

    def end(self, token: str) -> None:
        """End the session of `token`, if there is one."""
        self._sessions.pop(_digest(token), None)

    def __len__(self) -> int:
        """The number of sessions that have not ended."""
        self._sweep()
        return len(self._sessions)

    def _sweep(self) -> None:
        now = self._clock()
        for key, session in list(self._sessions.items()):
            if now - session.began > LIFETIME or now - session.seen > IDLE:
                del self._sessions[key]


def _digest(token: str) -> bytes:
    """Tokens are looked up by digest, so that the time of a lookup discloses nothing about valid tokens."""
    return hashlib.sha256(token.encode()).digest()
