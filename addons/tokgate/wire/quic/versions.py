"""The versions of QUIC: those whose Initial packets are read here, and drafts, which nothing else would begin with."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Version:
    """What differs between versions (RFC 9001 §5.2, RFC 9369 §3)."""

    salt: bytes
    label: str
    initial: int
    """The type of Initial packets."""
    retry: int


VERSIONS: Final = {
    0x00000001: Version(bytes.fromhex("38762cf7f55934b34d179ae6a4c80cadccbb7f0a"), "quic", 0, 3),
    0x6B3343CF: Version(bytes.fromhex("0dede3def700a6db819381be6e269dcbf9bd2ed9"), "quicv2", 1, 0),
}
DRAFTS: Final = (0xFF0000, 0xFF0200, 0x513034, 0x513035, 0x543035, 0xFACEB0, 0x709A50)
"""All but the last octet of versions that servers still speak: the IETF's drafts (0x709a50c4 is version 2's last),
Google's and Meta's."""
