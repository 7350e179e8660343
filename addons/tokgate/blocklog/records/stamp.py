"""What every record gets from its caller: an id, the instant and the observer."""

import os
import socket
import uuid
from dataclasses import dataclass
from importlib import metadata
from typing import Final

from whenever import Instant

_RAND_A: Final = (1 << 12) - 1
_RAND_B: Final = (1 << 62) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Observer:
    """The machine, the version of tokgate, and the worker process (`name`), if there are several."""

    hostname: str
    version: str
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Stamp:
    """`event.id`, `@timestamp` and observer of a record. The block page shows the id, so it is made beforehand."""

    id: str
    at: Instant
    observer: Observer


def new_event_id(at: Instant) -> str:
    """A UUIDv7 (RFC 9562 §5.7), which sorts by time."""
    random = int.from_bytes(os.urandom(10))
    millis = at.timestamp(unit="millisecond") & ((1 << 48) - 1)
    value = millis << 80 | 0x7 << 76 | (random & _RAND_A) << 64 | 0b10 << 62 | (random >> 12 & _RAND_B)
    return str(uuid.UUID(int=value))


def new_stamp(at: Instant, observer: Observer) -> Stamp:
    return Stamp(new_event_id(at), at, observer)


def this_observer(name: str | None = None) -> Observer:
    """This machine and the installed version; `unknown` if tokgate runs from source without being installed."""
    return Observer(hostname=socket.gethostname(), version=installed_version() or "unknown", name=name)


def installed_version() -> str | None:
    """The version of the installed package; None where tokgate runs from its source folder."""
    try:
        return metadata.version("tokgate")
    except metadata.PackageNotFoundError:
        return None
