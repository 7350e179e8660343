"""What the table lets pass as unread: none of the real servers takes it for a request of the banned name."""

from collections.abc import Iterator

import pytest

from evasion.python_server import BANNED_PAGE
from evasion.servers import BANNED, Server, Servers, running_servers
from tokgate.evasion.attempt import Limit, Result, ServerReply, Target
from tokgate.evasion.families import ATTEMPTS
from tokgate.evasion.trial import AttemptRoute, Carriage, make

REAL = [server for server in Server if server not in (Server.RECORDER, Server.NAMELESS) and not server.missing]

UNREAD = {
    is_tls: [a.id for a in ATTEMPTS.values() if a.limit is Limit.OTHER_BYTES and a.is_tls is is_tls]
    for is_tls in (True, False)
}


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Real servers, without anything in front of them."""
    with running_servers(tmp_path_factory.mktemp("unread")) as running:
        yield running


def asked(servers: Servers, server: Server, attempt: str, *, tls: bool) -> ServerReply:
    """What a server answers to an attempt that nothing stands in the way of."""
    port = servers.port(server, tls=tls)
    return make(ATTEMPTS[attempt], AttemptRoute(carriage=Carriage.ROUTE), Target(BANNED, "127.0.0.1", port))


@pytest.mark.parametrize("server", REAL)
@pytest.mark.parametrize("attempt", UNREAD[False])
def test_head_is_no_request(servers: Servers, server: Server, attempt: str) -> None:
    """A head that tokgate may carry by its address gets nobody the banned page."""
    assert BANNED_PAGE not in asked(servers, server, attempt, tls=False).body


@pytest.mark.parametrize("server", REAL)
@pytest.mark.parametrize("attempt", UNREAD[True])
def test_beginning_is_no_hello(servers: Servers, server: Server, attempt: str) -> None:
    """A beginning that tokgate may carry by its address gets nobody the banned certificate."""
    assert asked(servers, server, attempt, tls=True).result is not Result.SERVED


@pytest.mark.parametrize("server", REAL)
def test_the_control(servers: Servers, server: Server) -> None:
    """An ordinary request and hello are served, so that the tests above can fail."""
    assert BANNED_PAGE in asked(servers, server, "plain-request", tls=False).body
    assert asked(servers, server, "sni-plain", tls=True).result is Result.SERVED
