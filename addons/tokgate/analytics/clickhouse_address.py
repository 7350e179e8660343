"""Where a ClickHouse server is and as whom to ask it: a URL without a password, which processes of others could see.

The client library, which an extra brings, is not needed to read it.
"""

from dataclasses import dataclass, field
from typing import Final, Self
from urllib.parse import unquote, urlsplit

_PORTS: Final = {"https": 8443, "http": 8123}
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
DATABASE: Final = "tokgate"


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """A server's HTTP interface, a database and a user. The password stands in no text that is shown."""

    secure: bool
    host: str
    port: int
    user: str = "default"
    database: str = DATABASE
    password: str = field(default="", repr=False)

    @classmethod
    def parse(cls, text: str, password: str = "") -> Self:
        """`http[s]://[USER@]HOST[:PORT][/DATABASE]`. Raises ValueError, which says what is wrong without the text."""
        parts = urlsplit(text)
        if parts.scheme not in _PORTS or not parts.hostname:
            raise ValueError("a server is https://USER@HOST[:PORT][/DATABASE], or http:// on this machine")
        if parts.password is not None:
            raise ValueError("a password does not belong into a command line, which others can see: use the file")
        if parts.query or parts.fragment or "/" in (database := unquote(parts.path.strip("/"))):
            raise ValueError("behind the host stands the database and nothing else")
        if not database.replace("_", "a").isalnum() and database:
            raise ValueError("the database's name is letters, digits and _")
        secure = parts.scheme == "https"
        if password and not secure and parts.hostname not in _LOOPBACK:
            raise ValueError("the password would cross the network in the clear: use https://")
        return cls(
            secure=secure,
            host=parts.hostname,
            port=parts.port or _PORTS[parts.scheme],
            user=unquote(parts.username or "default"),
            database=database or DATABASE,
            password=password,
        )

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.secure else 'http'}://{self.user}@{host}:{self.port}/{self.database}"
