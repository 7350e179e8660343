"""WireGuard's keys: Curve25519 key pairs, each 32 octets in Base64 (wg(8))."""

import base64
import binascii
from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

_OCTETS: Final = 32


def new_private_key() -> str:
    """A private key from the system's random numbers."""
    return base64.b64encode(X25519PrivateKey.generate().private_bytes_raw()).decode()


def public_key(private_key: str) -> str:
    """The public key that belongs to a private one. Raises ValueError if that is no key."""
    if not is_key(private_key):
        raise ValueError("no key")  # not the text: it may be a secret with a typing error
    made = X25519PrivateKey.from_private_bytes(base64.b64decode(private_key)).public_key()
    return base64.b64encode(made.public_bytes_raw()).decode()


def is_key(text: str) -> bool:
    """Whether a text is a key, as WireGuard writes it."""
    try:
        octets = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return False
    return len(octets) == _OCTETS and base64.b64encode(octets).decode() == text
