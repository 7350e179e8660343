"""Who is signed in: random tokens in cookies, of which only digests are kept, in memory."""

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

LIFETIME: Final = 12 * 3600.0
IDLE: Final = 2 * 3600.0
"""Seconds after which a session ends, and after which without a request."""
MAX_SESSIONS: Final = 1000


@dataclass(slots=True)
class Session:
    """Somebody who is signed in."""

    user: str
    began: float
    seen: float


class Sessions:
    """Sessions by token; `clock` counts seconds and never goes back."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """There are none at first."""
        self._clock: Final = clock
        self._sessions: Final[dict[bytes, Session]] = {}

    def begin(self, user: str) -> str:
        """A new session; returns the token that the cookie holds."""
        self._sweep()
        if len(self._sessions) >= MAX_SESSIONS:
            self._sessions.pop(min(self._sessions, key=lambda key: self._sessions[key].seen))
        token, now = secrets.token_urlsafe(32), self._clock()
        self._sessions[_digest(token)] = Session(user, now, now)
        return token

    def user(self, token: str, *, awake: bool = True) -> str | None:
        """Whose session this is, if it is one that goes on; not `awake`: it goes on no longer for being asked."""
        self._sweep()
        session = self._sessions.get(_digest(token))
        if session is None:
            return None
        if awake:
            session.seen = self._clock()
        return session.user

    def end(self, token: str) -> None:
        """Sign out."""
        self._sessions.pop(_digest(token), None)

    def __len__(self) -> int:
        """How many there are."""
        self._sweep()
        return len(self._sessions)

    def _sweep(self) -> None:
        now = self._clock()
        for key, session in list(self._sessions.items()):
            if now - session.began > LIFETIME or now - session.seen > IDLE:
                del self._sessions[key]


def _digest(token: str) -> bytes:
    """Looking up a digest tells nothing by its time about the tokens that there are."""
    return hashlib.sha256(token.encode()).digest()
