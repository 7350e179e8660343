"""Makes a policy's million objects without stopping the threads that carry traffic.

A garbage collection holds the interpreter's lock: for a second with 100,000 names. A policy has no reference cycles, so
the last reference frees it (in 0.1 s with 100,000 names); objects of connections stay subject to the collector.
"""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_TURN: Final = 0.0005
"""The interpreter's switch interval in seconds while a policy is made."""


def freeze_objects() -> None:
    """Free garbage, and exempt all other objects from collections.

    Call it after start-up and before a fork: memory that no collection touches stays shared.
    """
    gc.unfreeze()  # objects that were frozen before may be garbage now
    gc.collect()
    gc.freeze()


@contextmanager
def without_collections() -> Iterator[None]:
    """Disable collections while a policy is made, exempt its objects, and let other threads run more often."""
    gc.collect()  # quick: objects of start-up and of all policies are exempt
    gc.disable()
    patience = sys.getswitchinterval()
    sys.setswitchinterval(_TURN)  # a thread waits so long for the lock after each system call
    try:
        yield
    finally:
        sys.setswitchinterval(patience)
        gc.freeze()
        gc.enable()
