"""The names in this machine's hosts file, for which no name server is asked."""

from functools import lru_cache
from pathlib import Path
from typing import Final

PATH: Final = Path("/etc/hosts")


def names_host(name: str, path: Path = PATH) -> bool:
    """Whether the file gives an address for a name. It is read again when it has changed."""
    try:
        changed = path.stat().st_mtime_ns
    except OSError:
        return False
    return name.lower() in _names(path, changed)


@lru_cache(maxsize=1)
def _names(path: Path, _changed: int) -> frozenset[str]:
    """All names, in lower case: on each line an address, names, and a comment (hosts(5))."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    return frozenset(name.lower() for line in lines for name in line.partition("#")[0].split()[1:])
