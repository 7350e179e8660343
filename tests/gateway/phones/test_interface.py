"""The WireGuard interface of the gateway's side."""

import os
from dataclasses import replace

import pytest

from gateway.phones.test_tunnel import TUNNEL
from labs.netns import Namespace
from labs.requirements import needs
from tokgate.gateway import GatewayError
from tokgate.gateway.phones.interface import Interface


@needs("wg", "wireguard-go")
def test_half_an_interface_does_not_stay(namespace: Namespace) -> None:
    """Where the machine refuses an address of the tunnel, phones would connect to it and get nowhere."""
    interface = Interface(f"wg{os.getpid()}x")
    namespace.sysctl("net.ipv6.conf.default.disable_ipv6=1")

    def up() -> None:
        interface.up(replace(TUNNEL, interface=interface.name, port=51999), ())

    with pytest.raises(GatewayError, match=interface.name):
        namespace.inside(up)
    assert interface.name not in namespace.output("ip", "link")
