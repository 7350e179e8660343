"""A TLS ClientHello: the name asked for, ECH, and what the log wants, out of its handshake message.

Whether a name is banned, and what it looks like once normalised, is decided elsewhere.
"""

import struct
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from hashlib import sha256
from typing import Final, Literal, NamedTuple

from tokgate.wire.host_names import (
    NameStatus,
    is_address,
    legible_names,
    listed_names,
    matches_by_its_end,
    read_server_name,
)

_SESSION_ID: Final = 38  # after type, length, legacy_version and random

_SIGNATURE_ALGORITHMS: Final = 0x000D
_ALPN: Final = 0x0010
_EARLY_DATA: Final = 0x002A
_SUPPORTED_VERSIONS: Final = 0x002B
_ENCRYPTED_CLIENT_HELLO: Final = 0xFE0D  # https://www.rfc-editor.org/rfc/rfc9849#section-5

UNRECOGNIZED_NAME: Final = 112
"""The alert that browsers show most truthfully when a name is refused: the server knows none like it (RFC 6066 §3).

Not access_denied (49), which Chromium reports as a problem with a client certificate."""
REFUSAL: Final = bytes((21, 3, 3, 0, 2, 2, UNRECOGNIZED_NAME))
"""That alert, fatal, in a plaintext record (RFC 8446 §5.1, §6), to be followed by the end of the stream."""

_type_and_length = struct.Struct("!HH").unpack_from


class ClientHelloError(ValueError):
    """The bytes are not the start of a ClientHello, whatever may follow; to a server that reads more they may be."""


class NotTlsError(ClientHelloError):
    """No server takes the bytes for the start of TLS."""


class ClientHello(NamedTuple):
    """A complete ClientHello. The fields are read at once; the properties on demand, for the log.

    The properties leave GREASE (RFC 8701) out, and are empty where the client sent a list that can't be read: the walk
    over the message has been checked, the inside of extensions other than server_name has not.
    """

    name: str | None
    """The server name exactly as sent (case, trailing dot, address literals); None unless `name_status` is `valid`."""
    name_status: NameStatus
    message: bytes
    """The handshake message with its four octets of header, without record headers."""
    early_data: bool
    """Whether the client sends early data, before any answer (RFC 8446 §4.2.10)."""

    @property
    def names_a_host(self) -> bool:
        """Whether there is a name that is one: RFC 6066 §3 allows no address, and servers take one for none."""
        return self.name is not None and not is_address(self.name)

    @property
    def oddly_names_a_host(self) -> bool:
        """Whether its one name is none by RFC 6066, and yet one that servers match, as `host:port` or in UTF-8."""
        odd = self.name_status is NameStatus.ODD
        return odd and matches_by_its_end(next(listed_names(self.extension(0) or b"")))

    @property
    def is_nameless(self) -> bool:
        """Whether it says nothing about where it goes."""
        return not self.names_a_host and self.name_status in (NameStatus.VALID, NameStatus.NONE)

    @property
    def legible(self) -> tuple[str, ...]:
        """What could be names in a server_name that isn't valid: some server takes one of them for the name."""
        if self.names_a_host or self.is_nameless:
            return ()
        return legible_names(name for kind, body in self._walk() if kind == 0 for name in listed_names(body))

    @property
    def ech(self) -> bool:
        """Whether encrypted_client_hello is present: real, or GREASE, which looks the same."""
        return self.extension(_ENCRYPTED_CLIENT_HELLO) is not None

    @property
    def legacy_version(self) -> int:
        """The version before supported_versions: 0x0303 for TLS 1.2, and for TLS 1.3 too (RFC 8446 §4.1.2)."""
        return int.from_bytes(self.message[4:6])

    @property
    def versions(self) -> tuple[int, ...]:
        """The versions offered, most wanted first: supported_versions, or the legacy version in its absence."""
        body = self.extension(_SUPPORTED_VERSIONS)
        return (self.legacy_version,) if body is None else _without_grease(_uint16s(_vector(body, 1)))

    @property
    def ciphers(self) -> tuple[int, ...]:
        """The cipher suites, signalling values included, in the client's order."""
        start = _SESSION_ID + 1 + self.message[_SESSION_ID]
        return _without_grease(_uint16s(_vector(self.message[start : self._compression_start], 2)))

    @property
    def extension_types(self) -> tuple[int, ...]:
        """The types of the extensions in the client's order, which browsers shuffle."""
        return _without_grease(tuple(kind for kind, _ in self._walk()))

    @property
    def alpn(self) -> tuple[bytes, ...]:
        """The application protocols, most wanted first: `b"h2"`, `b"http/1.1"` (RFC 7301 §3.1)."""
        names = _protocol_names(_vector(self.extension(_ALPN) or b"", 2))
        return tuple(name for name in names if not is_grease(int.from_bytes(name)))

    @property
    def signature_algorithms(self) -> tuple[int, ...]:
        """The signature schemes in the client's order (RFC 8446 §4.2.3)."""
        return _without_grease(_uint16s(_vector(self.extension(_SIGNATURE_ALGORITHMS) or b"", 2)))

    def extension(self, kind: int) -> bytes | None:
        """The body of the first extension of this type, or None."""
        return next((body for found, body in self._walk() if found == kind), None)

    @property
    def _compression_start(self) -> int:
        start = _SESSION_ID + 1 + self.message[_SESSION_ID]
        return start + 2 + int.from_bytes(self.message[start : start + 2])

    def _walk(self) -> Iterator[tuple[int, bytes]]:
        message, start = self.message, self._compression_start
        start += 1 + message[start] + 2
        while start < len(message):
            kind, length = _type_and_length(message, start)
            yield kind, message[start + 4 : start + 4 + length]
            start += 4 + length


def is_grease(value: int) -> bool:
    """Whether a 16-bit value is one of those that clients sprinkle to keep servers tolerant (RFC 8701 §2)."""
    return value & 0x0F0F == 0x0A0A and value >> 8 == value & 0xFF


def read_message(message: bytes) -> ClientHello:
    """Walk a whole handshake message once, checking every length against the next (RFC 8446 §4.1.2).

    Reading past the end raises IndexError or struct.error; falling short of it or past it shows in `position`.
    """
    end, unpack = len(message), _type_and_length
    server_name = name_end = 0
    repeated = early_data = False
    try:
        session_id = message[_SESSION_ID]
        position = _SESSION_ID + 1 + session_id
        ciphers = message[position] << 8 | message[position + 1]
        position += 2 + ciphers
        compressions = message[position]
        position += 1 + compressions
        if session_id > 32 or ciphers < 2 or ciphers & 1 or compressions < 1:
            raise ClientHelloError("malformed")
        if position < end:  # before TLS 1.3 a hello may end here: RFC 5246 §7.4.1.2
            extensions = message[position] << 8 | message[position + 1]
            position += 2
            if position + extensions != end:
                raise ClientHelloError("malformed")
        while position < end:
            kind, length = unpack(message, position)
            if not kind:
                repeated = bool(server_name)
                server_name, name_end = position + 4, position + 4 + length
            elif kind == _EARLY_DATA:
                early_data = True
            position += 4 + length
    except (IndexError, struct.error):
        raise ClientHelloError("malformed") from None
    if position != end:
        raise ClientHelloError("malformed")
    name, status = None, NameStatus.MALFORMED if repeated else NameStatus.NONE
    if server_name and not repeated:
        name, status = read_server_name(message, server_name, name_end)
    return ClientHello(name, status, message, early_data)


def _vector(data: bytes, prefix: int) -> bytes:
    """The content of a vector that fills `data` behind a length of `prefix` octets; empty if the length is wrong."""
    content = data[prefix:]
    return content if int.from_bytes(data[:prefix]) == len(content) else b""


def _uint16s(data: bytes) -> tuple[int, ...]:
    return tuple(data[i] << 8 | data[i + 1] for i in range(0, len(data), 2)) if len(data) % 2 == 0 else ()


def _protocol_names(data: bytes) -> tuple[bytes, ...]:
    names: list[bytes] = []
    position = 0
    while position < len(data):
        end = position + 1 + data[position]
        names.append(data[position + 1 : end])
        position = end
    return tuple(names) if position == len(data) else ()


def _without_grease(values: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(value for value in values if not is_grease(value))


PUBLIC_NAMES: Final = frozenset(
    {
        # Every Cloudflare zone: https://developers.cloudflare.com/ssl/edge-certificates/ech/
        "cloudflare-ech.com",
        # Meta's, in the ECHConfig that its servers hand out on a retry (not yet in DNS):
        # https://github.com/XTLS/BBS/issues/13
        "ech-public.atmeta.com",
        # Two public test beds: https://tls-ech.dev, and https://defo.ie as used in curl's docs/ECH.md.
        "public.tls-ech.dev",
        "cover.defo.ie",
    }
)
"""Names that providers publish as `public_name` in their ECHConfigs (RFC 9849 §4): they serve no site of their own."""


def is_ech_outer(hello: ClientHello, public_names: AbstractSet[str] = PUBLIC_NAMES) -> bool:
    """Whether this is an outer hello, so that its name says which provider is meant and not which site.

    A client that uses ECH puts the provider's public name into server_name (RFC 9849 §6.1) and always adds
    encrypted_client_hello. A client that doesn't adds the same extension with random content beside the *real* name
    (GREASE, §6.2), as all big browsers do: the extension alone proves nothing. A public name that is missing from the
    list goes unnoticed: the hello then counts as one for that name.
    """
    name = hello.name
    return name is not None and name.lower().removesuffix(".") in public_names and hello.ech


_JA4_VERSIONS: Final = {0x0304: "13", 0x0303: "12", 0x0302: "11", 0x0301: "10", 0x0300: "s3", 0x0002: "s2"}


def ja4(hello: ClientHello, transport: Literal["t", "q"] = "t") -> str:
    """JA4 of a hello, for the log: `t13d1516h2_8daaf6152771_e5627efa2ab1`; `transport` is t for TCP, q for QUIC.

    https://github.com/FoxIO-LLC/ja4/blob/main/technical_details/JA4.md; the licence of JA4 alone is BSD 3-Clause.
    """
    ciphers, extensions = hello.ciphers, hello.extension_types
    part_a = (
        transport
        + _JA4_VERSIONS.get(max(hello.versions, default=0), "00")
        + ("d" if 0 in extensions else "i")
        + f"{min(len(ciphers), 99):02}{min(len(extensions), 99):02}"
        + _ends(hello.alpn[0] if hello.alpn else b"")
    )
    part_c = _hex(sorted(kind for kind in extensions if kind not in (0, _ALPN)))
    if signatures := hello.signature_algorithms:  # in the client's order; without any, no underscore
        part_c += "_" + _hex(signatures)
    return f"{part_a}_{_hash(_hex(sorted(ciphers)))}_{_hash(part_c)}"


def _ends(protocol: bytes) -> str:
    """First and last character of the first ALPN value, of its hex form if either is no ASCII letter or digit."""
    if not protocol:
        return "00"
    first_and_last = protocol[:1] + protocol[-1:]
    text = first_and_last.decode("ascii") if first_and_last.isalnum() else protocol.hex()
    return text[0] + text[-1]


def _hex(values: Iterable[int]) -> str:
    return ",".join(f"{value:04x}" for value in values)


def _hash(text: str) -> str:
    return sha256(text.encode("ascii")).hexdigest()[:12] if text else "000000000000"
