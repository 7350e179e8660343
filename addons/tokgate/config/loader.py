"""Loading: a file or folder to a policy, or to everything that is wrong with it. Never raises for bad input."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from whenever import Instant

from tokgate.config import build, checks, files, inventories, timing
from tokgate.config.diagnostics import Code, Diagnostic, Level
from tokgate.config.nodes import Scalar, compose
from tokgate.config.policy_tests import PolicyTest, build_tests
from tokgate.config.sections import Sections
from tokgate.config.source import Place, Report, decode
from tokgate.policy import collector
from tokgate.policy.snapshot import Policy

Progress = Callable[[int, int], None]
"""Called with (files read, files) while loading."""

_NOTHING: Final[Mapping[Path, bytes]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Loaded:
    """What was read; `policy` is None when there is any error."""

    policy: Policy | None
    diagnostics: tuple[Diagnostic, ...]
    tests: tuple[PolicyTest, ...]
    files: tuple[Path, ...]
    inventories: tuple[Path, ...] = ()
    """Files that the policy files name, also those that are not there."""

    @property
    def errors(self) -> tuple[Diagnostic, ...]:
        """What keeps the policy from loading."""
        return tuple(each for each in self.diagnostics if each.level is Level.ERROR)

    @property
    def warnings(self) -> tuple[Diagnostic, ...]:
        """What is probably not meant."""
        return tuple(each for each in self.diagnostics if each.level is Level.WARNING)


def load(
    path: Path, now: Instant, progress: Progress | None = None, *, proposed: Mapping[Path, bytes] = _NOTHING
) -> Loaded:
    """Read a policy file, or all below a folder. `now` only decides what counts as over.

    `proposed` are files as they would be: read in place of what is on the disk under their paths, if anything is.
    """
    report = Report()
    with collector.paused():
        paths = files.policy_files(path, report)
        if proposed:
            paths = tuple(dict.fromkeys((*paths, *proposed)))
        sections = Sections(whole=not report.diagnostics)
        for done, each in enumerate(paths, 1):
            _read(each, proposed.get(each), sections, report)
            if progress is not None:
                progress(done, len(paths))
        inventories.read(sections, report)
        checks.check(sections, report)
        timing.check(sections, now, report)
        named = tuple(sections.inventories)
        if any(each.level is Level.ERROR for each in report.diagnostics):
            return Loaded(None, report.sorted(), (), paths, named)
        policy = build.policy(sections)
        return Loaded(policy, report.sorted(), build_tests(sections, policy.networks.values()), paths, named)


def _read(path: Path, proposed: bytes | None, sections: Sections, report: Report) -> None:
    before = len(report.diagnostics)
    data = files.read(path, report) if proposed is None else proposed
    source = None if data is None else decode(str(path), data, report)
    root = None if source is None else compose(source, report)
    if len(report.diagnostics) > before and root is None:
        sections.whole = False
    elif source is not None and (root is None or (isinstance(root, Scalar) and root.null)):
        report.warning(source, Place(1, 1), Code.EMPTY_FILE, "the file says nothing")
    elif source is not None and root is not None:
        sections.add(source, root, report)
