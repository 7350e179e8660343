"""The metrics: what each is called, means and is made of. Values only: from vitals to samples, no clock, no server."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from tokgate.proxy.vitals import Vitals, problems

type Sample = tuple[tuple[str, ...], float]


class Kind(StrEnum):
    """Whether a value may fall."""

    COUNTER = "counter"
    GAUGE = "gauge"


@dataclass(frozen=True, slots=True)
class Family:
    """A metric: `samples` makes its label values and value out of vitals."""

    name: str
    kind: Kind
    meaning: str
    samples: Callable[[Vitals], Iterable[Sample]]
    labels: tuple[str, ...] = ()


def _gauge(name: str, meaning: str, samples: Callable[[Vitals], Iterable[Sample]], *labels: str) -> Family:
    return Family(f"tokgate_{name}", Kind.GAUGE, meaning, samples, labels)


def _counter(name: str, meaning: str, samples: Callable[[Vitals], Iterable[Sample]], *labels: str) -> Family:
    return Family(f"tokgate_{name}_total", Kind.COUNTER, meaning, samples, labels)


def _one(value: Callable[[Vitals], float | None]) -> Callable[[Vitals], Iterable[Sample]]:
    """A metric without labels; left out where there is no value."""

    def samples(vitals: Vitals) -> Iterator[Sample]:
        number = value(vitals)
        if number is not None:
            yield (), float(number)

    return samples


def _log(value: Callable[[Mapping[str, Any]], float | None]) -> Callable[[Vitals], Iterable[Sample]]:
    return _one(lambda vitals: None if vitals["log"] is None else value(vitals["log"]))


def _counted(key: str) -> Callable[[Vitals], Iterable[Sample]]:
    return _one(lambda vitals: vitals["counts"].get(key, 0))


def _decisions(vitals: Vitals) -> Iterator[Sample]:
    for network, visibility, verdict, number in vitals["decisions"]:
        yield (network, visibility, verdict), number


def _workers(vitals: Vitals) -> Iterator[Sample]:
    yield from _by_worker(vitals, lambda report: 1)


def _connections(vitals: Vitals) -> Iterator[Sample]:
    yield from _by_worker(vitals, lambda report: report.get("connections"))


def _by_worker(vitals: Vitals, value: Callable[[Mapping[str, Any]], int | None]) -> Iterator[Sample]:
    sums: Counter[tuple[str, ...]] = Counter()
    for worker in vitals["workers"]:
        number = value(worker["report"])
        if number is not None:
            sums[role(worker["name"]), "ending" if worker["retired"] else "serving"] += number
    yield from sums.items()


def role(worker: str) -> str:
    """`gate` of `gate-0`."""
    return worker.rpartition("-")[0] or worker


def _restarts(vitals: Vitals) -> Iterator[Sample]:
    sums: Counter[tuple[str, ...]] = Counter()
    for worker in vitals["workers"]:
        sums[role(worker["name"]),] += 0
    for name, number in vitals["restarts"].items():
        sums[role(name),] += number
    yield from sums.items()


def _refused_early(vitals: Vitals) -> Iterator[Sample]:
    for why, key in _EARLY.items():
        yield (why,), vitals["counts"].get(key, 0)


_EARLY: Final = {"limit": "refused-at-limit", "loop": "loop", "silent": "timeout", "no-opener": "not-handed-over"}


def _last_error(vitals: Vitals) -> Iterator[Sample]:
    if vitals["log"] is not None and vitals["log"]["last_error"]:
        yield (vitals["log"]["last_error"],), 1


def _reloads(vitals: Vitals) -> Iterator[Sample]:
    yield ("success",), vitals["reloads"]["succeeded"]
    yield ("failure",), vitals["reloads"]["failed"]


def _last_reloads(vitals: Vitals) -> Iterator[Sample]:
    for result in ("success", "failure"):
        at = vitals["reloads"][f"last_{result}"]
        if at is not None:
            yield (result,), at


def _ban_phases(vitals: Vitals) -> Iterator[Sample]:
    for ban in vitals["policy"]["bans"]:
        yield (ban["ban"], ban["zone"], ban["phase"] or "unannounced"), 1


def _ban_overdue(vitals: Vitals) -> Iterator[Sample]:
    for ban in vitals["policy"]["bans"]:
        yield (ban["ban"], ban["zone"]), ban["overdue"]


def _ban_seconds(which: str) -> Callable[[Vitals], Iterable[Sample]]:
    def samples(vitals: Vitals) -> Iterator[Sample]:
        for ban in vitals["policy"]["bans"]:
            if ban[which] is not None:
                yield (ban["ban"], ban["zone"]), ban[which]

    return samples


def _certificates(vitals: Vitals) -> Iterator[Sample]:
    for file, seconds in vitals.get("certificates", {}).items():
        yield (file,), seconds


FAMILIES: Final[tuple[Family, ...]] = (
    _gauge("build_info", "Always 1; which version runs.", lambda v: [((v["tokgate"],), 1)], "version"),
    _gauge("start_time_seconds", "When it started, in seconds since the epoch.", _one(lambda v: v["started"])),
    _gauge("healthy", "1 while /healthz is green: the log is written and the newest policy is in force.",
           _one(lambda v: not problems(v))),
    # traffic
    _counter("decisions", "Decisions about connections and requests, allowed ones too.", _decisions,
             "network", "visibility", "verdict"),
    _gauge("connections", "Open connections.", _connections, "role", "state"),
    _counter("given_up", "Connections that ended before any decision: at a limit, on their way back here, silent, or "
             "with no opener to take them.", _refused_early, "why"),
    _counter("cut", "Connections that were ended because a ban began.", _counted("cut")),
    _counter("wrong_passwords", "Sign-ins to the proxy with a wrong password.", _counted("wrong-password")),
    _counter("handed_over", "Connections that gates gave to openers.", _counted("handed-over")),
    # processes
    _gauge("workers", "Processes, serving or ending with their last connections.", _workers, "role", "state"),
    _counter("restarts", "Processes that died and were started again.", _restarts, "role"),
    _counter("internal_errors", "Failures inside tokgate, by where; `on_error` decided then.",
             lambda v: [((where,), number) for where, number in v["errors"].items()], "where"),
    # the log
    _gauge("log_writable", "1 while records reach the file; 0 also when nobody writes it.",
           _one(lambda v: v["log"] is not None and v["log"]["failing_since"] is None)),
    _gauge("log_failing_seconds", "For how long the log could not be written; 0 while it can.",
           _log(lambda log: log["failing"])),
    _counter("log_records_written", "Records written.", _log(lambda log: log["written"])),
    _counter("log_records_dropped", "Records lost because the log could not be written.",
             _log(lambda log: log["dropped"])),
    _counter("log_records_undelivered", "Records lost on their way to the process that writes the log.",
             _counted("records-dropped")),
    _gauge("log_gap_records", "Records lost and not yet reported by a `log-gap` record.", _log(lambda log: log["gap"])),
    _gauge("log_queued_records", "Records waiting to be written.", _log(lambda log: log["queued"])),
    _counter("log_errors", "Failures to write, sync, sign or rotate.", _log(lambda log: log["errors"])),
    _counter("log_rotations", "Files that were completed.", _log(lambda log: log["rotations"])),
    _gauge("log_last_error", "Always 1; what the last of these failures said.", _last_error, "error"),
    # the policy
    _gauge("policy_info", "Always 1; which version is in force.", lambda v: [((v["policy"]["version"],), 1)],
           "version"),
    _gauge("policy_age_seconds", "Since the policy in force was read.", _one(lambda v: v["policy"]["age"])),
    _gauge("policy_newest_in_force", "0 while the newest edit is wrong and the policy before it stays.",
           _one(lambda v: v["policy"]["error"] is None)),
    _counter("policy_reloads", "Readings of the policy after the start.", _reloads, "result"),
    _gauge("policy_last_reload_timestamp_seconds", "When it last had this result, in seconds since the epoch.",
           _last_reloads, "result"),
    # the bans
    _gauge("ban_phase", "Always 1; in which phase a ban is, in each time zone.", _ban_phases, "ban", "zone", "phase"),
    _gauge("ban_overdue", "1 for a ban that is held past its end.", _ban_overdue, "ban", "zone"),
    _gauge("ban_seconds_until_transition", "Until its phase, or a window of it, next changes; absent if never.",
           _ban_seconds("next_seconds"), "ban", "zone"),
    _gauge("ban_seconds_until_end", "Until its end; below 0 while held past it; absent if it has none, or is over.",
           _ban_seconds("end_seconds"), "ban", "zone"),
    _gauge("certificate_seconds_until_expiry", "Until the certificate authority of the page expires.", _certificates,
           "file"),
)  # fmt: skip


def families(vitals: Vitals) -> Iterator[Metric]:
    """All metrics that have a value, as prometheus_client exposes them."""
    for family in FAMILIES:
        make = CounterMetricFamily if family.kind is Kind.COUNTER else GaugeMetricFamily
        metric = make(family.name, family.meaning, labels=family.labels)
        for labels, value in family.samples(vitals):
            metric.add_metric(labels, float(value))
        if metric.samples:
            yield metric
