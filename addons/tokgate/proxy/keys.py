"""The folder that holds the key of the page's certificate authority: for its owner's eyes only."""

import stat
from pathlib import Path
from typing import Final

DEFAULT_CONFDIR: Final = Path("~/.tokgate")
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_KEYS: Final = ("mitmproxy-ca.pem", "mitmproxy-ca.p12")
"""The files in which mitmproxy keeps the CA's private key."""


def secure_folder(folder: Path) -> None:
    """Make the folder if need be; take it and the keys in it away from everyone else. Raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _restrict(folder)
    for name in _KEYS:
        if (folder / name).exists():
            _restrict(folder / name)


def _restrict(path: Path) -> None:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & _OTHERS:
        path.chmod(mode & ~_OTHERS)
