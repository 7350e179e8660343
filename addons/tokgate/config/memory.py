"""A policy's million objects, made and let go without stopping the threads that carry traffic.

The collector and a cascade of frees hold the interpreter's lock from beginning to end: for a second with 100,000 names.
A policy needs no collector, since nothing in it refers back; what carries traffic is left to it.
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
"""Objects let go of before other threads have their turn."""
_BUCKETS: Final = 1024
_TURN: Final = 0.0005
"""Seconds for which a thread that makes a policy keeps others waiting."""
_CONTAINERS: Final = (dict, tuple, list, set, frozenset, partial, MethodType, type(lru_cache(str)))


def settle() -> None:
    """Exempt all that is there from collections, what is garbage among it aside.

    To be called when things have been set up, or before a fork: what no collection looks at stays shared.
    """
    gc.unfreeze()  # what was frozen before may have ended since
    gc.collect()
    gc.freeze()


@contextmanager
def undisturbed() -> Iterator[None]:
    """While a policy is made: no collections, and none of what was made afterwards; and others come first."""
    gc.collect()  # quick: what was there when things were set up, and all policies, are exempt
    gc.disable()
    patience = sys.getswitchinterval()
    sys.setswitchinterval(_TURN)  # a connection waits this long for each of its many system calls
    try:
        yield
    finally:
        sys.setswitchinterval(patience)
        gc.freeze()
        gc.enable()


def release(held: list[Any]) -> None:
    """Let go of all that hangs on the objects in the list, bit by bit, parents before their parts; empties the list."""
    seen: list[set[int]] = [set() for _ in range(_BUCKETS)]  # a large set stops everybody each time that it grows
    for each in held:  # grows
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
