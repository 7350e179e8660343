"""Who may sign in: users and bcrypt hashes in a file as Apache's `htpasswd -B` writes it."""

import re
from pathlib import Path
from typing import Final

import bcrypt

_HASH: Final = re.compile(r"\$2[aby]\$[0-9]{2}\$[./A-Za-z0-9]{53}")
MAX_PASSWORD: Final = 72
"""bcrypt reads no more octets, and refuses longer ones."""


class Htpasswd:
    """Users of a file, read again when it changed."""

    def __init__(self, path: Path) -> None:
        """Raises OSError, ValueError if the file can't be used."""
        self._path: Final = path.absolute()  # the working directory may change
        self._modified = 0
        self._hashes: dict[str, bytes] = {}
        self._reload()

    def knows(self, user: str, password: str) -> bool:
        """Whether this is the user's password. Takes as long whether or not there is such a user."""
        self._reload()
        known = self._hashes.get(user)
        given = password.encode("utf-8", "replace")
        same = bcrypt.checkpw(given[:MAX_PASSWORD], known or next(iter(self._hashes.values())))
        return same and known is not None and len(given) <= MAX_PASSWORD

    def has(self, user: str) -> bool:
        """Whether the user is still there."""
        self._reload()
        return user in self._hashes

    def _reload(self) -> None:
        modified = self._path.stat().st_mtime_ns
        if modified != self._modified:
            self._hashes = _read(self._path)
            self._modified = modified


def _read(path: Path) -> dict[str, bytes]:
    hashes = {}
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        user, _, digest = line.strip().partition(":")
        if not user or not _HASH.fullmatch(digest):
            raise ValueError(f"{path}:{number}: not a user with a bcrypt hash: write it with `htpasswd -B`")
        hashes[user] = digest.encode("ascii")
    if not hashes:
        raise ValueError(f"{path} holds no user")
    return hashes
