"""`make mutants`: puts small faults into the package and tells which of them no unit test notices.

Fails when fewer than 92 % are noticed, or when one that is not noticed is not in `survivors.yaml` with a reason. What
was found is kept in build/mutants: an interrupted run goes on, and a mutant runs again only after a change that bears
on it (of its module; for one that survived, of any test).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from mutants.operators import Mutant, mutants
from mutants.runs import PACKAGE, Job, Verdict, copies, find_reach, run, warm

PROJECT: Final = Path(__file__).resolve().parents[2]
WORK: Final = PROJECT / "build/mutants"
SURVIVORS: Final = Path(__file__).with_name("survivors.yaml")
FLOOR: Final = 92.0
"""Percent of mutants that tests have to notice."""
FOLDERS: Final = {
    "policy": ("policy", "config", "cli/policy"),
    "wire": ("wire",),
    "traffic": ("traffic", "gate", "carriers", "evasion", "mitm"),
    "gate": ("gate", "traffic", "carriers", "evasion"),
    "blocklog": ("blocklog", "cli/log", "cli/policy"),
    "accounts": ("accounts", "gate", "webui"),
    "webui/auth": ("webui",),
}
"""The folders of tests that mirror each package, or run what is in it."""
_BUDGET: Final = 30.0
"""Seconds of tests for one mutant: the quickest that reach it."""
_LEAST: Final = 20
"""Mutants of a package in any sample."""

_Place = tuple[str, str, str, str]
_Results = dict[str, dict[str, Any]]


def main() -> int:
    """Exit code 1: a survivor without a reason, or too many. 2: usage."""
    options = _options()
    found = {package: list(_mutants(package)) for package in options.packages}
    kept = kept_survivors()
    sample = {package: _sampled(all_, options, found) for package, all_ in found.items()}
    results = _run(sample, options.jobs)
    return _report(sample, results, kept)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    parser.add_argument("--sample", default="300", help="how many, of all packages; or `all`")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--packages", nargs="*", choices=FOLDERS, default=tuple(FOLDERS), metavar="PACKAGE")
    options = parser.parse_args()
    options.sample = None if options.sample == "all" else int(options.sample)
    options.packages = tuple(options.packages)
    return options


def _modules(package: str) -> Iterator[Path]:
    yield from sorted((PROJECT / PACKAGE / package).rglob("*.py"))


def _mutants(package: str) -> Iterator[Mutant]:
    for path in _modules(package):
        yield from _mutants_of(str(path.relative_to(PROJECT / PACKAGE)))


def _mutants_of(module: str) -> Iterator[Mutant]:
    yield from mutants(module, (PROJECT / PACKAGE / module).read_bytes())


def _sampled(mutants_: list[Mutant], options: argparse.Namespace, found: Mapping[str, list[Mutant]]) -> list[Mutant]:
    """A package's share of the sample."""
    if options.sample is None:
        return mutants_
    share = round(options.sample * len(mutants_) / max(1, sum(map(len, found.values()))))
    return drawn(mutants_, max(share, min(_LEAST, options.sample)), options.seed)


def drawn(mutants_: list[Mutant], number: int, seed: int) -> list[Mutant]:
    """That many, by a hash of each: a change of the code redraws hardly any but those of what changed."""
    chosen = sorted(mutants_, key=lambda mutant: _digest(str(seed), *mutant.place))[:number]
    return sorted(chosen, key=mutants_.index)


def kept_survivors() -> dict[_Place, str]:
    """The mutants that no test has to notice, each with its reason."""
    entries = yaml.safe_load(SURVIVORS.read_text()) or []
    return {(e["module"], e["function"], e["was"], e["became"]): e["reason"] for e in entries}


def stale(kept: Iterable[_Place]) -> list[_Place]:
    """Those that are no mutants any more."""
    modules = {place[0] for place in kept if (PROJECT / PACKAGE / place[0]).exists()}
    found = {each.place for module in modules for each in _mutants_of(module)}
    return [place for place in kept if place not in found]


def _digest(*parts: bytes | str) -> str:
    whole = hashlib.sha256()
    for part in parts:
        whole.update(part if isinstance(part, bytes) else part.encode())
        whole.update(b"\0")
    return whole.hexdigest()[:24]


def _digest_of(folders: Iterable[Path]) -> str:
    files = sorted({path for folder in folders for path in folder.rglob("*.py")})
    return _digest(*(part for path in files for part in (str(path.relative_to(PROJECT)), path.read_bytes())))


def _keys(sample: Iterable[Mutant]) -> dict[str, Mutant]:
    """Each mutant under a name that its module's text is part of."""
    sources: dict[str, bytes] = {}
    keyed = {}
    for mutant in sample:
        if mutant.module not in sources:
            sources[mutant.module] = (PROJECT / PACKAGE / mutant.module).read_bytes()
        keyed[_digest(mutant.module, sources[mutant.module], str(mutant.start), str(mutant.end), mutant.became)] = (
            mutant
        )
    return keyed


def _run(sample: Mapping[str, list[Mutant]], jobs: int) -> dict[str, list[tuple[Mutant, Verdict]]]:
    WORK.mkdir(parents=True, exist_ok=True)
    tests = _digest_of([PROJECT / "tests"])
    results = _earlier(WORK / "results.ndjson", tests)
    keyed = {package: _keys(chosen) for package, chosen in sample.items()}
    remaining = [(key, p, m) for p, chosen in keyed.items() for key, m in chosen.items() if key not in results]
    random.Random(0).shuffle(remaining)  # the time that is left can be told
    if remaining:
        warm()
        slots = copies(PROJECT, WORK / "trees", jobs)
        reach = _reach(slots, sample)
        names = {id(m): key for key, _, m in remaining}
        with Progress(
            TextColumn("mutants"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[said]}"),
            TimeRemainingColumn(), console=Console(stderr=True), auto_refresh=False,
        ) as progress, (WORK / "results.ndjson").open("a") as file:  # fmt: skip
            task = progress.add_task("", total=len(remaining), said="")
            said: Counter[Verdict] = Counter()
            for job, verdict, seconds in run((_job(m, p, reach) for _, p, m in remaining), slots):
                key = names[id(job.mutant)]
                results[key] = {"key": key, "verdict": verdict, "tests": tests, "seconds": round(seconds, 2)}
                file.write(json.dumps(results[key]) + "\n")
                file.flush()
                said[verdict] += 1
                progress.update(task, advance=1, said=", ".join(f"{n} {v}" for v, n in said.items()), refresh=True)
    return {p: [(m, Verdict(results[key]["verdict"])) for key, m in chosen.items()] for p, chosen in keyed.items()}


def _earlier(path: Path, tests: str) -> _Results:
    """What was found before and still holds."""
    lines = path.read_text().splitlines() if path.exists() else []
    known = {entry["key"]: entry for entry in map(json.loads, lines)}
    return {k: e for k, e in known.items() if Verdict(e["verdict"]).noticed or e["tests"] == tests}


def _reach(slots: Iterable[Path], packages: Iterable[str]) -> dict[str, Any]:
    """Which tests reach which lines; found once for a state of the package, a folder of tests, and what all share."""
    shared = _digest(_digest_of([PROJECT / PACKAGE, PROJECT / "tests/labs"]), *_tops())
    folders = dict.fromkeys(f for p in packages for f in FOLDERS[p] if (PROJECT / "tests" / f).is_dir())
    targets = {
        f"tests/{folder}": WORK / f"reach-{_digest(folder, shared, _digest_of([PROJECT / 'tests' / folder]))}.json"
        for folder in folders
    }
    missing = {folder: target for folder, target in targets.items() if not target.exists()}
    if missing:
        names = ", ".join(missing)
        Console(stderr=True).print(f"Running the tests once to see which lines each of them reaches: {names} …")
        find_reach(missing, slots)
    whole: dict[str, Any] = {"tests": [], "lines": {}}
    for target in targets.values():
        _add(whole, json.loads(target.read_text()))
    return whole


def _tops() -> Iterator[bytes]:
    """What configures all tests."""
    yield from (path.read_bytes() for path in sorted((PROJECT / "tests").glob("*.py")))


def _add(whole: dict[str, Any], part: Mapping[str, Any]) -> None:
    before = len(whole["tests"])
    whole["tests"] += part["tests"]
    for module, lines in part["lines"].items():
        for line, tests in lines.items():
            whole["lines"].setdefault(module, {}).setdefault(line, []).extend(before + test for test in tests)


def _job(mutant: Mutant, package: str, reach: Mapping[str, Any]) -> Job:
    """The quickest tests that reach a mutant; of what runs at import, those that reach its module anywhere."""
    lines: dict[str, list[int]] = reach["lines"].get(mutant.module, {})
    found = {test for line in mutant.lines for test in lines.get(str(line), ())}
    if not found and mutant.at_import:
        found = {test for tests in lines.values() for test in tests}
    folders = tuple(f"tests/{folder}/" for folder in FOLDERS[package])
    chosen, spent = [], 0.0
    for seconds, test in sorted(reach["tests"][index] for index in found):
        if test.startswith(folders) and spent < _BUDGET:
            chosen.append(test)
            spent += seconds
    return Job(mutant, tuple(chosen), spent)


def _report(
    sample: Mapping[str, list[Mutant]], results: Mapping[str, list[tuple[Mutant, Verdict]]], kept: Mapping[_Place, str]
) -> int:  # fmt: skip
    table = Table("package", "mutants", "killed", "by time", "survived", "unreached", "kept", "noticed")
    whole: Counter[str] = Counter()
    unkept = []
    for package, of_package in results.items():
        counts = Counter(str(verdict) for _, verdict in of_package)
        counts["all"] = len(of_package)
        missed = [mutant for mutant, verdict in of_package if not verdict.noticed]
        counts["kept"] = sum(mutant.place in kept for mutant in missed)
        unkept += [mutant for mutant in missed if mutant.place not in kept]
        whole += counts
        table.add_row(package, *_row(counts))
    table.add_row("all", *_row(whole), style="bold")
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table)
    gone = stale(kept)
    lines = [f"{m.module}:{m.lines.start} {m.function}: {m.operator}\n  - {m.was}\n  + {m.became}" for m in unkept] + [
        f"{SURVIVORS.name}: there is no such mutant any more: {place}" for place in gone
    ]
    enough = _percent(whole) >= FLOOR
    if not enough:
        lines.append(f"Only {_percent(whole):.1f} % were noticed: at least {FLOOR:.0f} % have to be.")
    if unkept:
        lines.append(f"{len(unkept)} survivors have no reason in {SURVIVORS.relative_to(PROJECT)}.")
    console.print(*lines, sep="\n", markup=False, highlight=False, soft_wrap=True)
    return int(bool(unkept or gone or not enough))


def _row(counts: Mapping[str, int]) -> list[str]:
    names = ("all", *Verdict, "kept")
    return [*(str(counts.get(name, 0)) for name in names), f"{_percent(counts):.1f} %"]


def _percent(counts: Mapping[str, int]) -> float:
    noticed = counts.get(Verdict.KILLED, 0) + counts.get(Verdict.TIMEOUT, 0)
    return 100 * noticed / max(1, counts.get("all", 0))


if __name__ == "__main__":
    sys.exit(main())
