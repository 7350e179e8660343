"""The two links between the gateway and the canary's namespaces: pairs of veth devices (veth(4)) and their addresses.

The gateway's ends are made by the supervisor, the far ends are configured by the canary's own process. All of it
vanishes with the namespaces, and these with the process that has them open.
"""

import socket
from collections.abc import Iterable
from typing import Any, Final

from tokgate.gateway import GatewayError
from tokgate.gateway.canary.definition import CanaryLink
from tokgate.gateway.policy_routes import versions

CLIENT_DEVICE: Final = "tokgate-canary"
SERVER_DEVICE: Final = "tokgate-answers"
FAR_DEVICE: Final = "eth0"
FAMILY: Final = {4: socket.AF_INET, 6: socket.AF_INET6}
_NO_DAD: Final = 2  # IFA_F_NODAD, linux/if_addr.h


def make(device: str, pid: int, links: Iterable[CanaryLink]) -> None:
    """Make a pair: `device` here, its peer in the namespace of process `pid`. Raises GatewayError."""
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        with IPRoute() as netlink:
            remove(netlink, device)
            netlink.link("add", ifname=device, kind="veth", peer={"ifname": FAR_DEVICE, "net_ns_pid": pid})
            configure(netlink, device, ((str(link.near), link.length) for link in links))
    except NetlinkError as error:
        raise GatewayError(f"{device}: {error.args[1]}") from error


def conflicts(links: Iterable[CanaryLink]) -> list[str]:
    """The addresses of its links that something else on this machine has already."""
    from pyroute2 import IPRoute

    wanted = {str(address) for link in links for address in (link.near, link.far)}
    with IPRoute() as netlink:
        ours = {index for name in (CLIENT_DEVICE, SERVER_DEVICE) for index in netlink.link_lookup(ifname=name)}
        held = [each.get("address") for each in netlink.get_addr() if each["index"] not in ours]
    return [f"{address} is in use on this machine" for address in held if address in wanted]


def remove(netlink: Any, device: str) -> None:
    """Remove what an earlier canary has left, whose namespaces may still be going."""
    for index in netlink.link_lookup(ifname=device):
        netlink.link("del", index=index)


def configure_far(links: Iterable[CanaryLink]) -> None:
    """In the namespace of the far end: addresses, and routes by the gateway."""
    from pyroute2 import IPRoute

    with IPRoute() as netlink:
        held = list(links)
        for name in ("lo", FAR_DEVICE):
            netlink.link("set", index=netlink.link_lookup(ifname=name)[0], state="up")
        configure(netlink, FAR_DEVICE, ((str(link.far), link.length) for link in held))
        for link in held:
            netlink.route("add", dst="default", gateway=str(link.near), family=FAMILY[link.near.version])


def configure(netlink: Any, device: str, addresses: Iterable[tuple[str, int]]) -> None:
    """Give a device addresses, each with the length of its prefix, and bring it up."""
    (index,) = netlink.link_lookup(ifname=device)
    for address, length in addresses:
        flags = {"flags": _NO_DAD} if ":" in address else {}
        netlink.addr("add", index=index, address=address, prefixlen=length, **flags)
    netlink.link("set", index=index, state="up")


def usable() -> tuple[int, ...]:
    """The versions of IP over which it asks."""
    return versions()
