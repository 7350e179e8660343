"""What a directory must never be told, and whom it must not be taken for: over real sockets, on loopback."""

import gc
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

from tokgate.accounts import AccountsError, UnusablePasswordError
from tokgate.policy.membership import Identity
from tokgate.policy.settings import Directory
from tokgate.wire.proxy_request import Credentials

with warnings.catch_warnings():  # ldap3 uses names that pyasn1 has deprecated
    warnings.simplefilter("ignore", DeprecationWarning)
    import ldap3

    from tokgate.accounts import ldap
    from tokgate.accounts.ldap import LdapAccounts

DEADLINE = 60.0
PEOPLE = "ou=people,dc=example,dc=org"
ALICE = Credentials("alice", "secret")
STARTTLS = b"1.3.6.1.4.1.1466.20037"


@pytest.mark.parametrize(
    ("user", "password"),
    [
        *(
            (user, "secret")
            for user in ("alic*", "alice)(sn=*", "*)(uid=alice", "alic\\65", "alice\0", "*", "eve", "bob")
        ),
        ("alice", "wrong"),
    ],
)
def test_who_is_nobody(user: str, password: str) -> None:
    """A stranger, a wrong password, a name that two have, or a pattern: whoever it finds isn't who signs in."""
    accounts = LdapAccounts(Directory(url="ldap://127.0.0.1", base=PEOPLE), "MOCK_SYNC")
    strategy = ldap3.Connection(accounts._server, client_strategy=ldap3.MOCK_SYNC).strategy
    for dn, uid in (("uid=alice", "alice"), ("uid=bob", "bob"), ("cn=Bob", "bob")):
        entry = {"uid": uid, "userPassword": "secret", "memberOf": ["plain"], "sn": "x"}
        strategy.add_entry(f"{dn},{PEOPLE}", entry)
    assert accounts.identify(Credentials("ALICE", "secret")) == Identity("alice", frozenset({"plain"}))
    assert accounts.identify(Credentials(user, password)) is None


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


@pytest.mark.parametrize("host", ["directory.example.org", "127.0.0.1.example.org"])
def test_no_password_leaves_in_the_clear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    """A directory on another machine is asked for encryption before it is told anything, and told nothing without."""
    real = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *rest, **more: real("127.0.0.1", *rest, **more))
    with listening() as listener:
        accounts = directory(f"ldap://{host}:{listener.port}", tmp_path)
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


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_directory_on_this_machine_needs_no_encryption(tmp_path: Path, host: str) -> None:
    """On loopback a directory without TLS is asked as it is: else none of its users could sign in."""
    with listening() as listener:
        accounts = directory(f"ldap://{host}:{listener.port}", tmp_path)
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


def test_a_directory_that_refuses_connections_costs_no_descriptors(tmp_path: Path) -> None:
    """Each sign-in while the directory is away leaves no socket behind, or a day without it ends all connections."""

    def descriptors() -> set[Path]:
        return set(Path("/proc/self/fd").iterdir())

    with socket.create_server(("127.0.0.1", 0)) as server:
        accounts = directory(f"ldap://127.0.0.1:{server.getsockname()[1]}", tmp_path)
    gc.collect()
    gc.disable()  # what is left behind is to be seen
    try:
        before = descriptors()
        with pytest.raises(AccountsError, match=r"ldap://127\.0\.0\.1:") as raised:
            accounts.identify(ALICE)
        assert descriptors() <= before
        assert "secret" not in str(raised.value)
    finally:
        gc.enable()


def test_a_directory_that_does_not_accept_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory whose queue of connections is full, or whose host is off, holds no sign-in for minutes."""
    monkeypatch.setattr(ldap, "PATIENCE", 0.2)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server, socket.socket() as queued:
        queued.connect(server.getsockname())
        accounts = directory(f"ldap://127.0.0.1:{server.getsockname()[1]}", tmp_path)
        failures: list[str] = []

        def sign_in() -> None:
            try:
                accounts.identify(ALICE)
            except AccountsError as error:
                failures.append(str(error))

        asking = threading.Thread(target=sign_in, daemon=True)
        asking.start()
        asking.join(DEADLINE / 2)
    assert len(failures) == 1
    assert "timed out" in failures[0]


def test_missing_authorities(tmp_path: Path) -> None:
    """A file that isn't there is no reason to trust anybody, nor to fall over."""
    accounts = directory("ldaps://localhost", tmp_path, authorities=str(tmp_path / "none.pem"))
    with pytest.raises(AccountsError, match="ldaps://localhost"):
        accounts.identify(ALICE)


def test_a_lost_password_of_the_proxy(tmp_path: Path) -> None:
    """Without its own password file the proxy says what is missing, and does not fail with every client."""
    accounts = directory("ldap://127.0.0.1", tmp_path)
    (tmp_path / "password").unlink()
    with pytest.raises(AccountsError, match="FileNotFoundError"):
        accounts.identify(ALICE)


def test_a_directory_sends_nobody_elsewhere() -> None:
    """A directory's referral must not carry the proxy's or a user's password to a server of its choice."""
    accounts = LdapAccounts(Directory(url="ldap://127.0.0.1", base=PEOPLE), "MOCK_SYNC")
    with accounts._connection(None, None) as connection:
        assert not connection.auto_referrals
        assert connection.read_only


def ber(tag: int, *content: bytes) -> bytes:
    """One element of BER (X.690), of less than 128 octets."""
    held = b"".join(content)
    assert len(held) < 128
    return bytes((tag, len(held))) + held


def result(tag: int, code: int) -> bytes:
    """An LDAPResult (RFC 4511 §4.1.9)."""
    return ber(tag, ber(0x0A, bytes((code,))), ber(0x04), ber(0x04))


class Alice:
    """A directory in which every search finds Alice. A bind as her ends with a code of choice."""

    DN = b"uid=alice"

    def __init__(self, *, group: bytes = b"", code: int = 0) -> None:
        named = ber(0x30, ber(0x04, b"memberOf"), ber(0x31, ber(0x04, group)))
        self._entry = ber(0x64, ber(0x04, self.DN), ber(0x30, named))
        self._code = code
        self.heard: list[bytes] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"ldap://127.0.0.1:{self._socket.getsockname()[1]}"
        # The proxy's connection, and the one that tries Alice's password.
        self._threads = [threading.Thread(target=self._serve, daemon=True) for _ in range(2)]
        for thread in self._threads:
            thread.start()

    def _serve(self) -> None:
        client, _ = self._socket.accept()
        with client:
            client.settimeout(DEADLINE)
            while said := client.recv(65536):
                self.heard.append(said)
                number, operation = said[2 : 4 + said[3]], said[4 + said[3]]
                if operation == 0x60:
                    answers = [result(0x61, self._code if self.DN in said else 0)]
                elif operation == 0x63:
                    answers = [self._entry, result(0x65, 0)]
                else:  # unbind: what is left is the end
                    continue
                client.sendall(b"".join(ber(0x30, number, each) for each in answers))

    def __enter__(self) -> "Alice":
        return self

    def __exit__(self, *_: object) -> None:
        """Wait until both connections have ended, while nothing collects what is left behind."""
        for thread in self._threads:
            thread.join(DEADLINE)
        ended = not any(thread.is_alive() for thread in self._threads)
        self._socket.close()
        assert ended


@pytest.mark.parametrize(
    "password", ["caf\u00e9\u00b2", "caf\u0065\u0301", "\u05e9lom", "soft\u00adhyphen", "a\tb", "a:b"]
)
def test_a_password_is_sent_as_it_was_given(tmp_path: Path, password: str) -> None:
    """A directory compares with what was set in it; and no text makes the directory look as if it were away."""
    with Alice() as alice:
        identity = directory(alice.url, tmp_path).identify(Credentials("alice", password))
    assert identity is not None
    assert any(password.encode() in said for said in alice.heard)


@pytest.mark.parametrize("password", ["", "\0", "\0secret", "secret\0"])
def test_a_password_that_may_be_taken_for_none(tmp_path: Path, password: str) -> None:
    """A bind without a password succeeds as nobody, and so may one with a NUL: the directory is not asked."""
    nowhere = directory("ldap://127.0.0.1:1", tmp_path)
    assert nowhere.identify(Credentials("alice", password)) is None


@pytest.mark.parametrize("code", [19, 48, 50, 53])
def test_a_locked_user_is_no_failure_of_the_directory(tmp_path: Path, code: int) -> None:
    """Whose account is locked can't sign in; nobody else may be kept out for that."""
    with Alice(code=code) as alice, pytest.raises(UnusablePasswordError, match="uid=alice"):
        directory(alice.url, tmp_path).identify(ALICE)


@pytest.mark.parametrize("code", [1, 10, 51, 52])
def test_a_directory_that_cannot_check_passwords(tmp_path: Path, code: int) -> None:
    """Busy or unavailable it is for all; and a referral proves nothing."""
    with Alice(code=code) as alice, pytest.raises(AccountsError) as raised:
        directory(alice.url, tmp_path).identify(ALICE)
    assert not isinstance(raised.value, UnusablePasswordError)


@pytest.mark.parametrize(
    ("dn", "name"),
    [
        ("cn=Sales\\, EMEA,ou=groups", "Sales, EMEA"),
        ("cn=Sales\\2C EMEA,ou=groups", "Sales, EMEA"),
        ("cn=\\C3\\89quipe \\2B 1,ou=groups", "\u00c9quipe + 1"),
        ("cn=a\\\\b,ou=groups", "a\\b"),
        ("cn=press-office,ou=groups", "press-office"),
        ("no name at all", "no name at all"),
    ],
)
def test_groups_are_named_as_people_write_them(tmp_path: Path, dn: str, name: str) -> None:
    """A network names a group `Sales, EMEA`, however the directory escapes the comma in its DN."""
    with Alice(group=dn.encode()) as alice:
        identity = directory(alice.url, tmp_path).identify(ALICE)
    assert identity is not None
    assert identity.groups == {name, dn}
