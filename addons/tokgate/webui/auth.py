"""Authentication of the review page: a one-time link, a password, or the header of an authenticating proxy.

Sessions are random tokens in cookies, of which the server keeps SHA-256 digests, in memory. The client of a request is
the peer or, behind trusted proxies, the address that they forward in X-Forwarded-For.
"""

import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import ClassVar, Final

from starlette.datastructures import Headers

from tokgate.accounts.htpasswd import Htpasswd

type IPNetwork = IPv4Network | IPv6Network
_SITE: Final = 64
"""A site's prefix in IPv6 (RFC 6177): within it whoever likes changes addresses."""


def is_among(peer: str, networks: Sequence[IPNetwork]) -> bool:
    """Whether an address is in one of the networks; not if it is no address."""
    address = _address(peer)
    return address is not None and any(address in each for each in networks)


def client_address(peer: str, forwarded: Sequence[str], proxies: Sequence[IPNetwork]) -> str:
    """The client behind `proxies`: from the right, the first address of X-Forwarded-For that is none of theirs.

    What stands further left the client may have written itself. `forwarded` are the header's values.
    """
    client = peer
    for word in reversed(",".join(forwarded).split(",")):
        if not is_among(client, proxies):
            break
        address = _address(word.strip())
        if address is None:
            break
        client = str(address)
    return client


def site_of(client: str) -> str:
    """The key by which failures are counted: an IPv4 address, or the /64 prefix of an IPv6 address."""
    address = _address(client)
    return str(ip_network((address, _SITE), strict=False)) if isinstance(address, IPv6Address) else client


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """`192.0.2.7`, `192.0.2.7:443`, `2001:db8::7` or `[2001:db8::7]:443`."""
    without_port = text.partition("]")[0][1:] if text.startswith("[") else text
    if without_port.count(":") == 1:
        without_port = without_port.partition(":")[0]
    with suppress(ValueError):
        address = ip_address(without_port)
        return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address
    return None


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


MAX_FAILURES: Final = 10
MAX_FAILURES_OF_ADDRESS: Final = 100
FAILURE_SECONDS: Final = 300.0
"""Wrong passwords that one address may give in that time before it is slowed down: for one user, and in all."""
SLOW_SECONDS: Final = 5.0
"""What each attempt waits then; the next one for the same user from there is refused meanwhile."""
_LONGEST_USER: Final = 256
_MAX_REMEMBERED: Final = 10_000


class Authenticator:
    """An authentication method: names the user who sent a request. Here of one with sessions of this site."""

    has_sessions: ClassVar[bool] = True
    """Whether users have sessions of this site, which they can end."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions: Final = sessions

    def viewer(self, peer: str, headers: Headers, token: str | None, *, awake: bool = True) -> str | None:
        """The user who sent a request; None for a request that must not be answered with a page.

        `peer` is the address of the connection, `token` the value of the session cookie. Without `awake`, as for a
        stream of live lines, the session is not extended.
        """
        return None if token is None else self._sessions.user(token, awake=awake)

    def leave(self, token: str) -> None:
        """End the session of `token`, if there is one."""
        self._sessions.end(token)


class LinkAuthenticator(Authenticator):
    """One local user: a link signs in once. When its session has ended, there is a new link."""

    def __init__(self, sessions: Sessions, user: str, tell: Callable[[str], None]) -> None:
        """`tell` is given the token of each new link."""
        super().__init__(sessions)
        self.user: Final = user
        self._tell: Final = tell
        self._token = ""
        self.renew()

    def open(self, token: str) -> str | None:
        """Begin a session with the link's token, which is invalid from then on; None for any other token."""
        expected = self._token
        if not expected or not secrets.compare_digest(token.encode(), expected.encode()):
            return None
        self._token = ""
        return self._sessions.begin(self.user)

    def leave(self, token: str) -> None:
        """End the session of `token`, and make a new link if it was the last."""
        super().leave(token)
        self.renew()

    def renew(self) -> None:
        """Make a new link if there is neither a session nor an unused link."""
        if not self._token and not len(self._sessions):
            self._token = secrets.token_urlsafe()
            self._tell(self._token)


class PasswordAuthenticator(Authenticator):
    """Users of an htpasswd file, who sign in with a form. Wrong passwords are counted by address and user."""

    def __init__(self, sessions: Sessions, users: Htpasswd, clock: Callable[[], float]) -> None:
        """`clock` returns monotonic seconds."""
        super().__init__(sessions)
        self._users: Final = users
        self._clock: Final = clock
        self._failures: Final[OrderedDict[tuple[str, ...], list[float]]] = OrderedDict()

    def viewer(self, peer: str, headers: Headers, token: str | None, *, awake: bool = True) -> str | None:
        """The user of the session, if the htpasswd file still has them. Raises AccountsError."""
        user = super().viewer(peer, headers, token, awake=awake)
        return user if user is not None and self._users.has(user) else None

    def is_slowed(self, client: str, user: str) -> bool:
        """Whether too many wrong passwords came from an address, for this user or for any."""
        site = site_of(client)
        return self._recent(site, user) >= MAX_FAILURES or self._recent(site) >= MAX_FAILURES_OF_ADDRESS

    def knows(self, user: str) -> bool:
        """Whether the htpasswd file has the user. Raises AccountsError."""
        return self._users.has(user)

    def sign_in(self, client: str, user: str, password: str) -> str | None:
        """Check a password and return the token of a new session; None if the password is wrong. Blocks (bcrypt)."""
        site = site_of(client)
        if self._users.knows(user, password):
            self._failures.pop((site, user), None)
            return self._sessions.begin(user)
        for key in ((site, user), (site,)):
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


class HeaderAuthenticator(Authenticator):
    """Users whom an authenticating proxy names in a request header; the header counts from its addresses only."""

    has_sessions = False

    def __init__(self, header: str, proxies: Sequence[IPNetwork]) -> None:
        """`proxies` are the addresses from which the header is believed."""
        self._header: Final = header
        self._proxies: Final = tuple(proxies)

    def viewer(self, peer: str, headers: Headers, token: str | None, *, awake: bool = True) -> str | None:
        """The user in the header, if the peer is one of the proxies and the header occurs once."""
        if not is_among(peer, self._proxies):
            return None
        named = headers.getlist(self._header)
        if len(named) != 1:  # none, or one of the client's beside the proxy's
            return None
        user = named[0].strip()
        return user if 0 < len(user) <= _LONGEST_USER and user.isprintable() else None

    def leave(self, token: str) -> None:
        """Nothing: the proxy ends sessions."""
