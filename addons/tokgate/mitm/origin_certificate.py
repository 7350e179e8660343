"""Asks a destination who it is: its certificate's names, from a TLS handshake of our own without any server name.

For `missing_sni: check-certificate` only. The names are evidence, not proof: nothing is verified.
"""

import asyncio
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
        task = self._asking.get(place)
        if task is None:
            who = self._client(client_key(client))
            if who.asked >= self._limits.per_minute:
                return ()
            who.asked += 1
            task = self._asking[place] = asyncio.get_running_loop().create_task(self._ask(place, who.slots))
        return await asyncio.shield(task)

    def _client(self, key: str) -> "_Client":
        """What is known of a client, for a minute from when it asked first."""
        now = self._monotonic()
        for old in [old for old, each in self._clients.items() if each.ends <= now]:
            del self._clients[old]
        if key not in self._clients:
            self._clients[key] = _Client(now + _MINUTE, asyncio.Semaphore(self._limits.per_client))
        return self._clients[key]

    async def _ask(self, place: tuple[str, int], slots: asyncio.Semaphore) -> tuple[str, ...]:
        names: tuple[str, ...] = ()
        try:
            async with asyncio.timeout(self._limits.deadline), slots, self._slots:
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
    """The destination's certificate in DER, from a handshake without SNI: an empty server_hostname sends none.

    The connection ends with that. Raises OSError, and ValueError without any certificate.
    """
    _, writer = streams
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        await writer.start_tls(context, server_hostname="")
        certificate: bytes | None = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    finally:
        writer.transport.abort()
    if not certificate:
        raise ValueError("the destination showed no certificate")
    return certificate
