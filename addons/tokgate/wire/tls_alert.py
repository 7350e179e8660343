"""TLS alerts as the octets of a plaintext record, to refuse a handshake before any key exists."""

from enum import IntEnum


class Alert(IntEnum):
    """The alerts that are sent; values and meanings from RFC 8446 §6.2 and RFC 6066 §3."""

    UNRECOGNIZED_NAME = 112
    """No server is known under the name in the hello: what browsers show most truthfully when a name is refused.

    Not access_denied (49), which Chromium reports as a problem with a client certificate.
    """

    @property
    def record(self) -> bytes:
        """The fatal alert as a record: seven octets, to be followed by the end of the stream.

        Content type 21, legacy_record_version 0x0303 as all plaintext records after a ClientHello, length 2
        (https://www.rfc-editor.org/rfc/rfc8446#section-5.1), level 2 = fatal, description
        (https://www.rfc-editor.org/rfc/rfc8446#section-6).
        """
        return bytes((21, 3, 3, 0, 2, 2, self))
