"""What is tried: parent proxies that lead somewhere, and such that don't."""

import socket
import threading
from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path

import pytest

from labs.builders import at, ban, snapshot
from labs.gate_fixtures import start_origin
from labs.gate_lab import Origin, echo
from labs.parent_proxy import FORBIDDEN, ParentProxy
from tokgate.policy.settings import Upstream
from tokgate.service.doctor import probes

__all__ = ["start_origin"]

HERE = "127.0.0.1"


@pytest.fixture
def parent(start_origin: Callable[..., Origin]) -> Callable[..., tuple[ParentProxy, Upstream]]:
    """Makes a parent proxy, and what a policy says of it."""

    def made(*, credentials: Path | None = None, **stated: object) -> tuple[ParentProxy, Upstream]:
        running = ParentProxy(start_origin(echo), password="user:word" if credentials else None)
        said = None if credentials is None else str(credentials)
        return running, Upstream(host="127.0.0.1", port=running.port, credentials=said, **stated)  # type: ignore[arg-type]

    return made


def test_a_parent_that_leads_there(parent: Callable[..., tuple[ParentProxy, Upstream]], tmp_path: Path) -> None:
    """Each is asked for a destination of its own, with its credentials."""
    (tmp_path / "credentials").write_text("user:word\n")
    running, upstream = parent(credentials=tmp_path / "credentials")
    (found,) = probes.parents([upstream], "www.example.net")
    assert (found.remedy, found.said) == (None, "leads to www.example.net")
    own = (ip_network("192.0.2.0/24"), "intranet.example.org")
    second, upstream = parent(destinations=own)
    (found,) = probes.parents([upstream], "www.example.net")
    assert (running.asked, second.asked) == (["www.example.net:443"], ["intranet.example.org:443"])
    running.close()
    second.close()


def test_parents_that_do_not(parent: Callable[..., tuple[ParentProxy, Upstream]], tmp_path: Path) -> None:
    """A refusal, a wrong password, and one that is away: each with what to do."""
    running, upstream = parent(destinations=(FORBIDDEN,))
    (found,) = probes.parents([upstream], "www.example.net")
    assert (found.said, found.remedy) == (f"{FORBIDDEN}: 403 Forbidden", f"ask who runs it about {FORBIDDEN}")
    running.close()
    (tmp_path / "credentials").write_text("user:other\n")
    running, upstream = parent(credentials=tmp_path / "credentials")
    (found,) = probes.parents([upstream], "www.example.net")
    assert (found.said, found.remedy) == (
        "www.example.net: 407 Sign in",
        "settings.upstream and its credentials",
    )
    running.close()
    away = Upstream(host="127.0.0.1", port=1)
    (found,) = probes.parents([away], "www.example.net")
    assert "Connection refused" in found.said
    assert found.remedy is not None


def test_users_who_sign_in() -> None:
    """Nobody's password is at hand: that the proxy asks for one is no fault of it."""
    with socket.create_server((HERE, 0)) as listener:

        def ask() -> None:
            client, _ = listener.accept()
            with client:
                client.recv(4096)
                client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")

        asking = threading.Thread(target=ask)
        asking.start()
        place = {"entry": "explicit", "host": HERE, "port": listener.getsockname()[1]}
        (found,) = probes.proxy([place], snapshot(ban()), "www.example.net", at("2023-06-01T12:00:00Z"))
        asking.join()
    assert (found.subject, found.remedy) == ("probes", None)
