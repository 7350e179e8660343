"""Reads what came back for an attempt: a TLS handshake, a page, a refusal, or other bytes."""

import hmac
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tokgate.evasion.attempt import Result, ServerReply, Stream, Target, broken, send_all
from tokgate.evasion.hello import KEY_SHARE, vector

_ALERT: Final = 21
_HANDSHAKE: Final = 22
_APPLICATION_DATA: Final = 23
_SERVER_HELLO: Final = 2
_CERTIFICATE: Final = 11
_RETRY: Final = sha256(b"HelloRetryRequest").digest()
"""The random of a ServerHello that is a HelloRetryRequest (RFC 8446 §4.1.3)."""


class NotTls(ValueError):
    """The octets received are no TLS records; `args[0]` has the first of them."""


class Flight:
    """A server's records, one by one, as messages of its handshake."""

    def __init__(self, stream: Stream) -> None:
        """`stream` is read from when a message is asked for, not before."""
        self._stream: Final = stream
        self._waiting = bytearray()
        self._message = bytearray()
        self._aead: AESGCM | None = None
        self._iv = 0
        self._sequence = 0

    def messages(self) -> Iterator[bytes]:
        """Handshake messages with their headers; an alert is given as two octets. Raises OSError, NotTls."""
        while (read := self._record()) is not None:
            kind, content = read
            if kind == _ALERT:
                yield content[:2]
                return
            if kind != _HANDSHAKE:
                continue
            self._message += content
            while len(self._message) >= 4 and len(self._message) >= (end := 4 + int.from_bytes(self._message[1:4])):
                message = bytes(self._message[:end])
                del self._message[:end]
                yield message

    def decrypt(self, secret: bytes) -> None:
        """Decrypt what follows with keys from the server's handshake traffic secret (RFC 8446 §7.3)."""
        self._aead = AESGCM(_expand(secret, "key", b"", 16))
        self._iv = int.from_bytes(_expand(secret, "iv", b"", 12))

    @property
    def decrypts(self) -> bool:
        """Whether messages are decrypted: in TLS 1.3, after ServerHello."""
        return self._aead is not None

    def _record(self) -> tuple[int, bytes] | None:
        header = self._take(5)
        if header is None:
            return None
        if header[0] not in range(20, 25) or header[1] != 3:
            raise NotTls(header + bytes(self._waiting))
        body = self._take(int.from_bytes(header[3:5]))
        if body is None:
            return None
        if header[0] != _APPLICATION_DATA or self._aead is None:
            return header[0], body
        nonce = (self._iv ^ self._sequence).to_bytes(12)
        self._sequence += 1
        content = self._aead.decrypt(nonce, body, header).rstrip(b"\0")
        return content[-1], content[:-1]

    def _take(self, count: int) -> bytes | None:
        """The next `count` octets; None if the stream ends before."""
        while len(self._waiting) < count:
            data = self._stream.receive()
            if not data:
                if self._waiting and self._waiting[0] not in range(20, 25):
                    raise NotTls(bytes(self._waiting))
                return None
            self._waiting += data
        taken = bytes(self._waiting[:count])
        del self._waiting[:count]
        return taken


@dataclass(frozen=True, slots=True)
class Second:
    """The hello that answers a HelloRetryRequest: its message, and what is sent once that has come."""

    message: bytes
    pieces: tuple[bytes, ...] = ()
    """Empty where it was sent without waiting."""


def read_answer(
    stream: Stream, target: Target, sent: bytes = b"", key: X25519PrivateKey | None = None, second: Second | None = None
) -> ServerReply:
    """What a server shows of itself to a hello.

    `sent` and `key` are for TLS 1.3: the hello as a handshake message, and what its key share belongs to.
    """
    try:
        return _read(stream, target, sent, key, second)
    except OSError as error:
        return broken(error)
    except NotTls as other:
        return ServerReply(Result.OTHER, f"answered {other.args[0][:24]!r}", other.args[0])
    except (ValueError, IndexError, InvalidTag):
        return ServerReply(Result.OTHER, "answered in TLS that can't be read")


def _read(
    stream: Stream, target: Target, sent: bytes, key: X25519PrivateKey | None, second: Second | None
) -> ServerReply:
    flight, transcript, retried = Flight(stream), sent, False
    for message in flight.messages():
        if len(message) == 2:
            return ServerReply(Result.REFUSED, f"alert {message[1]}")
        if message[0] == _CERTIFICATE:
            return _shown(message, target, tls_13=flight.decrypts)
        if message[0] == _SERVER_HELLO and message[6:38] == _RETRY:
            if second is None or retried:
                return ServerReply(Result.OTHER, "a HelloRetryRequest")
            retried = True
            transcript = b"\xfe" + vector(3, sha256(sent).digest()) + message + second.message
            send_all(stream, second.pieces)
        elif message[0] == _SERVER_HELLO and key is not None and (share := _server_share(message)) is not None:
            flight.decrypt(_traffic_secret(key, share, transcript + message))
    return ServerReply(Result.CLOSED, "after a HelloRetryRequest" if retried else "")


def _server_share(message: bytes) -> bytes | None:
    """The server's X25519 key in a ServerHello of TLS 1.3; None in one of TLS 1.2."""
    position = 39 + message[38] + 3 + 2
    while position < len(message):
        kind, length = int.from_bytes(message[position : position + 2]), int.from_bytes(message[position + 2 :][:2])
        if kind == KEY_SHARE:
            return message[position + 8 : position + 4 + length]
        position += 4 + length
    return None


def _traffic_secret(key: X25519PrivateKey, share: bytes, transcript: bytes) -> bytes:
    early = hmac.digest(bytes(32), bytes(32), "sha256")
    derived = _expand(early, "derived", sha256(b"").digest(), 32)
    handshake = hmac.digest(derived, key.exchange(X25519PublicKey.from_public_bytes(share)), "sha256")
    return _expand(handshake, "s hs traffic", sha256(transcript).digest(), 32)


def _expand(secret: bytes, label: str, context: bytes, length: int) -> bytes:
    """HKDF-Expand-Label (RFC 8446 §7.1) for at most one block of SHA-256."""
    info = length.to_bytes(2) + vector(1, b"tls13 " + label.encode()) + vector(1, context) + b"\1"
    return hmac.digest(secret, info, "sha256")[:length]


def _shown(message: bytes, target: Target, *, tls_13: bool) -> ServerReply:
    """Whether the certificate is for the name, or for some name in which it ends."""
    start = 4 + (1 + message[4] if tls_13 else 0) + 3
    der = message[start + 3 : start + 3 + int.from_bytes(message[start : start + 3])]
    names = certificate_names(der)
    served = any(covers(name, target.name) for name in names)
    return ServerReply(Result.SERVED if served else Result.OTHER, f"certificate of {', '.join(names) or 'nobody'}")


def certificate_names(der: bytes) -> tuple[str, ...]:
    """The DNS names in a certificate's subjectAltName."""
    try:
        extension = x509.load_der_x509_certificate(der).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return ()
    return tuple(extension.value.get_values_for_type(x509.DNSName))


def covers(pattern: str, name: str) -> bool:
    """Whether a certificate's name is the name, or a wildcard for it (RFC 6125 §6.4.3)."""
    pattern, name = pattern.lower(), name.lower().rstrip(".")
    return pattern == name or (pattern.startswith("*.") and name.partition(".")[2] == pattern[2:])


_STATUS: Final = re.compile(rb"\AHTTP/[0-9.]+ ([0-9]{3})")
_REFUSALS: Final = frozenset(
    {400, 403, 405, 407, 408, 411, 413, 414, 417, 421, 426, 431, 451, 500, 501, 502, 503, 504, 505}
)
"""Statuses that serve nobody: from tokgate, or from a server that does not take the request."""
_MOST: Final = 1 << 20


def read_page(receive: Callable[[], bytes], wanted: int = 1) -> ServerReply:
    """Read to the end of the stream, or until nothing more comes. `wanted`: which of the pages is the one."""
    said, error = bytearray(), None
    try:
        while len(said) < _MOST and (piece := receive()):
            said += piece
    except OSError as raised:
        error = raised
    if not said:
        return ServerReply(Result.CLOSED) if error is None else broken(error)
    return judge(bytes(said), wanted)


def judge(said: bytes, wanted: int = 1) -> ServerReply:
    """What an answer is. Served is who gets as many pages as `wanted`."""
    if said.startswith(b"\x15\x03"):
        return ServerReply(Result.REFUSED, "a TLS alert", said)
    statuses = [int(found) for found in re.findall(rb"HTTP/[0-9.]+ ([0-9]{3})", said)]
    if not _STATUS.match(said):
        return ServerReply(Result.SERVED, f"answered {said[:24]!r}", said)
    taken = [status for status in statuses if status not in _REFUSALS and status >= 200]
    if len(taken) >= wanted:
        return ServerReply(Result.SERVED, f"status {taken[wanted - 1]}", said)
    return ServerReply(Result.REFUSED, f"status {statuses[-1]}", said)
