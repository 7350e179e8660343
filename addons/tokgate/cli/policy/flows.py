"""Reads traffic to be decided again: flows as NDJSON, or events of the block log.

Flows have the keys of `tokgate simulate`: `client` and `host`, and optionally `at`, `url` and the identity.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from io import BufferedIOBase
from pathlib import Path
from typing import Any

from whenever import Instant

from tokgate.blocklog.read.reader import Junk, OpenLog, read
from tokgate.blocklog.read.replay_query import is_traffic, recorded
from tokgate.cli.decision_query import DecisionQuery
from tokgate.cli.policy.simulate import IDENTITY, MAX_LINE, batches, opened, read_identity
from tokgate.cli.time_arguments import moment_or_now, settle
from tokgate.policy.decide import Sighting
from tokgate.policy.decision import Signal
from tokgate.policy.membership import Identity

Progress = Callable[[int], None]
"""Called with the number of bytes read since it was last called."""


@dataclass(frozen=True, slots=True)
class Flow:
    """A request to decide, `count` times; `version` is the policy version in the log, if any."""

    client: str
    at: Instant
    sightings: tuple[Sighting, ...]
    count: int = 1
    version: str | None = None
    identity: Identity | None = None


def read_flows(
    files: Iterable[str], at: Instant | None, zone: Callable[[str], str], progress: Progress
) -> Iterator[Flow | Junk]:
    """The flows in files (`-` is standard input) in order; Junk for each line that is no flow.

    `at` is the instant of flows without one; wall times are in the `zone` of their client.
    """
    for file in files:
        with opened(file) as source:
            yield from _flows("standard input" if file == "-" else file, source, at, zone, progress)


def _flows(
    file: str, source: BufferedIOBase, at: Instant | None, zone: Callable[[str], str], progress: Progress
) -> Iterator[Flow | Junk]:
    number = 0
    loads, moment = json.JSONDecoder().decode, lru_cache(maxsize=4096)(moment_or_now)
    for lines in batches(source):
        for line in lines:
            number += 1
            if line is None:
                yield Junk(file, number, MAX_LINE, "a longer line is no flow")
                continue
            try:
                asked: Any = loads(line.decode())
                client, host = asked["client"], asked["host"]
                url, when = asked.get("url"), asked.get("at")
                settled = at if when is None else moment(when)
                if not isinstance(settled, Instant):
                    if settled is None:
                        raise _NoFlow("neither the flow nor --at says when")
                    settled = settle(settled, zone(client))
                identity = None if asked.keys().isdisjoint(IDENTITY) else read_identity(asked)
                yield Flow(client, settled, _sightings(client, host, url, settled), identity=identity)
            except _NoFlow as error:
                yield Junk(file, number, len(line), str(error))
            except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):
                yield Junk(file, number, len(line), "not JSON")
            except ValueError as error:
                yield Junk(file, number, len(line), str(error))
            except (TypeError, KeyError, AttributeError):
                yield Junk(file, number, len(line), "not an object with `client` and `host`")
        progress(sum(len(line) + 1 for line in lines if line is not None))


class _NoFlow(ValueError):
    """Valid JSON that is no flow; the message says why."""


def _sightings(client: object, host: object, url: object, at: Instant) -> tuple[Sighting, ...]:
    if not isinstance(client, str) or not isinstance(host, str):
        raise _NoFlow("`client` and `host` must be text")
    if url is None:
        return (Sighting(Signal.SNI, host),)
    if not isinstance(url, str):
        raise _NoFlow("`url` must be text")
    return DecisionQuery(client, host, at, url).sightings


def read_log(files: Iterable[Path], opener: OpenLog, progress: Progress) -> Iterator[Flow | Junk]:
    """The events in logs in order; Junk for each line that is unreadable or can't be decided again."""
    for line in read(files, opener):
        if isinstance(line, Junk):
            progress(line.size)
            yield line
            continue
        progress(len(line.raw) + 1)
        found = recorded(line)
        if found is not None:
            yield Flow(found.client, found.at, found.sightings, found.count, found.version, found.identity)
        elif is_traffic(line.record):
            yield Junk(
                line.file, line.number, len(line.raw), "lacks the client's address, the time, or what was asked for"
            )
