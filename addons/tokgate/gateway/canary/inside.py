"""The canary's addresses where no network namespace can be made: all of them on this machine, joined by loopback.

What goes to its server is delivered here by a policy rule and a routing table of its own. On its way it meets the rules
of `prerouting` as a client's packets do, and so it gets to a gate. But it comes by no link, is never forwarded, and
keeps its route whatever mark it is given.
"""

import socket
from collections.abc import Iterable
from typing import Any, Final

from tokgate.gateway import GatewayError
from tokgate.gateway.canary import links
from tokgate.gateway.canary.definition import client_link, server_link
from tokgate.gateway.canary.probe import PORT
from tokgate.policy.settings import CanarySettings

PRIORITY: Final = 747
TABLE: Final = 29810
"""The number of the routing table; any that no one else uses."""
_BITS: Final = {4: 32, 6: 128}


def make(settings: CanarySettings, versions: Iterable[int]) -> list[socket.socket]:
    """Addresses, routes and the server's listeners, one for a version of IP. Raises GatewayError, and leaves nothing.

    Where the process may not listen at port 443, at a free one: the table brings the canary's to gates by address.
    """
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    listeners: list[socket.socket] = []
    try:
        with IPRoute() as netlink:
            netlink.link("add", ifname=links.CLIENT_DEVICE, kind="veth", peer={"ifname": links.SERVER_DEVICE})
            for version in versions:
                link = client_link(settings, version)
                addresses = [(str(address), _BITS[version]) for address in (link.near, link.far)]
                links.configure(netlink, links.CLIENT_DEVICE, addresses)
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
            links.remove(netlink, links.CLIENT_DEVICE)  # its addresses and routes go with it
            for family in links.FAMILY.values():
                for rule in netlink.get_rules(family=family, table=TABLE):
                    if rule.get("priority") == PRIORITY:
                        netlink.rule("del", family=family, priority=PRIORITY, table=TABLE)
    except NetlinkError as error:
        raise GatewayError(f"the canary's routes: {error.args[1]}") from error


def _listening(settings: CanarySettings, version: int) -> socket.socket:
    """Transparent, since its address is not this machine's for the rules: what is goes to no gate."""
    made = socket.socket(links.FAMILY[version], socket.SOCK_STREAM)
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
    family, server = links.FAMILY[version], str(server_link(settings, version).far)
    (index,) = netlink.link_lookup(ifname=links.CLIENT_DEVICE)
    source = str(client_link(settings, version).near)
    route = {"type": "local", "scope": "host", "oif": index, "table": TABLE, "prefsrc": source}
    netlink.route("add", family=family, dst=f"{server}/{_BITS[version]}", **route)
    wanted = {"iifname": "lo", "dst": server, "dst_len": _BITS[version], "dport_range": f"{port}:{port}"}
    tcp = socket.IPPROTO_TCP
    netlink.rule("add", family=family, priority=PRIORITY, table=TABLE, ip_proto=tcp, **wanted)
