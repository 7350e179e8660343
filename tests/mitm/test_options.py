"""The options that tokgate sets or refuses: whom origins are verified against, and name servers that are itself."""

import contextlib
import ssl
from collections.abc import Sequence
from types import SimpleNamespace

import mitmproxy_rs
import pytest
from mitmproxy import exceptions
from mitmproxy.addons import dns_resolver
from mitmproxy.addons.proxyserver import Proxyserver

from labs.addon_context import addon_context
from labs.proxy_lab import ALLOWED, Lab, client
from tokgate.mitm.options import authorities, check_name_servers, require


def test_the_system_s_authorities(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the system's store, unless the user names others; where there is no store, mitmproxy's own."""
    store = ssl.get_default_verify_paths()
    for given in ("/srv/private.pem", None):
        with addon_context(Proxyserver()) as context:
            if given is not None:
                context.options.update(ssl_verify_upstream_trusted_ca=given)
            require(context.options)
            assert context.options.ssl_verify_upstream_trusted_ca == (given or store.cafile)
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: SimpleNamespace(cafile=None, capath=None))
    assert authorities() == {}


@pytest.mark.parametrize("named", [True, False])
async def test_a_private_authority(lab: Lab, named: bool) -> None:
    """Where SSL_CERT_FILE names it an opened connection reaches its servers, and else not."""
    if named:
        lab.monkeypatch.setenv("SSL_CERT_FILE", str(lab.authority.trust))
    origin = await lab.web_origin()
    trusted = authorities().get("ssl_verify_upstream_trusted_ca")
    proxy = await lab.proxy(ssl_verify_upstream_trusted_ca=trusted)
    async with client(proxy.port) as guest:
        head = f"GET https://{ALLOWED}:{origin.port}/ HTTP/1.1\r\nHost: {ALLOWED}:{origin.port}\r\n\r\n"
        await guest.send(head.encode())
        assert (await guest.response()).status == (200 if named else 502)


def check(modes: Sequence[str], servers: Sequence[str], host: str | None = None) -> None:
    """Check options as the addon finds them."""
    with addon_context(Proxyserver(), dns_resolver.DnsResolver()) as context:
        context.options.update(mode=list(modes), dns_name_servers=list(servers), listen_host=host or "")
        check_name_servers(context.options)


@pytest.mark.parametrize(
    ("modes", "servers", "host", "itself"),
    [
        (["dns@127.0.0.1:53"], ["127.0.0.1"], None, True),
        (["regular", "dns@192.0.2.53:53"], ["203.0.113.53", "192.0.2.53"], None, True),
        (["dns"], ["127.0.0.1"], None, True),
        (["dns"], ["::1"], "::", True),
        (["dns@53"], ["127.0.0.1"], "127.0.0.1", True),
        (["dns@127.0.0.1:53"], ["127.0.0.53"], None, False),
        (["dns@127.0.0.1:5300"], ["127.0.0.1"], None, False),
        (["dns"], ["203.0.113.53"], None, False),
        (["regular"], ["127.0.0.1"], None, False),
        ([], ["127.0.0.1"], None, False),
    ],
)
def test_itself(modes: list[str], servers: list[str], host: str | None, itself: bool) -> None:
    """A resolver that is where dns mode listens would lead in a circle; other addresses, ports and modes are fine."""
    with pytest.raises(exceptions.OptionsError, match="itself") if itself else contextlib.nullcontext():
        check(modes, servers, host)


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
