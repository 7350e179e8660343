"""The metrics: name, meaning and samples of each. Pure: from vitals to samples."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from tokgate.service.metrics.sample import Vitals, problems, role
from tokgate.service.status import Condition
from tokgate.traffic.counters import (
    CONNECT_ERROR,
    CONNECT_SECONDS,
    DNS_ERROR,
    ConnectError,
    DnsError,
    cumulated,
)

type Sample = tuple[tuple[str, ...], float]


@dataclass(frozen=True, slots=True)
class MetricFamily:
    """A metric: `samples` computes label values and values from vitals. A counter only grows."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    meaning: str
    samples: Callable[[Vitals], Iterable[Sample]]
    labels: tuple[str, ...] = ()


def _gauge(name: str, meaning: str, samples: Callable[[Vitals], Iterable[Sample]], *labels: str) -> MetricFamily:
    return MetricFamily(f"tokgate_{name}", "gauge", meaning, samples, labels)


def _counter(name: str, meaning: str, samples: Callable[[Vitals], Iterable[Sample]], *labels: str) -> MetricFamily:
    return MetricFamily(f"tokgate_{name}_total", "counter", meaning, samples, labels)


def _histogram(name: str, meaning: str, key: str) -> MetricFamily:
    """A histogram; its samples are the buckets, by their upper bound, and `sum`."""

    def samples(vitals: Vitals) -> Iterator[Sample]:
        buckets, total = cumulated(vitals["kinds"].get(key, {}))
        yield from (((bound,), number) for bound, number in buckets)
        yield ("sum",), total

    return MetricFamily(f"tokgate_{name}", "histogram", meaning, samples)


def _kinds(key: str, known: Iterable[str]) -> Callable[[Vitals], Iterable[Sample]]:
    """What was counted by kind; what never happened has 0, so that its first time is an increase."""

    def samples(vitals: Vitals) -> Iterator[Sample]:
        counted = vitals["kinds"].get(key, {})
        yield from (((kind,), counted.get(kind, 0)) for kind in known)

    return samples


def _descriptors(index: int) -> Callable[[Vitals], Iterable[Sample]]:
    def samples(vitals: Vitals) -> Iterator[Sample]:
        most: dict[str, int] = {}
        for worker in vitals["workers"]:
            if worker["report"].get("descriptors"):
                most[worker["name"]] = max(most.get(worker["name"], 0), worker["report"]["descriptors"][index])
        yield from (((name,), number) for name, number in most.items())

    return samples


def _accounts(vitals: Vitals) -> Iterator[Sample]:
    told = [said for worker in vitals["workers"] if (said := worker["report"].get("accounts")) is not None]
    if told:
        yield (), not any(told)


def _one(value: Callable[[Vitals], float | None]) -> Callable[[Vitals], Iterable[Sample]]:
    """The samples of a metric without labels; none if its value is None."""

    def samples(vitals: Vitals) -> Iterator[Sample]:
        number = value(vitals)
        if number is not None:
            yield (), float(number)

    return samples


def _log(value: Callable[[Mapping[str, Any]], float | None]) -> Callable[[Vitals], Iterable[Sample]]:
    return _one(lambda vitals: None if vitals["writer"] is None else value(vitals["writer"]))


def _counted(key: str) -> Callable[[Vitals], Iterable[Sample]]:
    return _one(lambda vitals: vitals["counts"].get(key, 0))


def _workers(vitals: Vitals) -> Iterator[Sample]:
    """A role of which nobody serves has 0: an absent series would alert nobody."""
    sums: Counter[tuple[str, ...]] = Counter()
    for wanted in vitals["wanted"]:
        sums[wanted, Condition.SERVING.value] = 0
    for worker in vitals["workers"]:
        sums[role(worker["name"]), worker["condition"]] += 1
    yield from sums.items()


def _connections(vitals: Vitals) -> Iterator[Sample]:
    sums: Counter[tuple[str, ...]] = Counter()
    for worker in vitals["workers"]:
        number = worker["report"].get("connections")
        if number is not None:
            sums[role(worker["name"]), "ending" if worker["retired"] else "serving"] += number
    yield from sums.items()


def _by_role(key: str) -> Callable[[Vitals], Iterable[Sample]]:
    """The sums over the processes of each role of what `key` counts by process."""

    def samples(vitals: Vitals) -> Iterator[Sample]:
        sums: Counter[tuple[str, ...]] = Counter()
        for worker in vitals["workers"]:
            sums[role(worker["name"]),] += 0
        for name, number in vitals[key].items():
            sums[role(name),] += number
        yield from sums.items()

    return samples


_NONE: Final[Mapping[str, Any]] = {"differences": {}, "refused": {}}
"""Of the kernel, where its part is not tokgate's to keep."""
_RESULTS: Final = {"success": "succeeded", "failure": "failed"}
_EARLY: Final = {
    "limit": "refused-at-limit",
    "loop": "loop",
    "silent": "timeout",
    "unfinished": "unfinished",
    "no-opener": "not-handed-over",
}


def _gateway(value: Callable[[Mapping[str, Any]], float]) -> Callable[[Vitals], Iterable[Sample]]:
    return _one(lambda vitals: None if vitals["gateway"] is None else value(vitals["gateway"]))


def _in_step(gateway: Mapping[str, Any]) -> bool:
    """Whether there is no other problem than the canary's, which have a metric of their own."""
    return bool(gateway["ok"]) or (
        (canary := gateway["canary"]) is not None and (len(gateway["problems"]) == len(canary["problems"]))
    )


def _canary(vitals: Vitals) -> float | None:
    canary = None if vitals["gateway"] is None else vitals["gateway"]["canary"]
    return None if canary is None or (canary["ok"] and canary["at"] is None) else float(canary["ok"])


def _bans(which: str) -> Callable[[Vitals], Iterable[Sample]]:
    """A value of each ban that has one."""

    def samples(vitals: Vitals) -> Iterator[Sample]:
        for ban in vitals["policy"]["bans"]:
            if ban[which] is not None:
                yield (ban["ban"], ban["zone"]), ban[which]

    return samples


FAMILIES: Final[tuple[MetricFamily, ...]] = (
    _gauge("build_info", "Always 1; which version runs.", lambda v: [((v["tokgate"],), 1)], "version"),
    _gauge("start_time_seconds", "When it started, in seconds since the epoch.", _one(lambda v: v["started"])),
    _gauge("healthy", "1 while /healthz is green: every part does its work, and the newest policy is in force.",
           _one(lambda v: not problems(v))),
    # traffic
    _counter("decisions", "Decisions about connections and requests, allowed ones too. The verdict unreadable: "
             "refused, since it can't be read or hides its destination, which is no ban's refusal.",
             lambda v: [((network, seen, outcome), number) for network, seen, outcome, number in v["decisions"]],
             "network", "visibility", "verdict"),
    _gauge("connections", "Open connections.", _connections, "role", "state"),
    _counter("given_up", "Connections that ended before any decision: at a limit, on their way back here, silent, or "
             "with no opener to take them.",
             lambda v: [((why,), v["counts"].get(key, 0)) for why, key in _EARLY.items()], "why"),
    _counter("cut", "Connections that were ended because a ban began.", _counted("cut")),
    _counter("streams_dropped", "HTTP/2 streams that clients reset before anything was made of them.",
             _counted("stream-dropped")),
    _counter("floods", "HTTP/2 connections that were ended because their client reset too many streams, or sent too "
             "many frames that ask for nothing.", _counted("flood")),
    _counter("wrong_passwords", "Sign-ins to the proxy with a wrong password.", _counted("wrong-password")),
    _counter("handed_over", "Connections that gates gave to openers.", _counted("handed-over")),
    # destinations
    _counter("connect_errors", "Destinations that could not be connected to, by kind. no-port and no-descriptor are "
             "this machine's own.", _kinds(CONNECT_ERROR, ConnectError), "kind"),
    _counter("dns_errors", "Names of explicit clients that could not be resolved, by kind.",
             _kinds(DNS_ERROR, DnsError), "kind"),
    _histogram("connect_seconds", "How long destinations took to accept connections.", CONNECT_SECONDS),
    _gauge("accounts_available", "0 while users of an explicit proxy can't sign in, as when the directory is down.",
           _accounts),
    # processes
    _gauge("descriptors", "Descriptors that a process has open, about.", _descriptors(0), "worker"),
    _gauge("descriptors_limit", "How many it may have.", _descriptors(1), "worker"),
    _gauge("workers", "Processes: starting, serving, silent (stopped or hanging), or ending with their last "
           "connections.",
           _workers, "role", "state"),
    _counter("restarts", "Processes that died and were started again.", _by_role("restarts"), "role"),
    _counter("hangs", "Those of them that were killed because they reported nothing.", _by_role("hangs"), "role"),
    _counter("internal_errors", "Failures inside tokgate, by where; `on_error` decided then.",
             lambda v: [((where,), number) for where, number in v["errors"].items()], "where"),
    # the log
    _gauge("log_writable", "1 while records reach the file; 0 also when nobody writes it.",
           _one(lambda v: v["writer"] is not None and v["writer"]["failing_since"] is None)),
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
    _counter("log_foreign_lines", "Lines of the log that tokgate did not write.", _log(lambda log: log["foreign"])),
    _gauge("log_last_error", "Always 1; what the last of these failures said.",
           lambda v: [((said,), 1)] if v["writer"] and (said := v["writer"]["last_error"]) else [], "error"),
    # the policy
    _gauge("policy_info", "Always 1; which version is in force.", lambda v: [((v["policy"]["version"],), 1)],
           "version"),
    _gauge("policy_age_seconds", "Since the policy in force was read.", _one(lambda v: v["policy"]["age"])),
    _gauge("policy_newest_in_force", "0 while the newest edit is wrong and the policy before it stays.",
           _one(lambda v: v["policy"]["error"] is None)),
    _counter("policy_reloads", "Readings of the policy after the start, and a wrong one at it.",
             lambda v: [((name,), v["reloads"][key]) for name, key in _RESULTS.items()], "result"),
    _gauge("policy_last_reload_timestamp_seconds", "When it last had this result, in seconds since the epoch.",
           lambda v: [((name,), at) for name in _RESULTS if (at := v["reloads"][f"last_{name}"]) is not None],
           "result"),
    # the kernel
    _gauge("gateway_in_step", "1 while the kernel is what the policy needs; 0 for two minutes after it was not, too.",
           _gateway(_in_step)),
    _gauge("gateway_differences", "What differs from what should be loaded, by part.",
           lambda v: [((part,), len(found)) for part, found in (v["gateway"] or _NONE)["differences"].items()], "part"),
    _counter("gateway_restored", "How often the kernel was put back to what it should be.",
             _gateway(lambda gateway: gateway["restored"]["count"])),
    _gauge("gateway_canary", "1 while the canary's probes succeed; 0 from the second one that failed in a row on.",
           _one(_canary)),
    _counter("gateway_refused_packets", "Packets that the kernel refused, and no gate saw, by kind.",
             lambda v: [((kind,), number) for kind, number in (v["gateway"] or _NONE)["refused"].items()], "kind"),
    # the bans
    _gauge("ban_phase", "Always 1; in which phase a ban is, in each time zone.",
           lambda v: [((ban["ban"], ban["zone"], ban["phase"] or "unannounced"), 1) for ban in v["policy"]["bans"]],
           "ban", "zone", "phase"),
    _gauge("ban_overdue", "1 for a ban that is held past its end.", _bans("overdue"), "ban", "zone"),
    _gauge("ban_held", "1 for a ban that the files no longer state and nobody has lifted.", _bans("held"), "ban",
           "zone"),
    _gauge("ban_seconds_until_transition", "Until its phase, or a window of it, next changes; absent if never.",
           _bans("next_seconds"), "ban", "zone"),
    _gauge("ban_seconds_until_end", "Until its end; below 0 while held past it; absent if it has none, or is over.",
           _bans("end_seconds"), "ban", "zone"),
    _gauge("certificate_seconds_until_expiry", "Until the certificate authority of the page expires.",
           lambda v: [((file,), seconds) for file, seconds in v.get("certificates", {}).items()], "file"),
)  # fmt: skip


def families(vitals: Vitals) -> Iterator[Metric]:
    """All metrics that have a value, in the types of prometheus_client."""
    for family in FAMILIES:
        if family.kind == "histogram":
            *buckets, (_, total) = family.samples(vitals)
            yield HistogramMetricFamily(
                family.name, family.meaning, [(labels[0], value) for labels, value in buckets], total
            )
            continue
        make = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
        metric = make(family.name, family.meaning, labels=family.labels)
        for labels, value in family.samples(vitals):
            metric.add_metric(labels, float(value))
        if metric.samples:
            yield metric
