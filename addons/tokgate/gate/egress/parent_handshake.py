"""What is said to a parent proxy until it has a way to a destination: CONNECT (RFC 9110 §9.3.6), SOCKS 5 (RFC 1928).

Sans-IO. A handshake begins with `first`; `read` then takes all that has come and was not consumed.
"""

import binascii
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final, Protocol

from tokgate.wire.proxy_request import ACCEPTED, SOCKS_VERSION, Credentials
from tokgate.wire.socks5 import METHOD_CHOSEN, PASSWORD_CHOSEN, VERSION, Reply

MAX_ANSWER: Final = 16 * 1024
"""Octets of an answer's head, beyond which it is none."""
_LONGEST: Final = 255
"""Octets of a name, user or password in SOCKS 5."""
_ADDRESS_LENGTHS: Final = {1: 4, 4: 16}


class ParentRefused(ValueError):
    """The proxy gives no way to the destination, or makes no sense. The message says what it said.

    `ours`: not the destination's affair but the configuration's.
    """

    def __init__(self, message: str, *, ours: bool = True) -> None:
        super().__init__(message)
        self.ours: Final = ours


@dataclass(frozen=True, slots=True)
class Progress:
    """So many octets of the answer are consumed; `say` comes next, or the way is there (`done`)."""

    consumed: int
    say: bytes = b""
    done: bool = False


class ParentHandshake(Protocol):
    """What a gate and a parent proxy say to each other before octets are relayed. Sans-IO."""

    @property
    def first(self) -> bytes:
        """What is sent to the parent once it is connected."""

    def read(self, data: bytes) -> Progress | None:
        """Go on with what has come; None: that is not all yet. Raises ParentRefused."""


class ConnectHandshake:
    """CONNECT to an HTTP proxy. Basic credentials go with the request, which costs no round trip."""

    def __init__(self, host: str, port: int, credentials: Credentials | None) -> None:
        authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        head = f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n"
        if credentials is not None:
            head += f"Proxy-Authorization: {basic(credentials)}\r\n"
        self.first: Final = f"{head}\r\n".encode("ascii")

    def read(self, data: bytes) -> Progress | None:
        end = data.find(b"\r\n\r\n")
        if end < 0:
            if len(data) >= MAX_ANSWER:
                raise ParentRefused("its answer has no end")
            return None
        status = data.partition(b"\r\n")[0].split(b" ", 2)
        if len(status) < 2 or not status[0].startswith(b"HTTP/1.") or not status[1].isdigit():
            raise ParentRefused("it does not speak HTTP")
        if not status[1].startswith(b"2"):
            said = b" ".join(status[1:]).decode("ascii", "replace")
            raise ParentRefused(said, ours=status[1] == b"407")
        return Progress(end + 4, done=True)


class SocksHandshake:
    """SOCKS 5, by name where there is one. A password is offered only where there are credentials (RFC 1929)."""

    def __init__(self, host: str, port: int, credentials: Credentials | None) -> None:
        """Raises ParentRefused for a name or credentials that SOCKS can't say."""
        self._request: Final = bytes((VERSION, 1, 0)) + _address(host) + port.to_bytes(2)
        self._credentials: Final = credentials
        self.first: Final = bytes((VERSION, 1, 0 if credentials is None else 2))
        self._password: Final = b"" if credentials is None else _password(credentials)
        self._step = self._method

    def read(self, data: bytes) -> Progress | None:
        return self._step(data)

    def _method(self, data: bytes) -> Progress | None:
        if len(data) < 2:
            return None
        wanted = METHOD_CHOSEN if self._credentials is None else PASSWORD_CHOSEN
        if data[:2] != wanted:
            raise ParentRefused("it accepts no way of signing in that we have")
        self._step = self._answer if self._credentials is None else self._accepted
        return Progress(2, say=self._request if self._credentials is None else self._password)

    def _accepted(self, data: bytes) -> Progress | None:
        if len(data) < 2:
            return None
        if data[:2] != ACCEPTED:
            raise ParentRefused("the credentials are wrong")
        self._step = self._answer
        return Progress(2, say=self._request)

    def _answer(self, data: bytes) -> Progress | None:
        if len(data) < 5:
            return None
        if data[0] != VERSION or data[1] != Reply.SUCCEEDED:
            raise ParentRefused(f"SOCKS reply {data[1]}", ours=False)
        length = 1 + data[4] if data[3] == 3 else _ADDRESS_LENGTHS.get(data[3])
        if length is None:
            raise ParentRefused("it does not speak SOCKS 5")
        whole = 4 + length + 2
        return Progress(whole, done=True) if len(data) >= whole else None


def basic(credentials: Credentials) -> str:
    """The value of `Proxy-Authorization` (RFC 7617 §2)."""
    said = f"{credentials.user}:{credentials.password}".encode()
    return f"Basic {binascii.b2a_base64(said, newline=False).decode()}"


def _address(host: str) -> bytes:
    for kind, version in ((1, IPv4Address), (4, IPv6Address)):
        try:
            return bytes((kind,)) + version(host).packed
        except ValueError:
            continue
    name = host.encode("ascii", "replace")
    if not 0 < len(name) <= _LONGEST:
        raise ParentRefused("the name is too long")
    return bytes((3, len(name))) + name


def _password(credentials: Credentials) -> bytes:
    user, password = credentials.user.encode(), credentials.password.encode()
    if not (0 < len(user) <= _LONGEST and 0 < len(password) <= _LONGEST):
        raise ParentRefused("SOCKS takes a user and a password of 1 to 255 octets")
    return bytes((SOCKS_VERSION, len(user))) + user + bytes((len(password),)) + password
