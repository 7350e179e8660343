"""The mitmproxy options that a filter needs: those it sets, and those it refuses."""
# mypy: disallow-untyped-calls=False

import ipaddress
import itertools
import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import mitmproxy_rs
from mitmproxy import exceptions
from mitmproxy.options import Options
from mitmproxy.proxy.mode_specs import DnsMode, ProxyMode

DNS_PORT: Final = 53

REQUIRED: Final[Mapping[str, object]] = {
    "connection_strategy": "lazy",  # eager connects upstream before the name is known
    "block_global": False,  # clients are restricted by policy and firewall; some have public addresses
    "show_ignored_hosts": False,  # keeps all that passes in memory
    "store_streamed_bodies": False,
    "validate_inbound_headers": True,  # off, it allows request smuggling past the decision
    "upstream_cert": False,  # certificates for pages are made without asking the origin
    "ignore_hosts": [],  # both would let names pass before they are decided about
    "allow_hosts": [],
    "onboarding": False,
}
"""Set as they stand here, with a warning where the user had said something else."""

DEFAULTS: Final[Mapping[str, object]] = {
    "stream_large_bodies": "1m",
    "flow_detail": 0,
    "tcp_timeout": 7440,  # RFC 5382 §5: whoever stands between must not end idle connections before 2 hours 4 minutes
}
"""Set unless the user has said something else."""

FORBIDDEN: Final = ("emudhra", "emudhra_old")
"""They sign with a key that is public: anyone could forge what our clients would trust."""


def authorities() -> Mapping[str, str]:
    """The authorities that origins are verified against: the system's, private ones among them.

    OpenSSL's variables SSL_CERT_FILE and SSL_CERT_DIR name others. Empty where there are none: mitmproxy has a list.
    """
    store = ssl.get_default_verify_paths()
    if store.cafile is not None:
        return {"ssl_verify_upstream_trusted_ca": store.cafile}
    if store.capath is not None and any(Path(store.capath).glob("*.0")):
        return {"ssl_verify_upstream_trusted_confdir": store.capath}
    return {}


def refuse_forbidden(options: Options) -> None:
    """Raises OptionsError if an option is set that no filter may run with."""
    for name in FORBIDDEN:
        if name in options and getattr(options, name):
            raise exceptions.OptionsError(f"tokgate does not run with {name}: it signs with a compromised key")


def require(options: Options) -> list[str]:
    """Set what is required; the names of options that had been given another value than their default."""
    known = {name: value for name, value in REQUIRED.items() if name in options and getattr(options, name) != value}
    overruled = [name for name in known if options.has_changed(name)]
    defaults = {n: v for n, v in {**DEFAULTS, **authorities()}.items() if n in options and not options.has_changed(n)}
    wanted = known | {name: value for name, value in defaults.items() if getattr(options, name) != value}
    if wanted:
        options.update(**wanted)
    return overruled


def check_name_servers(options: Options) -> None:
    """Raises OptionsError if dns mode would ask itself, and so itself again, without end."""
    if "dns_name_servers" not in options:
        return
    modes = (mode for mode in map(ProxyMode.parse, options.mode) if isinstance(mode, DnsMode))
    hosts = [m.listen_host(options.listen_host) for m in modes if m.listen_port(options.listen_port) == DNS_PORT]
    for host, server in itertools.product(hosts, name_servers(options) if hosts else ()):
        address = ipaddress.ip_address(server)
        on_all = host in ("", "0.0.0.0", "::")
        if address.is_loopback or address.is_unspecified if on_all else host == str(address):
            raise exceptions.OptionsError(
                f"dns mode listens on {host or 'all addresses'}, port 53, and would ask {server}, which is itself: "
                f"name another resolver (tokgate run --name-server, mitmproxy's dns_name_servers)"
            )


def name_servers(options: Options) -> Sequence[str]:
    """The addresses of the resolvers that DNS modes ask, in order: those that are named, else the system's."""
    if "dns_name_servers" in options and options.dns_name_servers:
        return list(options.dns_name_servers)
    try:
        return mitmproxy_rs.dns.get_system_dns_servers()
    except RuntimeError:  # there are none, which is said when one is needed
        return ()
