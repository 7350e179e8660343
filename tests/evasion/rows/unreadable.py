"""Which attempts can't be read, or hide where they lead: refused under no ban, with a record of that."""

from typing import Final

_ALWAYS: Final = """
    bracketed-for-name ccs-of-two-octets data-before data-inside dots-for-name empty-name-first
    five-numbers-for-name garbage-inside heartbeat-before hello-request-before hello-request-joined hex-for-name
    ipv6-zone-for-name long-session-id message-too-short no-compressions no-name-first-in-its-record nul-for-name
    octets-behind-extensions odd-ciphers other-name-begins-in-its-record other-name-behind-data
    other-name-behind-request other-name-in-its-record padded-in-odd-records proxy-1-before proxy-2-before
    record-too-long sni-circled-dot sni-dns-labels sni-name-cut sni-name-length-too-short sni-percent-dot sni-utf-16
    sslv2 star-for-name trailing-message two-alerts-in-a-record two-in-a-record unknown-message-before
"""
ALWAYS: Final = frozenset(_ALWAYS.split())
"""Attempts of which no one can say which host they are for."""
_STRICT: Final = """
    address-dot-for-name ech-alone ech-inner-type empty-extension empty-list empty-name ech-outer esni ipv4-for-name
    ipv6-for-name mapped-for-name no-extensions no-name
"""
STRICT: Final = frozenset(_STRICT.split())
"""Those that strict settings refuse for what they hide; their addresses decide about them otherwise."""
