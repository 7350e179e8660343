"""The resolvers that are asked where clients ask us: none of them may be us."""
# mypy: disallow-untyped-calls=False

import ipaddress
from collections.abc import Sequence

import mitmproxy_rs
from mitmproxy import exceptions
from mitmproxy.options import Options
from mitmproxy.proxy.mode_specs import DnsMode, ProxyMode

_PORT = 53


def check_name_servers(options: Options) -> None:
    """Raises OptionsError if dns mode would ask itself, and so itself again, without end."""
    if "dns_name_servers" not in options:
        return
    for mode in map(ProxyMode.parse, options.mode):
        if not isinstance(mode, DnsMode) or mode.listen_port(options.listen_port) != _PORT:
            continue
        host = mode.listen_host(options.listen_host)
        for server in options.dns_name_servers or _system_name_servers():
            if _reaches(server, host):
                raise exceptions.OptionsError(
                    f"dns mode listens on {host or 'all addresses'}, port 53, and would ask {server}, which is itself: "
                    f"name another resolver (tokgate run --name-server, mitmproxy's dns_name_servers)"
                )


def _system_name_servers() -> Sequence[str]:
    try:
        return mitmproxy_rs.dns.get_system_dns_servers()
    except RuntimeError:  # there are none, which is said when one is needed
        return ()


def _reaches(server: str, host: str) -> bool:
    """Whether what is sent to `server` arrives where `host` listens."""
    address = ipaddress.ip_address(server)
    if host in ("", "0.0.0.0", "::"):
        return address.is_loopback or address.is_unspecified
    return host == str(address)
