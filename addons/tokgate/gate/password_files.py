"""Users in files: passwords and groups in Apache's formats. Reading and comparing block.

No password is kept, logged, or part of an error's message.
"""

import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import bcrypt
from mitmproxy.utils.htpasswd import HtpasswdFile

from tokgate.gate.accounts import AccountsError, UnusablePasswordError
from tokgate.policy.identity import Identity, folded
from tokgate.wire.credentials import Credentials

MOST_NAMED: Final = 10
"""How many names are told of those that are missing."""
_GROUP_LINE: Final = re.compile(r"([^:]+):(.*)")
_BCRYPT: Final = re.compile(r"\$2[aby]\$[0-9]{2}\$[./A-Za-z0-9]{53}")


_Stat = tuple[int, int, int, int] | None


def _stat(path: Path | None) -> _Stat:
    if path is None:
        return None
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


@dataclass(frozen=True, slots=True)
class Entries:
    """What the files say. `unusable`: users whose password is kept in a way that can't be checked."""

    passwords: HtpasswdFile
    unusable: frozenset[str]
    groups: Mapping[str, frozenset[str]]
    """The groups of each user."""


class FileAccounts:
    """Passwords in an htpasswd file, groups in a file as Apache's `AuthGroupFile`. Read again when they change."""

    def __init__(self, htpasswd: Path, groups: Path | None) -> None:
        """Nothing is read yet."""
        self._htpasswd: Final = htpasswd
        self._groups: Final = groups
        self._lock: Final = threading.Lock()
        self._read: tuple[object, Entries] | None = None

    def state(self) -> object:
        """As the files are on disk."""
        return _stat(self._htpasswd), _stat(self._groups)

    def identify(self, credentials: Credentials) -> Identity | None:
        """Compare with the file. An unknown user takes as long as a wrong password."""
        entries = self.entries()
        user = credentials.user
        if user in entries.unusable:
            raise UnusablePasswordError(
                f"{self._htpasswd}: the password of `{user}` is not kept with bcrypt (htpasswd -B)"
            )
        if user not in entries.passwords.users:
            _matches(HtpasswdFile(f"nobody:{_nobody()}"), "nobody", credentials.password)
            return None
        if not _matches(entries.passwords, user, credentials.password):
            return None
        return Identity(user=user, groups=entries.groups.get(user, frozenset()))

    def lacks(self, users: Iterable[str], groups: Iterable[str]) -> Iterator[str]:
        """Names that are in neither file, and users whose password can't be checked."""
        entries = self.entries()
        known = {folded(user) for user in (*entries.passwords.users, *entries.unusable)}
        held = {folded(group) for of_user in entries.groups.values() for group in of_user}
        for said, names in (
            ("no such user", [user for user in users if folded(user) not in known]),
            ("nobody is in the group", [group for group in groups if folded(group) not in held]),
            ("not kept with bcrypt (htpasswd -B) is the password of", entries.unusable),
        ):
            if names:
                yield f"{said}: {_some(sorted(names))}"

    def entries(self) -> Entries:
        """What the files say now. Raises AccountsError."""
        with self._lock:
            state = self.state()
            if self._read is None or self._read[0] != state:
                groups = {} if self._groups is None else _entries_of(self._groups, read_groups)
                self._read = state, Entries(*_entries_of(self._htpasswd, read_passwords), groups)
            return self._read[1]


def _entries_of[T](path: Path, read: Callable[[str], T]) -> T:
    try:
        return read(path.read_text("utf-8-sig"))
    except UnicodeDecodeError:
        raise AccountsError(f"{path} is not in UTF-8") from None
    except ValueError as error:
        raise AccountsError(f"{path}: {error}") from None
    except OSError as error:
        raise AccountsError(f"{path}: {error.strerror}") from None


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more


def _matches(htpasswd: HtpasswdFile, user: str, password: str) -> bool:
    try:
        return htpasswd.check_password(user, password)
    except ValueError:  # bcrypt: longer than 72 octets, or with a NUL
        return False


@cache
def _nobody() -> str:
    return bcrypt.hashpw(b"", bcrypt.gensalt(10)).decode()


def read_passwords(text: str) -> tuple[HtpasswdFile, frozenset[str]]:
    """The users of an htpasswd file, and those whose password can't be checked. Raises ValueError, quoting nothing."""
    passwords, unusable = HtpasswdFile(""), set[str]()
    for number, line in enumerate(text.splitlines(), 1):
        try:
            found = HtpasswdFile(line).users
        except ValueError:
            found = {}
            user, colon, _ = line.strip().partition(":")
            if not user or not colon:
                raise ValueError(f"line {number} is not `user:password`") from None
            unusable.add(user)
        for user, kept in found.items():
            if kept.startswith("$2") and not _BCRYPT.fullmatch(kept):
                unusable.add(user)
            else:
                passwords.users[user] = kept
    return passwords, frozenset(unusable.difference(passwords.users))


def read_groups(text: str) -> Mapping[str, frozenset[str]]:
    """The groups of each user, from lines of `group: user user`. Raises ValueError."""
    found: dict[str, set[str]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        read = _GROUP_LINE.fullmatch(stripped)
        if read is None:
            raise ValueError(f"line {number} is not `group: user user`")
        for user in read[2].split():
            found.setdefault(user, set()).add(read[1].strip())
    return {user: frozenset(groups) for user, groups in found.items()}
