"""The two links between the gateway and the canary's namespaces: pairs of veth devices (veth(4)) and their addresses.

The gateway's ends are made by the supervisor, the far ends are configured by the canary's own process. All of it
vanishes with the namespaces, and these with the process that has them open.

Where no network namespace can be made, all addresses are on this machine, joined by loopback: what goes to the server
is delivered here by a policy rule and a routing table of its own. On its way it meets the rules of `prerouting` as a
client's packets do, and so it gets to a gate. But it comes by no link, is never forwarded, and keeps its route whatever
mark it is given.

From addresses of the policy's clients it asks as well, by the link alone. What is for those and comes from its server,
or from the gateway's end of its link, goes there by a policy rule; all else goes to whoever has the address.
"""

import errno
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from tokgate.gateway import GatewayError
from tokgate.gateway.canary.definition import PORT, CanaryLink, client_link, server_link
from tokgate.policy.settings import CanarySettings

CLIENT_DEVICE: Final = "tokgate-canary"
SERVER_DEVICE: Final = "tokgate-answers"
FAR_DEVICE: Final = "eth0"
FAMILY: Final = {4: socket.AF_INET, 6: socket.AF_INET6}
_SETTINGS: Final = Path("/proc/sys/net/ipv4/conf")
_NO_DAD: Final = 2  # IFA_F_NODAD, linux/if_addr.h
_PRIORITY: Final = 747
_TABLE: Final = 29810
"""The number of the routing table; any that no one else uses."""
_BACK_PRIORITY: Final = 748
_BACK: Final = 29811
"""The same for what goes back to it."""
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


def held(addresses: Iterable[str]) -> list[str]:
    """Which of these addresses this machine has, but for the canary's links."""
    from pyroute2 import IPRoute

    wanted = set(addresses)
    with IPRoute() as netlink:
        ours = {index for name in (CLIENT_DEVICE, SERVER_DEVICE) for index in netlink.link_lookup(ifname=name)}
        others = (each.get("address") for each in netlink.get_addr() if each["index"] not in ours)
        return [each for each in others if each in wanted]


def lead_back(settings: CanarySettings, versions: Iterable[int]) -> None:
    """Have what is for the canary among clients go to it by its link. Raises GatewayError."""
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        with IPRoute() as netlink:
            (index,) = netlink.link_lookup(ifname=CLIENT_DEVICE)
            for version in versions:
                family, link = FAMILY[version], client_link(settings, version)
                netlink.route("add", family=family, dst="default", gateway=str(link.far), oif=index, table=_BACK)
                for source in (server_link(settings, version).far, link.near):
                    rule = {"src": str(source), "src_len": _BITS[version], "priority": _BACK_PRIORITY, "table": _BACK}
                    netlink.rule("add", family=family, **rule)
        # Their own network is elsewhere: that a packet comes by here is no reason to drop it.
        (_SETTINGS / CLIENT_DEVICE / "rp_filter").write_text("2")
    except (NetlinkError, OSError) as error:
        raise GatewayError(f"the canary's way back: {error.args[1]}") from error


def remove(netlink: Any, device: str) -> None:
    """Remove what an earlier canary has left, whose namespaces may still be going, and take it with them meanwhile."""
    from pyroute2.netlink.exceptions import NetlinkError

    for index in netlink.link_lookup(ifname=device):
        try:
            netlink.link("del", index=index)
        except NetlinkError as error:
            if error.code != errno.ENODEV:
                raise


def configure_far(links: Iterable[CanaryLink], more: Iterable[str] = ()) -> None:
    """In the namespace of the far end: addresses, those of clients (`more`) as well, and routes by the gateway."""
    from pyroute2 import IPRoute

    with IPRoute() as netlink:
        held = list(links)
        for name in ("lo", FAR_DEVICE):
            netlink.link("set", index=netlink.link_lookup(ifname=name)[0], state="up")
        configure(netlink, FAR_DEVICE, ((str(link.far), link.length) for link in held))
        configure(netlink, FAR_DEVICE, ((each, _BITS[6 if ":" in each else 4]) for each in more))
        for link in held:
            netlink.route("add", dst="default", gateway=str(link.near), family=FAMILY[link.near.version])


def configure(netlink: Any, device: str, addresses: Iterable[tuple[str, int]]) -> None:
    """Give a device addresses, each with the length of its prefix, and bring it up."""
    (index,) = netlink.link_lookup(ifname=device)
    for address, length in addresses:
        flags = {"flags": _NO_DAD} if ":" in address else {}
        netlink.addr("add", index=index, address=address, prefixlen=length, **flags)
    netlink.link("set", index=index, state="up")


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
                for table, priority in ((_TABLE, _PRIORITY), (_BACK, _BACK_PRIORITY)):
                    for rule in netlink.get_rules(family=family, table=table):
                        if rule.get("priority") == priority:
                            netlink.rule("del", family=family, priority=priority, table=table)
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
