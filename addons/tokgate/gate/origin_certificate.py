"""Asks a destination who it is: its certificate's names, from a TLS handshake of our own without any server name.

For `missing_sni: check-certificate` only. The names are evidence, not proof: nothing is verified.
"""

import asyncio
import contextlib
import ssl
import time
from collections.abc import Callable
from typing import Final

from cryptography import x509
from cryptography.x509.oid import ExtensionOID, NameOID

MAX_NAMES: Final = 100


class OriginCertificates:
    """Certificates' names by destination, remembered for a while. One handshake at a time for each destination."""

    def __init__(
        self,
        *,
        deadline: float = 3.0,
        keep: float = 300.0,
        keep_failure: float = 10.0,
        size: int = 1024,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Times in seconds; `size` bounds the destinations remembered."""
        self._deadline: Final = deadline
        self._keep: Final = keep
        self._keep_failure: Final = keep_failure
        self._size: Final = size
        self._monotonic: Final = monotonic
        self._known: Final[dict[tuple[str, int], tuple[float, tuple[str, ...]]]] = {}
        self._asking: Final[dict[tuple[str, int], asyncio.Task[tuple[str, ...]]]] = {}

    async def names(self, host: str, port: int) -> tuple[str, ...]:
        """The names of the certificate that is shown at an address to who names no host; empty if there is none."""
        place = (host, port)
        expires, names = self._known.get(place, (0.0, ()))
        if self._monotonic() < expires:
            return names
        task = self._asking.get(place)
        if task is None:
            task = self._asking[place] = asyncio.get_running_loop().create_task(self._ask(place))
        return await asyncio.shield(task)

    async def _ask(self, place: tuple[str, int]) -> tuple[str, ...]:
        names: tuple[str, ...] = ()
        try:
            async with asyncio.timeout(self._deadline):
                names = certificate_names(await _handshake(*place))
        except (OSError, TimeoutError, ValueError):  # ssl.SSLError is an OSError
            pass
        finally:
            self._asking.pop(place, None)
        while len(self._known) >= self._size:
            del self._known[next(iter(self._known))]
        self._known[place] = (self._monotonic() + (self._keep if names else self._keep_failure), names)
        return names


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


async def _handshake(host: str, port: int) -> bytes:
    """The destination's certificate in DER; a handshake that names nobody: an empty server_hostname sends no SNI."""
    _, writer = await asyncio.open_connection(host, port, ssl=_context(), server_hostname="")
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
