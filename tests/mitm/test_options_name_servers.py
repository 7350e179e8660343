"""Dns mode that would ask itself does not start."""

from collections.abc import Sequence

import mitmproxy_rs
import pytest
from mitmproxy import exceptions
from mitmproxy.addons import dns_resolver
from mitmproxy.addons.proxyserver import Proxyserver

from labs.addon_context import addon_context
from tokgate.mitm.options import check_name_servers


def check(modes: Sequence[str], servers: Sequence[str], host: str | None = None) -> None:
    """Check options as the addon finds them."""
    with addon_context(Proxyserver(), dns_resolver.DnsResolver()) as context:
        context.options.update(mode=list(modes), dns_name_servers=list(servers), listen_host=host or "")
        check_name_servers(context.options)


@pytest.mark.parametrize(
    ("modes", "servers", "host"),
    [
        (["dns@127.0.0.1:53"], ["127.0.0.1"], None),
        (["regular", "dns@192.0.2.53:53"], ["203.0.113.53", "192.0.2.53"], None),
        (["dns"], ["127.0.0.1"], None),
        (["dns"], ["::1"], "::"),
        (["dns@53"], ["127.0.0.1"], "127.0.0.1"),
    ],
)
def test_itself(modes: list[str], servers: list[str], host: str | None) -> None:
    """A resolver that is where dns mode listens would lead in a circle."""
    with pytest.raises(exceptions.OptionsError, match="itself"):
        check(modes, servers, host)


@pytest.mark.parametrize(
    ("modes", "servers"),
    [
        (["dns@127.0.0.1:53"], ["127.0.0.53"]),
        (["dns@127.0.0.1:5300"], ["127.0.0.1"]),
        (["dns"], ["203.0.113.53"]),
        (["regular"], ["127.0.0.1"]),
        ([], ["127.0.0.1"]),
    ],
)
def test_others(modes: list[str], servers: list[str]) -> None:
    """Other addresses, other ports and other modes are fine."""
    check(modes, servers)


@pytest.mark.parametrize("known", [True, False])
def test_the_system_s(monkeypatch: pytest.MonkeyPatch, known: bool) -> None:
    """Where none is named it is the system's that would be asked; there may be none."""

    def servers() -> list[str]:
        if not known:
            raise RuntimeError("no /etc/resolv.conf")
        return ["127.0.0.1"]

    monkeypatch.setattr(mitmproxy_rs.dns, "get_system_dns_servers", servers)
    if known:
        with pytest.raises(exceptions.OptionsError, match=r"127\.0\.0\.1"):
            check(["dns"], [])
    else:
        check(["dns"], [])


def test_without_a_resolver() -> None:
    """Where mitmproxy's resolver isn't loaded nobody asks."""
    with addon_context(Proxyserver()) as context:
        context.options.update(mode=["regular"])
        check_name_servers(context.options)
