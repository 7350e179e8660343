"""An attempt to get round a ban, whoever makes it and through whatever carries it."""

from dataclasses import KW_ONLY, dataclass
from enum import StrEnum

from tokgate.evasion.limits import Limit
from tokgate.evasion.stream import Play


class Family(StrEnum):
    """The part of a connection that an attempt changes; each family is a module of `tokgate.evasion.families`."""

    TLS_RECORDS = "tls-records"
    TWO_HELLOS = "two-hellos"
    SERVER_NAMES = "server-names"
    HIDDEN_NAMES = "hidden-names"
    HTTP_HEADS = "http-heads"
    HTTP_HOSTS = "http-hosts"
    HTTP_BODIES = "http-bodies"
    HTTP2_FRAMES = "http2-frames"
    PROXY_REQUESTS = "proxy-requests"
    SOCKS_REQUESTS = "socks-requests"
    SEGMENTS = "segments"


class Opens(StrEnum):
    """The server at the other end of the attempt's stream when `play` is called."""

    TLS = "tls"
    """The target's port for TLS, redirected or in a tunnel."""
    HTTP = "http"
    """The target's port for plain HTTP, redirected or in a tunnel."""
    PROXY = "proxy"
    """An explicit HTTP proxy's own port, to ask it for a tunnel to the target's port for TLS."""
    URL = "url"
    """The same port, to ask for a page of the target's port for plain HTTP."""
    SOCKS = "socks"
    """A SOCKS proxy's own port."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One row of what a client can try. `limit`: it is known to pass with default settings, and why."""

    id: str
    what: str
    """A line for people."""
    play: Play
    _: KW_ONLY
    family: Family
    opens: Opens
    limit: Limit | None = None
    innocent: bool = False
    """Ordinary clients do this, too: with an allowed name it must be served."""
    is_http2: bool = False
    """What comes first is no answer yet: that is waited for as long as what comes first is elsewhere."""

    @property
    def is_tls(self) -> bool:
        """Whether it leads to the target's port for TLS, and not to the one for plain HTTP."""
        return self.opens in (Opens.TLS, Opens.PROXY, Opens.SOCKS)
