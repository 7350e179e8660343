"""Pauses the garbage collector while very many objects are made, none of them garbage: it would only look for cycles.

That would double the time that a large policy takes.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def paused() -> Iterator[None]:
    """While the `with` block lasts."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
