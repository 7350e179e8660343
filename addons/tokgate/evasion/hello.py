"""Writes ClientHellos octet by octet, ordinary and odd ones (RFC 8446 §4.1.2). Reads nothing, and knows no policy."""

from collections.abc import Iterable, Sequence
from itertools import pairwise

SERVER_NAME = 0x0000
SUPPORTED_GROUPS = 0x000A
EC_POINT_FORMATS = 0x000B
SIGNATURE_ALGORITHMS = 0x000D
ALPN = 0x0010
PADDING = 0x0015
EARLY_DATA = 0x002A
SUPPORTED_VERSIONS = 0x002B
KEY_SHARE = 0x0033
ECH = 0xFE0D

X25519 = 0x001D
SECP256R1 = 0x0017
SECP384R1 = 0x0018

type Extension = tuple[int, bytes]


def vector(prefix: int, content: bytes) -> bytes:
    """A TLS vector: `content` behind its length in `prefix` octets."""
    return len(content).to_bytes(prefix) + content


def uint16s(values: Iterable[int]) -> bytes:
    """Numbers as unsigned 16-bit integers in network order, without a length before them."""
    return b"".join(value.to_bytes(2) for value in values)


def server_name(*names: bytes, kind: int = 0) -> Extension:
    """server_name with any number of names of one type: RFC 6066 §3."""
    return SERVER_NAME, vector(2, b"".join(bytes([kind]) + vector(2, name) for name in names))


def alpn(*protocols: bytes) -> Extension:
    """application_layer_protocol_negotiation: RFC 7301 §3.1."""
    return ALPN, vector(2, b"".join(vector(1, protocol) for protocol in protocols))


def supported_versions(*versions: int) -> Extension:
    """supported_versions: RFC 8446 §4.2.1."""
    return SUPPORTED_VERSIONS, vector(1, uint16s(versions))


def supported_groups(*groups: int) -> Extension:
    """supported_groups: RFC 8446 §4.2.7."""
    return SUPPORTED_GROUPS, vector(2, uint16s(groups))


def signature_algorithms(*schemes: int) -> Extension:
    """signature_algorithms: RFC 8446 §4.2.3."""
    return SIGNATURE_ALGORITHMS, vector(2, uint16s(schemes))


def key_shares(shares: Iterable[tuple[int, bytes]]) -> Extension:
    """key_share with a public key for each group; without any it asks for a HelloRetryRequest (RFC 8446 §4.2.8)."""
    return KEY_SHARE, vector(2, b"".join(group.to_bytes(2) + vector(2, key) for group, key in shares))


def ech() -> Extension:
    """encrypted_client_hello of an outer hello: type, cipher suite, config id, key, payload (RFC 9849 §5)."""
    return ECH, b"\0" + b"\0\1\0\1" + b"\x2a" + vector(2, b"k" * 32) + vector(2, b"p" * 144)


def hello(
    *extensions: Extension,
    ciphers: Sequence[int] = (0x1301, 0x1302, 0xC02F),
    session_id: bytes = b"s" * 32,
    compressions: bytes = b"\0",
    version: int = 0x0303,
    with_extensions: bool = True,
) -> bytes:
    """A ClientHello as a handshake message, without record headers."""
    body = version.to_bytes(2) + b"r" * 32 + vector(1, session_id) + vector(2, uint16s(ciphers))
    body += vector(1, compressions)
    if with_extensions:
        body += vector(2, b"".join(kind.to_bytes(2) + vector(2, content) for kind, content in extensions))
    return b"\1" + vector(3, body)


def records(message: bytes, size: int = 16384, version: int = 0x0301) -> bytes:
    """The message in records of `size` octets each, the last one shorter."""
    return records_at(message, range(size, len(message), size), version)


def records_at(message: bytes, cuts: Iterable[int], version: int = 0x0301) -> bytes:
    """A handshake message in records that end at the given offsets, and one for the rest."""
    edges = [0, *cuts, len(message)]
    fragments = [message[start:end] for start, end in pairwise(edges)]
    return b"".join(record(fragment, version=version) for fragment in fragments)


def record(fragment: bytes, kind: int = 22, version: int = 0x0301) -> bytes:
    """A TLSPlaintext record (RFC 8446 §5.1)."""
    return bytes([kind]) + version.to_bytes(2) + vector(2, fragment)


_ANY_SIGNATURE = signature_algorithms(0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601, 0x0203, 0x0201)
_ANY_GROUP = supported_groups(X25519, SECP256R1, SECP384R1)


def hello_12(*extensions: Extension, version: int = 0x0303) -> bytes:
    """A TLS 1.2 hello that any server can answer; its certificate then comes in the clear (RFC 5246 §7.4.2)."""
    common = (_ANY_GROUP, (EC_POINT_FORMATS, b"\1\0"), _ANY_SIGNATURE)
    return hello(
        *extensions, *common, ciphers=(0xC02B, 0xC02F, 0xC02C, 0xC030, 0xC013, 0xC009, 0x009C), version=version
    )


def hello_13(*extensions: Extension, shares: Iterable[tuple[int, bytes]]) -> bytes:
    """A TLS 1.3 hello that any server can answer, with one cipher suite: AES-128-GCM with SHA-256."""
    common = (_ANY_GROUP, _ANY_SIGNATURE, supported_versions(0x0304), key_shares(shares))
    return hello(*extensions, *common, ciphers=(0x1301,))
