"""What the hooks of one proxy share, and what becomes of traffic when a hook fails."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any, Final

from mitmproxy.proxy.server import ConnectionHandler
from whenever import Instant

from tokgate.mitm.client_connection import ClientConnection, ClientConnections
from tokgate.mitm.gate_mode import GateInstance
from tokgate.mitm.hooks.warnings import Warnings
from tokgate.mitm.layers.egress import Egress
from tokgate.mitm.layers.fair_turns import Turns
from tokgate.mitm.origin_certificate import OriginCertificates
from tokgate.policy.observation import Stage
from tokgate.policy.settings import OnError
from tokgate.policy.snapshot import Snapshot
from tokgate.traffic.admission import admit
from tokgate.traffic.enforcer import Enforcer
from tokgate.traffic.exception_requests import RequestFolder
from tokgate.traffic.live_review import Cut

UNCONFIGURED: Final = "tokgate has no policy: nothing passes"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyContext:
    """The state of the proxy that the hooks run in."""

    connections: Callable[[], Mapping[Any, ConnectionHandler]] = dict
    """The connections that mitmproxy serves, by the client's id."""
    listens_at: Callable[[], frozenset[int]] = frozenset
    """The ports on which clients connect."""
    hostname: str = "localhost"


class Traffic:
    """The state that the hooks of one proxy share. Without an enforcer nothing passes."""

    def __init__(self) -> None:
        """`enforcer` and `context` are set once the options are known."""
        self._enforcer: Enforcer | None = None
        self.context = ProxyContext()
        self.connections: Final = ClientConnections()
        self.turns: Final = Turns()
        GateInstance.turns = self.turns
        self.warnings: Final = Warnings()
        self.requests: RequestFolder | None = None
        """Where people's requests for exceptions are kept; without it nobody can ask."""
        self.egress: Final = Egress(lambda: None if self._enforcer is None else self._enforcer.snapshot)
        self.certificates = OriginCertificates(connect=self.egress.connect)
        self.own: Final[set[tuple[Any, Any]]] = set()
        """Both `ends` of each connection to a destination. Our end alone may be a client's as well."""

    @property
    def is_configured(self) -> bool:
        """Whether a policy was loaded; without one nothing passes."""
        return self._enforcer is not None

    @property
    def enforcer(self) -> Enforcer:
        """The enforcer of the policy. Raises RuntimeError before one was loaded."""
        if self._enforcer is None:
            raise RuntimeError(UNCONFIGURED)
        return self._enforcer

    @enforcer.setter
    def enforcer(self, enforcer: Enforcer | None) -> None:
        self._enforcer = enforcer
        self.connections.budgets.counters = None if enforcer is None else enforcer.counters

    @property
    def is_strict(self) -> bool:
        """Whether what can't be decided is refused."""
        return not self.is_configured or self.enforcer.snapshot.settings.on_error is OnError.BLOCK

    def failed(self, where: str, error: Exception) -> None:
        """Count and log an exception that a hook raised."""
        if self.is_configured:
            self.enforcer.failed(where, error)

    def is_own(self, near: Any, far: Any) -> bool:
        """Whether a client's connection is one of this proxy's own that was led back to it; counted as a loop if so."""
        if ends(near, far) not in self.own:
            return False
        self.enforcer.counters.loops += 1
        return True

    # What LiveReview asks of a carrier.

    def open_now(self) -> tuple[ClientConnection, ...]:
        return self.connections.all()

    def judge(self, one: ClientConnection, snapshot: Snapshot, at: Instant) -> Cut | None:
        """Whether the connection, or a request that lasts, would be refused now.

        One that was opened to show a page is let through on nothing, and so goes on.
        """
        connection = () if one.passing is None else (one.passing,)
        for passing in (*connection, *one.requests.values()):
            admission = admit(self.enforcer, passing.arrival, passing.seen)
            if admission.ruling.blocks:
                seen = replace(admission.observe(), stage=Stage.LIVE, opened=one.opened, carried=one.sockets.octets())
                return admission.ruling, seen
        return None

    def cut(self, one: ClientConnection) -> None:
        one.cut()


def ends(near: Any, far: Any) -> tuple[Any, Any]:
    """Both ends of a connection, without what IPv6 adds to an address and a port."""
    return near and near[:2], far and far[:2]


class Hooks:
    """An addon whose hooks share one `Traffic`, and end in a fallback if they raise."""

    def __init__(self, traffic: Traffic) -> None:
        self._traffic: Final = traffic


def ends_in[H: Hooks, D](
    fallback: Callable[[Traffic, D], None],
) -> Callable[[Callable[[H, D], None]], Callable[[H, D], None]]:
    """Wrap a hook so that what it raises is counted, logged, and answered by `fallback`.

    mitmproxy logs what a hook raises and goes on as if there had been no hook: traffic would pass undecided.
    """

    def wrap(hook: Callable[[H, D], None]) -> Callable[[H, D], None]:
        @wraps(hook)
        def call(self: H, data: D) -> None:
            try:
                hook(self, data)
            except Exception as error:
                self._traffic.failed(hook.__name__, error)
                fallback(self._traffic, data)

        return call

    return wrap


def nothing(_: Traffic, __: Any) -> None:
    """The fallback of hooks in which nothing passes or is refused."""
