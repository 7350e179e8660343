"""Creates and frees a policy's million objects without stopping the threads that carry traffic.

A garbage collection, or freeing all objects at once, holds the interpreter's lock: for a second with 100,000 names. A
policy has no reference cycles, so it needs no collector; objects of connections stay subject to it.
"""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from functools import lru_cache, partial
from types import MethodType
from typing import Any, Final

_SLICE: Final = 500
"""Objects that are freed before other threads may run."""
_BUCKETS: Final = 1024
_TURN: Final = 0.0005
"""The interpreter's switch interval in seconds while a policy is made."""
_CONTAINERS: Final = (dict, tuple, list, set, frozenset, partial, MethodType, type(lru_cache(str)))


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


def free_in_slices(held: list[Any]) -> None:
    """Free all that the objects in the list refer to, in slices, parents before their parts; empties the list."""
    seen: list[set[int]] = [set() for _ in range(_BUCKETS)]  # growing one large set would hold the lock too long
    for each in held:  # which grows meanwhile, so that all parts are reached
        for part in gc.get_referents(each):
            if _is_part(part):
                known = seen[(id(part) >> 4) % _BUCKETS]
                if id(part) not in known:
                    known.add(id(part))
                    held.append(part)
    held.reverse()
    while held:
        del held[-_SLICE:]
    while seen:
        seen.pop()


def _is_part(found: object) -> bool:
    if isinstance(found, _CONTAINERS):
        return True
    return type(found).__module__.startswith("tokgate.") and not isinstance(found, Enum)
