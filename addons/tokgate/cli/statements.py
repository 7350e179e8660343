"""Through which of its statements a network holds a client, in words."""

from collections.abc import Iterator

from tokgate.policy.devices import Device, hardware_address
from tokgate.policy.identity import Identity, folded
from tokgate.policy.names import IPAddress
from tokgate.policy.networks import Network
from tokgate.policy.origin import Origin


def statements(network: Network, address: IPAddress | None, identity: Identity | None) -> Iterator[str]:
    """All that name the client, those that come nearest to it first."""
    who = identity or Identity()
    for device in network.devices:
        how = _known_by(device, address, who)
        if how is not None:
            yield f"{_described(device)} by {how}{_at(device.origin)}"
    if who.user is not None and folded(who.user) in map(folded, network.users):
        yield f"the user {who.user}"
    prefixes = [prefix for prefix in network.cidrs if address is not None and address in prefix]
    if prefixes:
        yield str(max(prefixes, key=lambda prefix: prefix.prefixlen))
    theirs = set(map(folded, who.groups))
    yield from (f"the group {group}" for group in network.groups if folded(group) in theirs)
    if who.interface in network.interfaces:
        yield f"the interface {who.interface}"


def _known_by(device: Device, address: IPAddress | None, who: Identity) -> str | None:
    """What of the client is the device's."""
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


def _at(origin: Origin | None) -> str:
    return "" if origin is None else f" [{origin.file}:{origin.line}]"
