"""The hooks that authenticate users of an explicit proxy, before their requests are decided."""
# mypy: disallow-untyped-calls=False

import asyncio
from typing import Final

from mitmproxy import ctx
from mitmproxy.addonmanager import Loader
from mitmproxy.http import HTTPFlow, Response
from mitmproxy.options import Options
from mitmproxy.proxy.layers.modes import Socks5AuthData

from tokgate.accounts.auth_cache import AuthCache, AuthResult, CurrentAuthCache
from tokgate.mitm.hooks.http import answer
from tokgate.mitm.hooks.traffic import Traffic
from tokgate.traffic.refusal_texts import CHALLENGE, SIGN_IN_WORDS
from tokgate.wire.proxy_request import Credentials, read_basic

_CHALLENGE: Final = {"Content-Type": "text/plain; charset=utf-8", "Proxy-Authenticate": CHALLENGE}
_STOCK: Final = "proxyauth"
"""mitmproxy's option, and the metadata key of a request's name and password."""


class ProxyAuthHooks:
    """An addon before the hooks that decide. Where the policy names no accounts, nobody is asked here."""

    name = "tokgate-proxy-auth"

    def __init__(self, traffic: Traffic) -> None:
        self._traffic: Final = traffic
        self._current: Final = CurrentAuthCache()

    def load(self, loader: Loader) -> None:
        """Add the option that makes mitmproxy's SOCKS layer ask for a password, unless mitmproxy has it."""
        if _STOCK not in ctx.options:
            loader.add_option(_STOCK, str, "", "Set by tokgate where its policy wants to know who asks.")

    async def http_connect(self, flow: HTTPFlow) -> None:
        """Authenticate a CONNECT request, and with it all requests in its tunnel."""
        await self._ask(flow)

    async def requestheaders(self, flow: HTTPFlow) -> None:
        """Authenticate a request outside of tunnels: a proxy in front may share a connection between users."""
        if self._traffic.connections.of(flow.client_conn).connect is None:
            await self._ask(flow)

    async def socks5_auth(self, data: Socks5AuthData) -> None:
        """Username/password authentication of SOCKS 5 (RFC 1929)."""
        try:
            cache = self._cache()
            connection = self._traffic.connections.of(data.client_conn)
            if cache is not None:
                result = await self._verified(cache, Credentials(data.username, data.password))
                data.valid = result.identity is not None
                connection.sign(result.identity)
        except Exception as error:
            data.valid = False
            self._traffic.failed("proxy-auth", error)

    async def _ask(self, flow: HTTPFlow) -> None:
        if flow.response is not None or flow.error is not None:
            return
        connection = self._traffic.connections.of(flow.client_conn)
        told: tuple[str, str] | None = flow.metadata.pop(_STOCK, None)  # mitmproxy's addon has taken the field away
        try:
            cache = self._cache()
            if cache is None or not connection.explicit:
                return
            said = flow.request.headers.pop("proxy-authorization", None)  # not to be forwarded
            if connection.vouched:
                return
            credentials = read_basic(said) or (None if told is None else Credentials(*told))
            result = AuthResult(None) if credentials is None else await self._verified(cache, credentials)
            connection.sign(result.identity)
            if result.identity is None:
                away, asked = (503, b"", {"Retry-After": "10"}), (407, f"tokgate: {SIGN_IN_WORDS}\n", _CHALLENGE)
                answer(flow, connection, Response.make(*(away if result.unavailable else asked)))
        except Exception as error:
            self._traffic.failed("proxy-auth", error)
            flow.kill()

    async def _verified(self, cache: AuthCache, credentials: Credentials) -> AuthResult:
        result = cache.recall(credentials)
        if result is None:
            result = await asyncio.to_thread(cache.verify, credentials)
        if result.complaint is not None:
            self._traffic.failed("proxy-auth", result.complaint)
        elif result.identity is None and not result.unavailable and self._traffic.is_configured:
            self._traffic.enforcer.counters.wrong_passwords += 1
        return result

    def _cache(self) -> AuthCache | None:
        if not self._traffic.is_configured:
            return None
        return self._current.of(self._traffic.enforcer.snapshot.settings.proxy_auth)


def ask_in_socks(options: Options, *, wanted: bool) -> None:
    """Have mitmproxy's SOCKS layer ask for name and password, which `socks5_auth` then checks."""
    if wanted and _STOCK in options and not getattr(options, _STOCK):
        options.update(**{_STOCK: "any"})
