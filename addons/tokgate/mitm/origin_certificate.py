"""Asks a destination who it is: its certificate's names, from a TLS handshake of our own without any server name.

For `missing_sni: check-certificate` only. The names are evidence, not proof: nothing is verified.
"""

import asyncio
import contextlib
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.x509.oid import ExtensionOID, NameOID

from tokgate.mitm.layers.egress import Egress, Streams
from tokgate.traffic.limits import ProbeLimits, client_key

MAX_NAMES: Final = 100
_MINUTE: Final = 60.0
_DIRECTLY: Final = Egress(lambda: None)


class OriginCertificates:
    """Certificates' names by destination, remembered for a while. One handshake at a time for each destination.

    Clients choose the destinations, so what one of them can have asked is bounded: an answer that can't be had is none.
    """

    def __init__(
        self,
        limits: ProbeLimits | None = None,
        *,
        connect: Callable[[str, int], Awaitable[Streams]] = _DIRECTLY.connect,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`connect` makes a connection to a host and port; it raises OSError."""
        self._connect: Final = connect
        self._limits: Final = limits or ProbeLimits()
        self._monotonic: Final = monotonic
        self._known: Final[dict[tuple[str, int], tuple[float, tuple[str, ...]]]] = {}
        self._asking: Final[dict[tuple[str, int], asyncio.Task[tuple[str, ...]]]] = {}
        self._slots: Final = asyncio.Semaphore(self._limits.at_once)
        self._clients: Final[dict[str, _Client]] = {}

    async def names(self, host: str, port: int, *, client: str) -> tuple[str, ...]:
        """The names of the certificate that is shown at an address to who names no host; empty if there is none."""
        place = (host, port)
        expires, names = self._known.get(place, (0.0, ()))
        if self._monotonic() < expires:
            return names
        who = self._client(client_key(client))
        if who.waiting >= self._limits.waiting_per_client:
            return ()
        who.waiting += 1
        try:
            task = self._asking.get(place)
            if task is None:
                if who.asked >= self._limits.per_minute:
                    return ()
                who.asked += 1
                task = self._asking[place] = asyncio.get_running_loop().create_task(self._ask(place, who))
            return await asyncio.shield(task)
        finally:
            who.waiting -= 1

    def _client(self, key: str) -> "_Client":
        """What is known of a client; of those who ask nothing, only for the minute in which they did."""
        now = self._monotonic()
        for old in [old for old, each in self._clients.items() if each.ends <= now and not each.waiting]:
            del self._clients[old]
        client = self._clients.get(key)
        if client is None:
            client = self._clients[key] = _Client(now + _MINUTE, asyncio.Semaphore(self._limits.per_client))
        elif client.ends <= now:
            client.ends, client.asked = now + _MINUTE, 0
        return client

    async def _ask(self, place: tuple[str, int], who: "_Client") -> tuple[str, ...]:
        names: tuple[str, ...] = ()
        try:
            async with who.slots, self._slots, asyncio.timeout(self._limits.deadline):
                names = certificate_names(await _handshake(await self._connect(*place)))
        except (OSError, TimeoutError, ValueError):  # ssl.SSLError is an OSError
            pass
        finally:
            self._asking.pop(place, None)
        while len(self._known) >= self._limits.size:
            del self._known[next(iter(self._known))]
        kept = self._limits.kept if names else self._limits.failure_kept
        self._known[place] = (self._monotonic() + kept, names)
        return names


@dataclass(slots=True)
class _Client:
    """What a client has had asked in a minute that ends, in monotonic seconds, at `ends`."""

    ends: float
    slots: asyncio.Semaphore
    waiting: int = 0
    asked: int = 0


def certificate_names(der: bytes) -> tuple[str, ...]:
    """The DNS names and addresses of a certificate, `*.` taken off: what policy can match. Raises ValueError."""
    certificate = x509.load_der_x509_certificate(der)
    names: list[str] = []
    try:
        extension = certificate.extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME)
        if isinstance(extension.value, x509.SubjectAlternativeName):
            names += extension.value.get_values_for_type(x509.DNSName)
            names += map(str, extension.value.get_values_for_type(x509.IPAddress))
    except x509.ExtensionNotFound:
        pass
    if not names:
        names += [str(attribute.value) for attribute in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    return tuple(dict.fromkeys(name.removeprefix("*.") for name in names))[:MAX_NAMES]


async def _handshake(streams: Streams) -> bytes:
    """The destination's certificate in DER, from a handshake without SNI: an empty server_hostname sends none."""
    _, writer = streams
    try:
        await writer.start_tls(_context(), server_hostname="")
    except BaseException:
        writer.transport.abort()
        raise
    return _shown_by(writer)


def _shown_by(writer: asyncio.StreamWriter) -> bytes:
    """The certificate of a connection, which ends with that. Raises ValueError without any."""
    try:
        certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    finally:
        writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            writer.transport.abort()
    if not certificate:
        raise ValueError("the destination showed no certificate")
    return bytes(certificate)


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
