"""Names that resemble a banned service: summed over the hours and gateways of a log, and as YAML to edit."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from tokgate.analytics.sql import rfc3339
from tokgate.policy.analysis.likeness import How

if TYPE_CHECKING:
    from tokgate.analytics.sql import Engine, Progress

_SQL: Final = 'SELECT near_misses, since, "time" FROM events WHERE near_misses IS NOT NULL'
_WHY: Final = {
    How.ALIAS: "spells out {word}",
    How.SAME_LABEL: "{word} under another suffix",
    How.CONTAINS: "contains {word}",
    How.SIMILAR: "all but {word}",
}
_HEAD: Final = """\
# Names that resemble a banned service and match none of its rules, with how often they were asked for. They were not
# refused. LOOK AT EACH before you use it: most names with a brand in them are somebody else's, and a rule for such a
# name keeps people from what is not banned. Delete those; add what is the service's own to its file, under `names:`.
# What you put into a service that no ban names is not offered again."""

_NONE: Final = """\
# The log has no name that resembles a banned service and matches no rule.
# It has any only of times when `settings.log.near_misses` was true."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A name that resembles a service: by which word and how, with its count between two instants."""

    name: str
    service: str
    word: str
    how: str
    count: int
    first: datetime
    last: datetime

    @property
    def why(self) -> str:
        """How the name resembles the service, as a phrase."""
        words = _WHY.get(How(self.how)) if self.how in list(How) else None
        return (words or f"{self.how} {{word}}").format(word=self.word)


def candidates(database: "Engine", *, progress: "Progress | None" = None) -> tuple[Candidate, ...]:
    """The log's candidates by service, the strongest resemblance and highest count first. Raises LogError."""
    return merged(database.answer(_SQL, progress=progress).rows)


def merged(rows: Iterable[tuple[Any, ...]]) -> tuple[Candidate, ...]:
    """Candidates from rows of (`tokgate.near_misses` as JSON, since, until), in the order of `candidates`."""
    found: dict[tuple[str, str], Candidate] = {}
    for text, since, until in rows:
        for new in _read(text, since or until, until):
            key = new.service, new.name
            known = found.get(key)
            found[key] = new if known is None else _joined(known, new)
    return tuple(sorted(found.values(), key=_order))


def fragment(found: Sequence[Candidate]) -> str:
    """YAML in the form of a service file, each name with its evidence."""
    lines = [_HEAD, "services:"] if found else [_NONE]
    for service in dict.fromkeys(each.service for each in found):
        lines += [f"  {service}:", "    names:", "      suffix:"]
        own = [each for each in found if each.service == service]
        width = max(len(each.name) for each in own)
        lines += [f"        - {each.name.ljust(width)}  # {_evidence(each)}" for each in own]
    return "\n".join(lines) + "\n"


def as_json(each: Candidate) -> dict[str, Any]:
    return {
        "name": each.name,
        "service": each.service,
        "how": each.how,
        "word": each.word,
        "count": each.count,
        "first": rfc3339(each.first),
        "last": rfc3339(each.last),
    }


def _read(text: str, since: datetime, until: datetime) -> Iterator[Candidate]:
    """The candidates of one record; entries of another shape are skipped."""
    document = json.loads(text or "null")
    names: Iterable[Any] = document.get("names", ()) if isinstance(document, dict) else ()
    for each in names:
        if isinstance(each, dict) and isinstance(each.get("count"), int):
            name, service, word, how = (str(each.get(key, "")) for key in ("name", "service", "word", "how"))
            yield Candidate(name, service, word, how, each["count"], since, until)


def _joined(one: Candidate, other: Candidate) -> Candidate:
    count, first, last = one.count + other.count, min(one.first, other.first), max(one.last, other.last)
    return replace(one, count=count, first=first, last=last)


def _order(each: Candidate) -> tuple[str, int, int, str]:
    telling = list(How).index(How(each.how)) if each.how in list(How) else len(How)
    return each.service, telling, -each.count, each.name


def _evidence(each: Candidate) -> str:
    times = "once" if each.count == 1 else f"{each.count} times"
    return f"{times}, {each.first:%Y-%m-%d %H:%M} to {each.last:%Y-%m-%d %H:%M} UTC; {each.why}"
