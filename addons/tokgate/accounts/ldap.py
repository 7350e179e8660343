"""Users in an LDAP directory: search for the user's entry, then a bind with the given password. All calls block."""

import re
import ssl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import ldap3
from ldap3.core.exceptions import LDAPBindError, LDAPException, LDAPInvalidCredentialsResult, LDAPOperationResult
from ldap3.utils.conv import escape_filter_chars
from ldap3.utils.dn import parse_dn

from tokgate.accounts import AccountsError, UnusablePasswordError
from tokgate.policy.membership import Identity
from tokgate.policy.settings import Directory
from tokgate.wire.proxy_request import Credentials

PATIENCE: Final = 5
"""Seconds for a directory to connect and to answer."""
MOST_SAID: Final = 400
"""Maximum characters of an error message: ldap3 quotes whole certificates."""
_ABOUT_USER: Final = (19, 48, 50, 53)
"""Results of a bind that other users don't get (RFC 4511 §A.1): 389 Directory Server says 53, unwillingToPerform, of
an inactivated account, and 19, constraintViolation, after too many wrong passwords."""
_ESCAPED: Final = re.compile(rb"\\(?:([0-9A-Fa-f]{2})|(.))", re.DOTALL)


class LdapAccounts:
    """Users in an LDAP directory: search for the user's entry, then a bind with the given password."""

    def __init__(self, directory: Directory, strategy: Literal["SYNC", "MOCK_SYNC"] = "SYNC") -> None:
        """Nothing is read or connected yet; each check opens its own connections."""
        self._directory: Final = directory
        self._strategy: Final = strategy
        host = urlsplit(directory.url).hostname or ""
        self.on_loopback: Final = re.fullmatch(r"localhost|::1|127\.\d+\.\d+\.\d+", host) is not None

    @cached_property
    def _server(self) -> ldap3.Server:
        url = urlsplit(self._directory.url)
        return ldap3.Server(
            url.hostname or "",
            port=url.port,
            use_ssl=url.scheme == "ldaps",
            tls=ldap3.Tls(validate=ssl.CERT_REQUIRED, ca_certs_file=self._directory.authorities),
            get_info=ldap3.NONE,
            connect_timeout=PATIENCE,
        )

    def state(self) -> object:
        """None: a directory does not notify of changes. Cached results expire."""
        return None

    def lacks(self, users: Iterable[str], groups: Iterable[str]) -> Iterator[str]:
        """No messages: users and groups of a directory are not listed."""
        return iter(())

    def identify(self, credentials: Credentials) -> Identity | None:
        """Check a password with the directory.

        An empty one would prove nothing (RFC 4513 §5.1.2), nor one that is empty to who reads it up to a NUL.
        """
        if not credentials.user or not credentials.password or "\0" in credentials.password:
            return None
        try:
            return self._identify(credentials)
        except (LDAPException, OSError) as error:
            raise AccountsError(f"{self._directory.url}: {type(error).__name__}: {error}"[:MOST_SAID]) from None

    def _identify(self, credentials: Credentials) -> Identity | None:
        directory = self._directory
        attribute, groups = directory.user_attribute, directory.group_attribute
        with self._connection(directory.bind, self._password()) as connection:
            connection.search(
                directory.base,
                f"({attribute}={escape_filter_chars(credentials.user)})",
                attributes=[attribute, groups],
                size_limit=2,
            )
            found = [entry for entry in connection.response or () if entry.get("type") == "searchResEntry"]
        if len(found) != 1:  # no such user, or an ambiguous name
            return None
        entry = found[0]
        try:
            with self._connection(entry["dn"], credentials.password.encode()):
                pass
        except LDAPInvalidCredentialsResult:
            return None
        except LDAPOperationResult as error:
            if error.result not in _ABOUT_USER:
                raise
            said = f"{directory.url} refuses `{entry['dn']}`: {error.description}: {error.message}"
            raise UnusablePasswordError(said[:MOST_SAID]) from None
        names = _texts(entry["attributes"].get(attribute))
        named = {name for dn in _texts(entry["attributes"].get(groups)) for name in _names_of(dn)}
        return Identity(user=names[0] if names else credentials.user, groups=frozenset(named))

    @contextmanager
    def _connection(self, user: str | None, password: bytes | None) -> Iterator[ldap3.Connection]:
        """Connected, encrypted and bound; closed at its end, also where one of these fails.

        As octets a password is sent as it is. Of a text ldap3 makes another one (SASLprep), which directories don't do
        to what they keep, or raises.
        """
        connection = ldap3.Connection(
            self._server,
            user,
            password,  # type: ignore[arg-type]  # octets as well (ldap3.operation.bind)
            auto_bind=ldap3.AUTO_BIND_NONE,
            client_strategy=self._strategy,
            read_only=True,
            auto_referrals=False,
            receive_timeout=PATIENCE,
            raise_exceptions=True,
        )
        try:
            connection.open(read_server_info=False)
            if not self._server.ssl and not self.on_loopback:
                connection.start_tls(read_server_info=False)
            if not connection.bind(read_server_info=False):
                raise LDAPBindError(str(connection.last_error))
            yield connection
        finally:
            with suppress(LDAPException):
                connection.unbind()
            if connection.socket is not None:
                connection.socket.close()

    def _password(self) -> bytes | None:
        path = self._directory.password
        return None if path is None else Path(path).read_bytes().removesuffix(b"\n").removesuffix(b"\r")


def _texts(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [each.decode("utf-8", "replace") if isinstance(each, bytes) else str(each) for each in values if each]


def _names_of(dn: str) -> tuple[str, ...]:
    """A group's name, and its whole DN; what is no DN is a name."""
    try:
        first = parse_dn(dn)[0][1].encode()
    except LDAPException:
        return (dn,)
    # RFC 4514 §2.4: what is escaped is itself, or an octet in two hexadecimal digits.
    return (
        _ESCAPED.sub(lambda found: found[2] or bytes.fromhex(found[1].decode()), first).decode(errors="replace"),
        dn,
    )
