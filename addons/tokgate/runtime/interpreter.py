"""Runs modules of this package in another interpreter, without modules from the working directory."""

import os
import sys
from pathlib import Path
from typing import Final

_IMPORT_ROOT: Final = Path(__file__).parents[2]
"""The folder of the package, for the child's PYTHONPATH: mitmproxy adds a script's folder to its own path only."""


def module_command(module: str, *arguments: str) -> list[str]:
    """The command line that runs a module of this package.

    `-P`, since `-m` alone looks for modules in the working directory first, which anybody may have written. Not `-I`:
    this process has followed PYTHONPATH, too.
    """
    return [sys.executable, "-P", "-m", module, *arguments]


def module_environment() -> dict[str, str]:
    """The environment, with the package's folder first in PYTHONPATH, and without relative folders."""
    given = filter(os.path.isabs, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    return os.environ | {"PYTHONPATH": os.pathsep.join((str(_IMPORT_ROOT), *given))}
