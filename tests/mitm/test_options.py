"""The options that tokgate sets for itself: against whom the certificates of origins are verified."""

import ssl
from types import SimpleNamespace

import pytest
from mitmproxy.addons.proxyserver import Proxyserver

from labs.addon_context import addon_context
from labs.proxy_lab import ALLOWED, Lab, client
from tokgate.mitm.options import authorities, require


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
