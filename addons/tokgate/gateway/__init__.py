"""The kernel's part of a gateway: nftables."""


class GatewayError(Exception):
    """The kernel's part can't be set up or read. The text says why and what helps; it may have several lines."""
