"""The two links between the gateway and the canary's namespaces: pairs of veth devices (veth(4)) and their addresses.

The gateway's ends are made by the supervisor, the far ends are configured by the canary's own process. All of it
vanishes with the namespaces, and these with the process that has them open.

Where no network namespace can be made, all addresses are on this machine, joined by loopback: what goes to the server
is delivered here by a policy rule and a routing table of its own. On its way it meets the rules of `prerouting` as a
client's packets do, and so it gets to a gate. But it comes by no link, is never forwarded, and keeps its route whatever
mark it is given.
"""

import socket
from collections.abc import Iterable
from typing import Any, Final

from tokgate.gateway import GatewayError
from tokgate.gateway.canary.definition import PORT, CanaryLink, client_link, server_link
from tokgate.gateway.policy_routes import versions
from tokgate.policy.settings import CanarySettings

CLIENT_DEVICE: Final = "tokgate-canary"
SERVER_DEVICE: Final = "tokgate-answers"
FAR_DEVICE: Final = "eth0"
FAMILY: Final = {4: socket.AF_INET, 6: socket.AF_INET6}
_NO_DAD: Final = 2  # IFA_F_NODAD, linux/if_addr.h
_PRIORITY: Final = 747
_TABLE: Final = 29810
"""The number of the routing table; any that no one else uses."""
_BITS: Final = {4: 32, 6: 128}


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


# -- without namespaces


def make_inside(settings: CanarySettings, versions: Iterable[int]) -> list[socket.socket]:
    """Addresses, routes and the server's listeners, one for a version of IP. Raises GatewayError, and leaves nothing.

    Where the process may not listen at port 443, at a free one: the table brings the canary's to gates by address.
    """
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    listeners: list[socket.socket] = []
    try:
        with IPRoute() as netlink:
            netlink.link("add", ifname=CLIENT_DEVICE, kind="veth", peer={"ifname": SERVER_DEVICE})
            for version in versions:
                link = client_link(settings, version)
                addresses = [(str(address), _BITS[version]) for address in (link.near, link.far)]
                configure(netlink, CLIENT_DEVICE, addresses)
                listeners.append(_listening(settings, version))
                _route(netlink, settings, version, listeners[-1].getsockname()[1])
    except (NetlinkError, OSError) as error:
        for each in listeners:
            each.close()
        take_out()
        raise GatewayError(str(error.args[1] if isinstance(error, NetlinkError) else error)) from error
    return listeners


def take_out() -> None:
    """Remove all of it, whatever is there, with the link of a canary that is elsewhere. Raises GatewayError."""
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        with IPRoute() as netlink:
            remove(netlink, CLIENT_DEVICE)  # its addresses and routes go with it
            for family in FAMILY.values():
                for rule in netlink.get_rules(family=family, table=_TABLE):
                    if rule.get("priority") == _PRIORITY:
                        netlink.rule("del", family=family, priority=_PRIORITY, table=_TABLE)
    except NetlinkError as error:
        raise GatewayError(f"the canary's routes: {error.args[1]}") from error


def _listening(settings: CanarySettings, version: int) -> socket.socket:
    """Transparent, since its address is not this machine's for the rules: what is goes to no gate."""
    made = socket.socket(FAMILY[version], socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one before may have left connections there
        made.setsockopt(socket.IPPROTO_IP, socket.IP_TRANSPARENT, 1)  # for IPv6 as well
        address = str(server_link(settings, version).far)
        try:
            made.bind((address, PORT))
        except OSError:  # it takes CAP_NET_BIND_SERVICE, or a web server has it
            made.bind((address, 0))
        made.listen()
    except OSError:
        made.close()
        raise
    return made


def _route(netlink: Any, settings: CanarySettings, version: int, port: int) -> None:
    """For this machine's own packets: no client reaches the server past a gate.

    By port as well: for `fib daddr type` of nftables, which knows none, the address is elsewhere.
    """
    family, server = FAMILY[version], str(server_link(settings, version).far)
    (index,) = netlink.link_lookup(ifname=CLIENT_DEVICE)
    source = str(client_link(settings, version).near)
    route = {"type": "local", "scope": "host", "oif": index, "table": _TABLE, "prefsrc": source}
    netlink.route("add", family=family, dst=f"{server}/{_BITS[version]}", **route)
    wanted = {"iifname": "lo", "dst": server, "dst_len": _BITS[version], "dport_range": f"{port}:{port}"}
    tcp = socket.IPPROTO_TCP
    netlink.rule("add", family=family, priority=_PRIORITY, table=_TABLE, ip_proto=tcp, **wanted)
