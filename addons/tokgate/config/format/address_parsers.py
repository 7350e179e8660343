"""Parsers of prefixes, addresses, ports and interfaces. Errors say what is allowed.

All raise PydanticCustomError with a `Code` as its type, so that the models can use them as validators.
"""

import re
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, Final
from urllib.parse import urlsplit

from tokgate.config.diagnostics import Code
from tokgate.config.format.parsers import one_line, shown, text, wrong
from tokgate.config.yaml import suggestions
from tokgate.config.yaml.suggestions import listed
from tokgate.policy.settings import Destination, PortRange, UpstreamKind
from tokgate.policy.values.hostname import DomainName, IPAddress, normalise, parse_address
from tokgate.policy.values.prefixes import NAT64_LENGTHS, IPNetwork

_PORTS: Final = re.compile("([1-9][0-9]{0,4})(?:-([1-9][0-9]{0,4}))?")
_LAST_PORT: Final = 65_535
_MAPPED: Final = 96
"""Bits in front of an IPv4 address in IPv6 (RFC 4291 §2.5.5.2)."""
_LONGEST_INTERFACE: Final = 15
"""Octets: Linux's IFNAMSIZ without its end."""


def cidr(value: Any) -> IPNetwork:
    """An IPv4 or IPv6 prefix without host bits; an address is a host prefix."""
    written = text(value)
    try:
        network = ip_network(written, strict=False)
    except ValueError:
        raise wrong(Code.BAD_CIDR, f"{shown(written)} is no network{suggestions.prefix(written)}") from None
    if isinstance(network, IPv6Network):
        if "%" in written:
            raise wrong(Code.BAD_CIDR, f"`{written}` has an interface: leave out what follows the `%`")
        mapped = network.network_address.ipv4_mapped
        if mapped is not None and network.prefixlen >= _MAPPED:
            meant = ip_network((mapped, network.prefixlen - 96))
            raise wrong(Code.BAD_CIDR, f"`{written}` is IPv4 in IPv6, which is read as IPv4: write `{meant}`")
    try:
        return ip_network(written)
    except ValueError:
        raise wrong(Code.HOST_BITS, f"`{written}` has host bits set; the network is `{network}`") from None


def excepted(value: Any) -> IPNetwork | str:
    """A prefix, or the name of a network: what reads as an address, or has a `/` or a `:`, is none."""
    written = text(value)
    return cidr(written) if parse_address(written) is not None or set("/:") & set(written) else written


def nat64_prefix(value: Any) -> IPv6Network:
    """A prefix behind which a translator puts IPv4 addresses."""
    prefix = cidr(value)
    if not isinstance(prefix, IPv6Network) or prefix.prefixlen not in NAT64_LENGTHS:
        lengths = listed([f"/{length}" for length in NAT64_LENGTHS])
        raise wrong(Code.BAD_CIDR, f"`{prefix}` is no prefix for NAT64: an IPv6 prefix of {lengths} (RFC 6052)")
    return prefix


_CANARY_ADDRESSES: Final = 8
"""Its two links have four addresses each."""


def canary_ipv4(value: Any) -> IPv4Network:
    """A prefix of at least 8 IPv4 addresses."""
    prefix = cidr(value)
    if isinstance(prefix, IPv4Network) and prefix.num_addresses >= _CANARY_ADDRESSES:
        return prefix
    raise _too_small(prefix, "IPv4", "10.99.99.0/29")


def canary_ipv6(value: Any) -> IPv6Network:
    """A prefix of at least 8 IPv6 addresses."""
    prefix = cidr(value)
    if isinstance(prefix, IPv6Network) and prefix.num_addresses >= _CANARY_ADDRESSES:
        return prefix
    raise _too_small(prefix, "IPv6", "fd00:99::/64")


def _too_small(prefix: IPNetwork, version: str, example: str) -> Exception:
    least = f"an {version} prefix of at least {_CANARY_ADDRESSES} addresses"
    return wrong(Code.BAD_CIDR, f"`{prefix}` is not {least}, such as `{example}`")


def address(value: Any) -> IPAddress:
    """An IPv4 or IPv6 address of one client."""
    written = text(value)
    parsed = parse_address(written)
    if parsed is None:
        raise wrong(Code.BAD_CIDR, f"{shown(written)} is no address; write it as `10.32.1.1` or `2001:db8:32::1`")
    return parsed


def ports(value: Any) -> PortRange:
    """A TCP port, or a range of them with both ends included."""
    written = text(value)
    found = _PORTS.fullmatch(written)
    first, last = (0, 0) if found is None else (int(found[1]), int(found[2] or found[1]))
    if not 1 <= first <= last <= _LAST_PORT:
        raise wrong(Code.BAD_VALUE, f"must be a port from 1 to 65535, or a range as `8000-8010`, not {shown(written)}")
    return PortRange(first, last)


def interface(value: Any) -> str:
    """The name of a network interface, as Linux allows it (dev_valid_name)."""
    written = text(value)
    if len(written.encode()) > _LONGEST_INTERFACE or written in (".", "..") or re.search(r"[\s/:*?]", written):
        raise wrong(Code.BAD_VALUE, f"{shown(written)} is no interface; write its whole name as `eth1` or `eth0.20`")
    return written


def parent_proxy(value: Any) -> tuple[UpstreamKind, str, int]:
    """The URL of a parent proxy: scheme, host and port."""
    written = one_line(value)
    try:
        url = urlsplit(written)
        port, whole = url.port, written == f"{url.scheme}://{url.netloc}" and "@" not in url.netloc
    except ValueError:
        url, port, whole = urlsplit(""), None, False
    if url.scheme not in list(UpstreamKind) or not url.hostname or not port or not whole:
        more = "; credentials stand in a file (`credentials`)" if "@" in written else ""
        message = "write a parent proxy as `http://proxy.example.org:3128` or `socks5://proxy.example.org:1080`"
        raise wrong(Code.BAD_VALUE, f"{message}{more}")
    return UpstreamKind(url.scheme), url.hostname, port


def destination(value: Any) -> Destination:
    """A prefix or an address, or a name, which stands for those below it as well."""
    written = text(value)
    if re.fullmatch(r"[0-9.]+(/[0-9]+)?|[0-9a-fA-F:.]*:[0-9a-fA-F:.]*(/[0-9]+)?", written):
        return cidr(written)
    name = normalise(written.removeprefix("*.").removeprefix("."))
    if not isinstance(name, DomainName):
        raise wrong(Code.BAD_VALUE, f"{shown(written)} is neither a prefix nor a host name")
    return str(name)
