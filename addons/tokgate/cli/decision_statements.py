"""The statements of a network that match a client, in words."""

from collections.abc import Collection, Iterator

from tokgate.policy.membership import Identity, folded
from tokgate.policy.networks import Device, Network, hardware_address
from tokgate.policy.values import Origin
from tokgate.policy.values.hostname import IPAddress


def statements(
    network: Network, address: IPAddress | None, identity: Identity | None, held: Collection[str]
) -> Iterator[str]:
    """The statements that match, the most specific first; `held` are the networks of the client."""
    who = identity or Identity()
    for device in network.devices:
        how = _known_by(device, address, who)
        if how is not None:
            yield f"{_described(device)} by {how}{place(device.origin)}"
    if who.user is not None and folded(who.user) in map(folded, network.users):
        yield f"the user {who.user}"
    prefixes = [prefix for prefix in network.cidrs if address is not None and address in prefix]
    if prefixes:
        yield str(max(prefixes, key=lambda prefix: prefix.prefixlen))
    theirs = set(map(folded, who.groups))
    yield from (f"the group {group}" for group in network.groups if folded(group) in theirs)
    if who.interface in network.interfaces:
        yield f"the interface {who.interface}"
    for member in network.members:
        if member.name in held:
            yield f"its network {member.name}"


def exceptions(
    network: Network, address: IPAddress | None, identity: Identity | None, held: Collection[str]
) -> Iterator[str]:
    """The exceptions that keep a client out of a network that lists it, in words."""
    excepted = [prefix for prefix in network.except_cidrs if address is not None and address in prefix]
    out = [*map(str, excepted), *(name for name in network.except_networks if name in held)]
    if out and any(statements(network, address, identity, held)):
        yield from out


def _known_by(device: Device, address: IPAddress | None, who: Identity) -> str | None:
    """The attributes of the client that match the device."""
    if address is not None and any(address == prefix.network_address for prefix in device.addresses):
        return str(address)
    if who.device is None:
        return None
    hardware = hardware_address(who.device)
    if hardware is not None and hardware in device.hardware:
        return hardware
    return "its name" if device.name is not None and folded(device.name) == folded(who.device) else None


def _described(device: Device) -> str:
    of = f" of {device.owner}" if device.owner else ""
    paid = f", paid for by {' and '.join(device.paid_by)}," if device.paid_by else ""
    return f"the device {device}{of}{paid}"


def place(origin: Origin | None) -> str:
    """Where in the files something is stated, in brackets behind a space; empty if nowhere."""
    return "" if origin is None else f" [{origin.file}:{origin.line}]"
