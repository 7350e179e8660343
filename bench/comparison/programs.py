"""Compiles the load generator and the raw origin, when their source is newer than what was built."""

from pathlib import Path
from typing import Final

from comparison.namespaces import run
from comparison.settings import BUILD, LOAD_SOURCES

_FLAGS: Final = ("-std=gnu17", "-O2", "-Wall", "-Wextra")


def build() -> tuple[Path, Path]:
    """The paths of tlsload and rawserver."""
    BUILD.mkdir(exist_ok=True)
    return _compiled("tlsload", "-lssl", "-lcrypto"), _compiled("rawserver")


def _compiled(name: str, *libraries: str) -> Path:
    source, program = LOAD_SOURCES / f"{name}.c", BUILD / name
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        run("gcc", *_FLAGS, "-o", str(program), str(source), *libraries)
    return program
