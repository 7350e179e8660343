"""What a directory must never be told, and whom it must not be taken for: over real sockets, on loopback."""

import socket
import ssl
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from tokgate.accounts.accounts import AccountsError
from tokgate.policy.settings import Directory
from tokgate.wire.basic_auth import Credentials

with warnings.catch_warnings():  # ldap3 uses names that pyasn1 has deprecated
    warnings.simplefilter("ignore", DeprecationWarning)
    import ldap3

    from tokgate.accounts.ldap import LdapAccounts

DEADLINE = 60.0
PEOPLE = "ou=people,dc=example,dc=org"
ALICE = Credentials("alice", "secret")
STARTTLS = b"1.3.6.1.4.1.1466.20037"

pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # ldap3 leaves sockets to the collector


@pytest.mark.parametrize("user", ["alic*", "alice)(sn=*", "*)(uid=alice", "alic\\65", "alice\0"])
def test_a_name_is_no_filter(user: str) -> None:
    """Whoever signs in with a pattern that finds one user isn't that user, whatever password they give."""
    accounts = LdapAccounts(Directory(url="ldap://127.0.0.1", base=PEOPLE), "MOCK_SYNC")
    strategy = ldap3.Connection(accounts._server, client_strategy=ldap3.MOCK_SYNC).strategy
    strategy.add_entry(f"uid=alice,{PEOPLE}", {"uid": "alice", "userPassword": "secret", "sn": "x"})
    assert accounts.identify(ALICE) is not None
    assert accounts.identify(Credentials(user, "secret")) is None


class Listener:
    """Takes one connection at a time, in TLS or not, and keeps what it is told first."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self.heard = b""
        self.shakes: list[bool] = []
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.socket.getsockname()[1]
        self._context = context
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            client, _ = self.socket.accept()
        except OSError:
            return
        client.settimeout(DEADLINE)
        with client:
            try:
                if self._context is not None:
                    with self._context.wrap_socket(client, server_side=True) as inside:
                        self.shakes.append(True)
                        self.heard += inside.recv(65536)
                else:
                    self.heard += client.recv(65536)
            except OSError:
                self.shakes.append(False)

    def end(self) -> None:
        """Wait until it has heard what there is to hear."""
        self._thread.join(DEADLINE)
        self.socket.close()


@contextmanager
def listening(context: ssl.SSLContext | None = None) -> Iterator[Listener]:
    """A listener that ends."""
    listener = Listener(context)
    try:
        yield listener
    finally:
        listener.end()


def directory(url: str, folder: Path, **stated: Any) -> LdapAccounts:
    """Accounts in a directory that is asked with a password of the proxy's own."""
    (folder / "password").write_text("of-the-proxy\n")
    bind = f"cn=tokgate,{PEOPLE}"
    return LdapAccounts(Directory(url=url, base=PEOPLE, bind=bind, password=str(folder / "password"), **stated))


def test_no_password_leaves_in_the_clear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory on another machine is asked for encryption before it is told anything, and told nothing without."""
    real = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *rest, **more: real("127.0.0.1", *rest, **more))
    with listening() as listener:
        accounts = directory(f"ldap://directory.example.org:{listener.port}", tmp_path)
        with pytest.raises(AccountsError):
            accounts.identify(ALICE)
    assert STARTTLS in listener.heard
    assert b"of-the-proxy" not in listener.heard


@pytest.mark.parametrize("ours", [True, False])
def test_a_directory_has_to_prove_who_it_is(tmp_path: Path, ours: bool) -> None:
    """Somebody between proxy and directory, with a certificate that our authority never gave, learns no password."""
    trusted, other = trustme.CA(), trustme.CA()
    trusted.cert_pem.write_to_path(tmp_path / "authorities.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    (trusted if ours else other).issue_cert("localhost").configure_cert(context)
    with listening(context) as listener:
        accounts = directory(
            f"ldaps://localhost:{listener.port}", tmp_path, authorities=str(tmp_path / "authorities.pem")
        )
        with pytest.raises(AccountsError):
            accounts.identify(ALICE)
    assert (b"of-the-proxy" in listener.heard) is ours


def test_a_directory_on_this_machine_needs_no_encryption(tmp_path: Path) -> None:
    """On loopback a directory without TLS is asked as it is: else none of its users could sign in."""
    with listening() as listener:
        accounts = directory(f"ldap://127.0.0.1:{listener.port}", tmp_path)
        with pytest.raises(AccountsError):
            accounts.identify(ALICE)
    assert b"of-the-proxy" in listener.heard
    assert STARTTLS not in listener.heard


@pytest.mark.parametrize("nobody", [Credentials("", "secret"), Credentials("alice", "")])
def test_half_of_what_proves_somebody_is_not_asked_about(tmp_path: Path, nobody: Credentials) -> None:
    """An empty name or password is nobody's, also while the directory is away: the client is told that it is wrong."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert directory(f"ldap://127.0.0.1:{port}", tmp_path).identify(nobody) is None


def test_a_lost_password_of_the_proxy(tmp_path: Path) -> None:
    """Without its own password file the proxy says what is missing, and does not fail with every client."""
    accounts = directory("ldap://127.0.0.1", tmp_path)
    (tmp_path / "password").unlink()
    with pytest.raises(AccountsError, match="FileNotFoundError"):
        accounts.identify(ALICE)


def test_a_directory_sends_nobody_elsewhere() -> None:
    """A directory's referral must not carry the proxy's or a user's password to a server of its choice."""
    accounts = LdapAccounts(Directory(url="ldap://127.0.0.1", base=PEOPLE), "MOCK_SYNC")
    connection = accounts._connection(None, None)
    assert not connection.auto_referrals
    assert connection.read_only
