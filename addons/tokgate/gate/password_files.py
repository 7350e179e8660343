"""Users in files: passwords and groups in Apache's formats. Reading and comparing block.

No password is kept, logged, or part of an error's message.
"""

import re
import threading
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final

import bcrypt
from mitmproxy.utils.htpasswd import HtpasswdFile

from tokgate.gate.accounts import AccountsError
from tokgate.policy.identity import Identity
from tokgate.wire.credentials import Credentials

_GROUP_LINE: Final = re.compile(r"([^:]+):(.*)")


_Stat = tuple[int, int, int, int] | None


def _stat(path: Path | None) -> _Stat:
    if path is None:
        return None
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


class FileAccounts:
    """Passwords in an htpasswd file, groups in a file as Apache's `AuthGroupFile`. Read again when they change."""

    def __init__(self, htpasswd: Path, groups: Path | None) -> None:
        """Nothing is read yet."""
        self._htpasswd: Final = htpasswd
        self._groups: Final = groups
        self._lock: Final = threading.Lock()
        self._read: tuple[object, HtpasswdFile, Mapping[str, frozenset[str]]] | None = None

    def state(self) -> object:
        """As the files are on disk."""
        return _stat(self._htpasswd), _stat(self._groups)

    def identify(self, credentials: Credentials) -> Identity | None:
        """Compare with the file. An unknown user takes as long as a wrong password."""
        htpasswd, groups = self._current()
        user = credentials.user
        if user not in htpasswd.users:
            _matches(HtpasswdFile(f"nobody:{_nobody()}"), "nobody", credentials.password)
            return None
        if not _matches(htpasswd, user, credentials.password):
            return None
        return Identity(user=user, groups=groups.get(user, frozenset()))

    def _current(self) -> tuple[HtpasswdFile, Mapping[str, frozenset[str]]]:
        with self._lock:
            state = self.state()
            if self._read is None or self._read[0] != state:
                try:
                    groups = {} if self._groups is None else read_groups(self._groups.read_text("utf-8"))
                    self._read = (state, HtpasswdFile.from_file(self._htpasswd), groups)
                except (OSError, ValueError) as error:
                    raise AccountsError(_without_hashes(error)) from None
            return self._read[1], self._read[2]


def _matches(htpasswd: HtpasswdFile, user: str, password: str) -> bool:
    try:
        return htpasswd.check_password(user, password)
    except ValueError:  # bcrypt: longer than 72 octets, or with a NUL
        return False


@cache
def _nobody() -> str:
    return bcrypt.hashpw(b"", bcrypt.gensalt(10)).decode()


def _without_hashes(error: Exception) -> str:
    """mitmproxy quotes the line that it can't read."""
    return re.sub(r"line: .*", "line", f"{type(error).__name__}: {error}")


def read_groups(text: str) -> Mapping[str, frozenset[str]]:
    """The groups of each user, from lines of `group: user user`. Raises ValueError."""
    found: dict[str, set[str]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        read = _GROUP_LINE.fullmatch(stripped)
        if read is None:
            raise ValueError(f"line {number} of the file of groups is not `group: user user`")
        for user in read[2].split():
            found.setdefault(user, set()).add(read[1].strip())
    return {user: frozenset(groups) for user, groups in found.items()}
