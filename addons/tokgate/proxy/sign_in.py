"""The hooks in which users of an explicit proxy prove who they are, before it is decided what they may."""
# mypy: disallow-untyped-calls=False

import asyncio
from typing import TYPE_CHECKING, Final

from mitmproxy import ctx
from mitmproxy.addonmanager import Loader
from mitmproxy.http import HTTPFlow, Response
from mitmproxy.options import Options
from mitmproxy.proxy.layers.modes import Socks5AuthData

from tokgate.gate.doorkeeper import Answer, Door, Doorkeeper
from tokgate.policy.identity import Identity
from tokgate.proxy.visit import Visit
from tokgate.wire.credentials import Credentials, read_basic

if TYPE_CHECKING:
    from tokgate.proxy.traffic import Traffic

_STOCK: Final = "proxyauth"
"""mitmproxy's own option, and where its addon leaves name and password of a request."""
_ASKED: Final = b"tokgate: the proxy has to know who asks: name and password are missing or wrong.\n"
_CHALLENGE: Final = 'Basic realm="tokgate", charset="UTF-8"'


class SignIn:
    """An addon that stands before the traffic hooks. Where the policy does not ask, it takes mitmproxy's word."""

    name = "tokgate-sign-in"

    def __init__(self, traffic: "Traffic") -> None:
        """`traffic` knows the policy and the visits."""
        self._traffic: Final = traffic
        self._door: Final = Door()

    def load(self, loader: Loader) -> None:
        """Have the option by which mitmproxy's SOCKS layer knows that it has to ask; stock mitmproxy has it already."""
        if _STOCK not in ctx.options:
            loader.add_option(_STOCK, str, "", "Set by tokgate where its policy wants to know who asks.")

    async def http_connect(self, flow: HTTPFlow) -> None:
        """A client asks for a tunnel: who asks is who asks for everything in it."""
        await self._ask(flow)

    async def requestheaders(self, flow: HTTPFlow) -> None:
        """A request outside any tunnel: a proxy before this one may put those of several users on one connection."""
        if self._traffic.visits.of(flow.client_conn).connect is None:
            await self._ask(flow)

    async def socks5_auth(self, data: Socks5AuthData) -> None:
        """A client of SOCKS says who it is."""
        try:
            keeper = self._keeper()
            visit = self._traffic.visits.of(data.client_conn)
            if keeper is not None:
                answer = await self._verified(keeper, Credentials(data.username, data.password))
                data.valid = answer.identity is not None
                visit.sign(answer.identity)
            elif data.valid:
                visit.sign(Identity(user=data.username))
        except Exception as error:
            data.valid = False
            self._traffic.failed("proxy-auth", error)

    async def _ask(self, flow: HTTPFlow) -> None:
        if flow.response is not None or flow.error is not None:
            return
        visit = self._traffic.visits.of(flow.client_conn)
        told = flow.metadata.pop(_STOCK, None)
        if not visit.explicit:
            return
        try:
            keeper = self._keeper()
            if keeper is not None:
                await self._identify(flow, visit, keeper, told)
            elif told is not None:
                visit.sign(Identity(user=told[0]))
        except Exception as error:
            self._traffic.failed("proxy-auth", error)
            flow.kill()

    async def _identify(self, flow: HTTPFlow, visit: Visit, keeper: Doorkeeper, told: tuple[str, str] | None) -> None:
        said = flow.request.headers.pop("proxy-authorization", None)  # not for the destination's eyes
        if visit.vouched:
            return
        credentials = read_basic(said) or (None if told is None else Credentials(*told))
        answer = Answer(None) if credentials is None else await self._verified(keeper, credentials)
        visit.sign(answer.identity)
        if answer.identity is None:
            self._traffic.answer(flow, _unavailable() if answer.unavailable else _challenge())

    async def _verified(self, keeper: Doorkeeper, credentials: Credentials) -> Answer:
        answer = keeper.recall(credentials)
        if answer is None:
            answer = await asyncio.to_thread(keeper.verify, credentials)
        if answer.complaint is not None:
            self._traffic.failed("proxy-auth", answer.complaint)
        elif answer.identity is None and not answer.unavailable and self._traffic.enforcer is not None:
            self._traffic.enforcer.counters.wrong_passwords += 1
        return answer

    def _keeper(self) -> Doorkeeper | None:
        enforcer = self._traffic.enforcer
        return None if enforcer is None else self._door.keeper(enforcer.snapshot.settings.proxy_auth)


def ask_in_socks(options: Options, *, wanted: bool) -> None:
    """Have mitmproxy's SOCKS layer ask for name and password. Whether they are right is for `socks5_auth` to say."""
    if wanted and _STOCK in options and not getattr(options, _STOCK):
        options.update(**{_STOCK: "any"})


def _challenge() -> Response:
    kind = {"Content-Type": "text/plain; charset=utf-8", "Proxy-Authenticate": _CHALLENGE}
    return Response.make(407, _ASKED, kind)


def _unavailable() -> Response:
    return Response.make(503, b"", {"Retry-After": "10"})
