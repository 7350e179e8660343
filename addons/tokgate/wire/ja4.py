"""JA4: a short fingerprint of the software that wrote a ClientHello. JA4 alone; its licence is BSD 3-Clause.

Computed from a hello already read, for the log; nothing is decided by it.
Specification: https://github.com/FoxIO-LLC/ja4/blob/main/technical_details/JA4.md
"""

from collections.abc import Iterable
from hashlib import sha256
from typing import Final, Literal

from tokgate.wire.client_hello import ClientHello

_SERVER_NAME: Final = 0x0000
_ALPN: Final = 0x0010
_VERSIONS: Final = {0x0304: "13", 0x0303: "12", 0x0302: "11", 0x0301: "10", 0x0300: "s3", 0x0002: "s2"}


def ja4(hello: ClientHello, transport: Literal["t", "q"] = "t") -> str:
    """The fingerprint, such as `t13d1516h2_8daaf6152771_e5627efa2ab1`; `transport` is t for TCP, q for QUIC."""
    ciphers, extensions = hello.ciphers, hello.extension_types
    part_a = (
        transport
        + _VERSIONS.get(max(hello.versions, default=0), "00")
        + ("d" if _SERVER_NAME in extensions else "i")
        + f"{min(len(ciphers), 99):02}{min(len(extensions), 99):02}"
        + _ends(hello.alpn[0] if hello.alpn else b"")
    )
    part_c = _hex(sorted(kind for kind in extensions if kind not in (_SERVER_NAME, _ALPN)))
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
