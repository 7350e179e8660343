"""Loads a file or folder as a policy, or returns all its errors. Never raises for bad input."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from whenever import Instant

from tokgate.config import build, catalogue
from tokgate.config.checks import named_files, references, times
from tokgate.config.diagnostics import Code, Diagnostic, Level, Place
from tokgate.config.format.test_model import PolicyTest
from tokgate.config.sections import Sections
from tokgate.config.yaml.nodes import Scalar, compose
from tokgate.config.yaml.source import Report, TextSpan, decode, policy_files, read_file, read_ignores, read_named_file
from tokgate.policy.snapshot import Policy, gc_paused

_NOTHING: Final[Mapping[Path, bytes]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Loaded:
    """The result of loading; `policy` is None if there is any error."""

    policy: Policy | None
    diagnostics: tuple[Diagnostic, ...]
    tests: tuple[PolicyTest, ...]
    files: tuple[Path, ...]
    named_files: tuple[Path, ...] = ()
    """Inventories and files of names that the policy files name, also missing ones."""
    ignored: frozenset[Place] = frozenset()
    """Warnings that comments in the files silence; the diagnostics don't have them."""

    @property
    def errors(self) -> tuple[Diagnostic, ...]:
        """The diagnostics that keep the policy from loading."""
        return tuple(each for each in self.diagnostics if each.level is Level.ERROR)

    @property
    def warnings(self) -> tuple[Diagnostic, ...]:
        """The diagnostics of what is allowed but probably a mistake."""
        return tuple(each for each in self.diagnostics if each.level is Level.WARNING)


def load(
    path: Path,
    now: Instant,
    *,
    proposed: Mapping[Path, bytes] = _NOTHING,
    base: Path | None = None,
) -> Loaded:
    """Read a policy file, or all below a folder. `now` only decides which bans and exemptions have ended.

    `proposed` are contents by path, read in place of what is on the disk. Files below `base` are named relative to it.
    """
    report = Report(base)
    with gc_paused():
        paths = policy_files(path, report)
        if proposed:
            paths = tuple(dict.fromkeys((*paths, *proposed)))
        sections = Sections(path if path.is_dir() else path.parent, whole=not report.failed)
        for each in paths:
            read = read_file if each == path else read_named_file  # who names a pipe has it read
            data = proposed[each] if each in proposed else read(each, report)
            _read(each, data, sections, report)
        shipped = catalogue.complete(sections, report)
        named_files.read_inventories(sections, report)
        named_files.read_names(sections, report)
        references.check(sections, report)
        networks = references.check_networks(sections, report)
        times.check(sections, networks, now, report)
        named = tuple(dict.fromkeys((*sections.inventories, *(file for file, _ in sections.name_lists))))
        if report.failed:
            return Loaded(None, report.sorted(), (), paths, named)
        policy = build.policy(sections, networks, shipped)
        tests = build.build_tests(sections, policy.networks.values())
        ignored = frozenset(report.ignored)
        return Loaded(policy, report.sorted(), tests, paths, named, ignored)


def _read(path: Path, data: bytes | None, sections: Sections, report: Report) -> None:
    before = len(report.diagnostics)
    source = None if data is None else decode(path, data, report)
    root = None if source is None else compose(source, report)
    if data is None or (len(report.diagnostics) > before and root is None):
        sections.whole = False
    elif source is not None and (root is None or (isinstance(root, Scalar) and root.null)):
        report.warning(source, TextSpan(1, 1), Code.EMPTY_FILE, "the file says nothing")
    elif source is not None and root is not None:
        sections.add(source, root, report)
    if source is not None:
        read_ignores(source, report)
