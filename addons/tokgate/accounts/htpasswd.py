"""Users in htpasswd and group files in Apache's formats. Reading and comparing block.

No password is kept, logged, or part of an error's message.
"""

import re
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import bcrypt

from tokgate.accounts import AccountsError, UnusablePasswordError
from tokgate.policy.membership import Identity, folded
from tokgate.wire.proxy_request import Credentials

MOST_NAMED: Final = 10
"""Missing names that a message lists."""
_BCRYPT: Final = re.compile(r"\$2[aby]\$[0-9]{2}\$[./A-Za-z0-9]{53}")
_COST: Final = 10
"""The bcrypt cost of the hash compared for unknown users, if the file has no bcrypt hash."""


@dataclass(frozen=True, slots=True)
class Passwords:
    """The content of an htpasswd file: each user's hash, None for one that bcrypt did not make."""

    hashes: Mapping[str, str | None]

    @property
    def unusable(self) -> frozenset[str]:
        """Users whose hash is not supported."""
        return frozenset(user for user, kept in self.hashes.items() if kept is None)

    def match(self, user: str, password: str) -> bool:
        """Whether this is the user's password. Takes as long whether or not there is such a user. Blocks."""
        kept = self.hashes.get(user)
        compared = kept or next(filter(None, self.hashes.values()), None) or _nobody()
        try:
            same = bcrypt.checkpw(password.encode("utf-8", "surrogatepass"), compared.encode("ascii"))
        except ValueError:  # a hash of an impossible cost, or more than the 72 octets of a password that bcrypt uses
            return False
        return same and kept is not None


@cache
def _nobody() -> str:
    return bcrypt.hashpw(b"", bcrypt.gensalt(_COST)).decode()


class Htpasswd:
    """The users of an htpasswd file, read at first use, and again when it changes."""

    def __init__(self, path: Path) -> None:
        self.path: Final = path
        self._reader: Final = _Rereader(path, read_passwords)

    def passwords(self) -> Passwords:
        """The current content. Raises AccountsError."""
        return self._reader.read()

    def has(self, user: str) -> bool:
        """Whether the file has the user. Raises AccountsError."""
        return user in self.passwords().hashes

    def knows(self, user: str, password: str) -> bool:
        """Whether this is the user's password. Blocks (bcrypt). Raises AccountsError, also for an unsupported hash."""
        passwords = self.passwords()
        if user in passwords.unusable:
            raise UnusablePasswordError(f"{self.path}: the password of `{user}` is not kept with bcrypt (htpasswd -B)")
        return passwords.match(user, password)


class FileAccounts:
    """Passwords in an htpasswd file, groups in a file as Apache's `AuthGroupFile`. Read again when they change."""

    def __init__(self, htpasswd: Path, groups: Path | None) -> None:
        self._htpasswd: Final = Htpasswd(htpasswd)
        self._groups: Final = groups
        self._group_reader: Final = None if groups is None else _Rereader(groups, read_groups)

    def state(self) -> object:
        """Device, inode, size and modification time of both files; None for a missing one."""
        return _stat(self._htpasswd.path), _stat(self._groups)

    def identify(self, credentials: Credentials) -> Identity | None:
        """Compare with the file. An unknown user takes as long as a wrong password."""
        groups, user = self._groups_of_users(), credentials.user
        if not self._htpasswd.knows(user, credentials.password):
            return None
        return Identity(user=user, groups=groups.get(user, frozenset()))

    def lacks(self, users: Iterable[str], groups: Iterable[str]) -> Iterator[str]:
        """Names that are in neither file, and users whose password can't be checked."""
        passwords = self._htpasswd.passwords()
        known = {folded(user) for user in passwords.hashes}
        held = {folded(group) for of_user in self._groups_of_users().values() for group in of_user}
        for said, names in (
            ("no such user", [user for user in users if folded(user) not in known]),
            ("nobody is in the group", [group for group in groups if folded(group) not in held]),
            ("not kept with bcrypt (htpasswd -B) is the password of", passwords.unusable),
        ):
            if names:
                more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
                yield f"{said}: {', '.join(sorted(names)[:MOST_NAMED])}{more}"

    def _groups_of_users(self) -> Mapping[str, frozenset[str]]:
        return {} if self._group_reader is None else self._group_reader.read()


class _Rereader[T]:
    """The parsed content of a file, read again when the file changes. Safe to use from any thread."""

    def __init__(self, path: Path, parse: Callable[[str], T]) -> None:
        """`parse` raises ValueError: the line's number, a colon, and what is wrong, quoting nothing."""
        self._path: Final = path
        self._parse: Final = parse
        self._lock: Final = threading.Lock()
        self._last: tuple[object, T] | None = None

    def read(self) -> T:
        """The current content. Raises AccountsError."""
        with self._lock:
            state = _stat(self._path)
            if self._last is None or self._last[0] != state:
                try:
                    self._last = state, self._parse(self._path.read_text("utf-8-sig"))
                except UnicodeDecodeError:
                    raise AccountsError(f"{self._path} is not in UTF-8") from None
                except ValueError as error:
                    raise AccountsError(f"{self._path}:{error}") from None
                except OSError as error:
                    raise AccountsError(f"{self._path}: {error.strerror}") from None
            return self._last[1]


def _stat(path: Path | None) -> tuple[int, int, int, int] | None:
    if path is None:
        return None
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def read_passwords(text: str) -> Passwords:
    """The users of an htpasswd file. Raises ValueError, quoting nothing.

    Of a user's lines the last counts that can be checked.
    """
    found: dict[str, str | None] = {}
    for number, line in _lines(text):
        user, colon, rest = line.partition(":")
        if not user or not colon:
            raise ValueError(f"{number}: not `user:password`")
        kept = rest.partition(":")[0]
        if _BCRYPT.fullmatch(kept):
            found[user] = kept
        else:
            found.setdefault(user, None)
    return Passwords(found)


def read_groups(text: str) -> Mapping[str, frozenset[str]]:
    """The groups of each user, from lines of `group: user user`. Raises ValueError."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for number, line in _lines(text):
        group, colon, users = line.partition(":")
        if not group or not colon:
            raise ValueError(f"{number}: not `group: user user`")
        for user in users.split():
            found[user].add(group.strip())
    return {user: frozenset(groups) for user, groups in found.items()}


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """The lines that are neither empty nor comments, with their numbers."""
    lines = ((number, line.strip()) for number, line in enumerate(text.splitlines(), 1))
    return ((number, line) for number, line in lines if line and not line.startswith("#"))
