"""The ways in: a one-time link, a password, or a proxy that has signed somebody in."""

import secrets
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Final, Protocol

from tokgate.review.web.htpasswd import Htpasswd
from tokgate.review.web.sessions import Sessions

MAX_FAILURES: Final = 10
MAX_FAILURES_OF_ADDRESS: Final = 100
FAILURE_SECONDS: Final = 300.0
"""Wrong passwords that one address may give in that time: for one user, and in all. A proxy is one address."""
_MAX_REMEMBERED: Final = 10_000


type Headers = Mapping[str, Sequence[str]]
"""Values by name, in lower case; one that stands twice has two."""


class Door(Protocol):
    """Says who looks."""

    @property
    def has_sessions(self) -> bool:
        """Whether somebody can sign out."""

    def viewer(self, peer: str, headers: Headers, token: str | None) -> str | None:
        """Who sent a request, or None for somebody who may not look."""

    def still(self, token: str | None) -> bool:
        """Whether whoever began to follow the log may go on."""


class LinkDoor:
    """One person at this machine: a link opens once. When that session has ended there is a new one."""

    has_sessions: Final = True

    def __init__(self, sessions: Sessions, user: str, tell: Callable[[str], None]) -> None:
        """`tell` is given the token of each new link."""
        self._sessions: Final = sessions
        self.user: Final = user
        self._tell: Final = tell
        self._token = ""
        self.renew()

    def viewer(self, peer: str, headers: Headers, token: str | None) -> str | None:
        """Whoever opened the link."""
        return None if token is None else self._sessions.user(token)

    def still(self, token: str | None) -> bool:
        """Until the session ends."""
        return token is not None and self._sessions.user(token, awake=False) is not None

    def open(self, token: str) -> str | None:
        """A session for the link's token, which is worth nothing after that."""
        expected = self._token
        if not expected or not secrets.compare_digest(token.encode(), expected.encode()):
            return None
        self._token = ""
        return self._sessions.begin(self.user)

    def leave(self, token: str) -> None:
        """Sign out."""
        self._sessions.end(token)
        self.renew()

    def renew(self) -> None:
        """Give out a new link if nobody is signed in and none is waiting."""
        if not self._token and not len(self._sessions):
            self._token = secrets.token_urlsafe(32)
            self._tell(self._token)


class PasswordDoor:
    """Users with passwords."""

    has_sessions: Final = True

    def __init__(self, sessions: Sessions, users: Htpasswd, clock: Callable[[], float]) -> None:
        """`clock` counts seconds."""
        self._sessions: Final = sessions
        self._users: Final = users
        self._clock: Final = clock
        self._failures: Final[OrderedDict[tuple[str, ...], list[float]]] = OrderedDict()

    def viewer(self, peer: str, headers: Headers, token: str | None) -> str | None:
        """Whoever signed in, and is still a user."""
        user = None if token is None else self._sessions.user(token)
        return user if user is not None and self._users.has(user) else None

    def still(self, token: str | None) -> bool:
        """Until the session ends, or the user is taken out of the file."""
        user = None if token is None else self._sessions.user(token, awake=False)
        return user is not None and self._users.has(user)

    def leave(self, token: str) -> None:
        """Sign out."""
        self._sessions.end(token)

    def must_wait(self, peer: str, user: str) -> bool:
        """Whether too many wrong passwords came from an address, for this user or for any."""
        return self._recent(peer, user) >= MAX_FAILURES or self._recent(peer) >= MAX_FAILURES_OF_ADDRESS

    def knows(self, user: str) -> bool:
        """Whether there is such a user."""
        return self._users.has(user)

    def sign_in(self, peer: str, user: str, password: str) -> str | None:
        """A session; None if the password is wrong. Takes a while: bcrypt."""
        if self._users.knows(user, password):
            self._failures.pop((peer, user), None)
            return self._sessions.begin(user)
        for key in ((peer, user), (peer,)):
            self._failures.setdefault(key, []).append(self._clock())
            self._failures.move_to_end(key)
        while len(self._failures) > _MAX_REMEMBERED:
            self._failures.popitem(last=False)
        return None

    def _recent(self, *key: str) -> int:
        since = self._clock() - FAILURE_SECONDS
        recent = [at for at in self._failures.get(key, ()) if at > since]
        if recent:
            self._failures[key] = recent
        else:
            self._failures.pop(key, None)
        return len(recent)


class HeaderDoor:
    """A proxy in front that signs people in and names them in a header. Nobody else is heard."""

    has_sessions: Final = False

    def __init__(self, header: str, proxies: Sequence[IPv4Network | IPv6Network]) -> None:
        """`proxies` are the addresses from which the header is believed."""
        self._header: Final = header.lower()
        self._proxies: Final = tuple(proxies)

    def viewer(self, peer: str, headers: Headers, token: str | None) -> str | None:
        """Whom the proxy names."""
        try:
            address = ip_address(peer)
        except ValueError:
            return None
        if not any(address.version == proxy.version and address in proxy for proxy in self._proxies):
            return None
        named = headers.get(self._header, ())
        if len(named) != 1:  # nobody; or the client's own word beside the proxy's
            return None
        user = named[0].strip()
        return user if 0 < len(user) <= 256 and user.isprintable() else None

    def still(self, token: str | None) -> bool:
        """Until the proxy ends the connection."""
        return True
