"""Notifications of the kernel about changes that anybody makes: of nftables, policy rules and routes (netlink(7))."""

import socket
from typing import Final

_NETFILTER: Final = 12  # NETLINK_NETFILTER, linux/netlink.h
_NFTABLES: Final = 1 << 7 - 1  # NFNLGRP_NFTABLES, linux/netfilter/nfnetlink.h
_ROUTING: Final = 1 << 7 - 1 | 1 << 8 - 1 | 1 << 11 - 1 | 1 << 19 - 1
"""RTNLGRP_IPV4_ROUTE, IPV4_RULE, IPV6_ROUTE and IPV6_RULE, linux/rtnetlink.h."""


class Notifications:
    """Sockets that become readable when something was changed. What was is not read: the state itself is compared."""

    def __init__(self) -> None:
        """Raises OSError."""
        groups = ((_NETFILTER, _NFTABLES), (socket.NETLINK_ROUTE, _ROUTING))
        self.sockets: Final = [_subscribed(protocol, group) for protocol, group in groups]

    def drain(self) -> bool:
        """Discard what has come; whether anything has."""
        found = False
        for each in self.sockets:
            try:
                while each.recv(1 << 16):
                    found = True
            except BlockingIOError:
                pass
            except OSError:  # more than its buffer takes: that has come, too
                found = True
        return found

    def close(self) -> None:
        for each in self.sockets:
            each.close()


def _subscribed(protocol: int, groups: int) -> socket.socket:
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, protocol)
    made.bind((0, groups))
    return made
