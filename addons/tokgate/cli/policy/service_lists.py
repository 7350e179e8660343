"""`tokgate service import` and `update`: a service file from a public list, and what a newer list changes in it."""

import argparse
import hashlib
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import yaml
from whenever import Instant

from tokgate.cli.exits import CommandError, Exit
from tokgate.cli.output_file import POLICY_MODE, becoming
from tokgate.cli.policy.known_services import KnownService, find, policy_if_any
from tokgate.cli.terminal import narrate, print_lines, styled, visible
from tokgate.config.loader import load
from tokgate.config.service_lists.lists import EntryKind, ListFormat, detect, read_domain_list, read_hosts
from tokgate.config.service_lists.selection import Options, Selection, names_of, select, service_file
from tokgate.policy.services import ServiceSource


def import_list(options: argparse.Namespace) -> int:
    """Read the list, report what is not taken of it, and write the file."""
    name: str = options.name
    output: str | None = options.output
    target = None if output == "-" else Path(output or options.policies / "services" / f"{name}.yaml")
    if target is not None and target.exists() and not options.force:
        hint = f"`tokgate service update {name} …` shows what a list changes; --force writes over it"
        raise CommandError(f"{visible(str(target))} is there already: {hint}", Exit.FINDINGS)
    if output is None:
        if options.policies.is_file():
            raise CommandError(
                f"{visible(str(options.policies))} is one file: say with --output where to write", Exit.USAGE
            )
        _refuse_defined(options.policies, name, target)
    selection, source = _read(options)
    if not selection.count:
        raise CommandError(f"{visible(str(options.file))} has nothing to take: no file is written", Exit.FINDINGS)
    text = service_file(name, options.title or name, source, selection.patterns)
    if target is None:
        sys.stdout.write(text)
    else:
        _write(target, text)
        narrate("tokgate: `tokgate diff` shows what it changes; a ban has to name it")
        taken = ", ".join(f"{len(values)} {kind}" for kind, values in selection.patterns.items() if values)
        left = f"{len(selection.dropped)} dropped, {len(selection.unreadable)} not read, {selection.repeated} repeated"
        sys.stdout.write(f"{visible(str(target))}: {taken}; {left}\n")
    return Exit.FINDINGS if selection.unreadable else Exit.DONE


def _refuse_defined(policies: Path, name: str, target: Path | None) -> None:
    """End the command where another file of the policy defines the service."""
    policy = policy_if_any(policies) if policies.exists() else None
    service = None if policy is None else policy.services.get(name)
    taken = () if policy is None or policy.catalogue is None else policy.catalogue.services
    if service is None or name in taken or service.origin is None or Path(service.origin.file) == target:
        return
    raise CommandError(f"the policy has a service {name} already: {service.origin}", Exit.FINDINGS)


_TINTS: Final = {"+": "32", "-": "31"}


def update(options: argparse.Namespace) -> int:
    """Compare a service with a newer list, show the difference, and with `--write` write it."""
    known = find(policy_if_any(options.policies), options.name)
    service, old = known.service, known.service.source
    file = _own_file(known) if options.write else None
    selection, source = _read(options, old)
    before, after = names_of(service), dict(selection.patterns)
    if options.keep:
        after = {kind: sorted({*after[kind], *before[kind]}) for kind in after}
    changes: list[tuple[str, EntryKind, str]] = []
    for kind, values in before.items():
        changes += [("+", kind, value) for value in sorted(set(after[kind]) - set(values))]
        changes += [("-", kind, value) for value in sorted(set(values) - set(after[kind]))]
    was = "not imported" if old is None else " ".join(filter(None, (old.revision, old.date)))
    signs = [sign for sign, _, _ in changes]
    print_lines((
        f"old: {service.name} ({visible(was)})",
        f"new: {visible(source.list)} ({source.revision} {source.date})",
        *(styled(f"{sign}{kind} {visible(value)}", _TINTS[sign]) for sign, kind, value in changes),
        f"{signs.count('+')} added, {signs.count('-')} removed",
    ))  # fmt: skip
    if file is not None:
        if not selection.count:
            raise CommandError(f"{visible(str(options.file))} has nothing to take: nothing is written", Exit.FINDINGS)
        _write(file, service_file(service.name, service.title, source, after, service))
        narrate(f"tokgate: wrote {visible(str(file))}")
    found = bool(selection.unreadable) or (options.exit_code and bool(changes))
    return Exit.FINDINGS if found else Exit.DONE


def _own_file(known: KnownService) -> Path:
    """The file of an imported service, which holds nothing else. Raises CommandError for any other."""
    service, origin = known.service, known.service.origin
    if known.from_catalogue or origin is None:
        raise CommandError(
            f"{service.name} is the catalogue's: import the list under a name of your own instead", Exit.FINDINGS
        )
    if service.source is None:
        why = "was not imported, and writing it again would lose its comments: add the names by hand"
        raise CommandError(f"{service.name} ({origin}) {why}", Exit.FINDINGS)
    path = Path(origin.file)
    said = yaml.load(path.read_text(encoding="utf-8-sig"), Loader=yaml.BaseLoader)  # noqa: S506  (text, lists, mappings)
    if set(said) - {"version", "services"} or set(said["services"]) != {service.name}:
        raise CommandError(f"{visible(origin.file)} holds more than {service.name}: it is not written", Exit.FINDINGS)
    return path


_LARGEST: Final = 64 << 20
"""Octets of a list."""
_DIGEST: Final = 16


def _read(options: argparse.Namespace, before: ServiceSource | None = None) -> tuple[Selection, ServiceSource]:
    """What is taken of the list of the options, and where it is from; stderr tells what is not taken, line by line.

    Where the options say nothing, the list is read as `before` was.
    """
    path: Path = options.file
    text = _text(path)
    chosen = options.format or (None if before is None else before.format)
    if chosen is None:
        chosen = detect(text)
        narrate(f"tokgate: {visible(str(path))} is read as {chosen}")
    last = before or ServiceSource(path.name, chosen)
    source = ServiceSource(
        list=options.source or last.list,
        format=chosen,
        revision=options.revision or f"sha256:{hashlib.sha256(text.encode()).hexdigest()[:_DIGEST]}",
        licence=options.licence or last.licence,
        date=(options.date or Instant.from_timestamp(int(path.stat().st_mtime)).to_tz("UTC").date()).format_iso(),
        attributes=tuple(options.attribute or last.attributes),
        subdomains=bool(options.subdomains or last.subdomains),
    )
    if chosen == ListFormat.HOSTS:
        found = read_hosts(str(path), text)
    else:
        found = read_domain_list(str(path), text, lambda other: _included(path, other))
    selection = select(found, Options(frozenset(source.attributes), subdomains=source.subdomains))
    for each in selection.dropped:
        narrate(f"{visible(str(each.place))}: dropped {visible(each.text)}: {each.why}")
    for each in selection.unreadable:
        narrate(f"{visible(str(each.place))}: not read: {visible(each.text)}: {each.why}")
    return selection, source


def _text(path: Path) -> str:
    if path.exists() and not path.is_file():
        raise CommandError(f"{visible(str(path))} is not a file", Exit.USAGE)
    with path.open("rb") as file:
        data = file.read(_LARGEST + 1)
    if len(data) > _LARGEST:
        raise CommandError(f"{visible(str(path))} is larger than {_LARGEST >> 20} MiB", Exit.FINDINGS)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise CommandError(f"{visible(str(path))} is not UTF-8", Exit.FINDINGS) from None


def _included(path: Path, name: str) -> str | None:
    """The text of a list beside this one; None if there is none, or if the name leads out of the folder."""
    other = path.parent / name
    if Path(name).name != name or not other.is_file():
        return None
    return _text(other)


def _write(path: Path, text: str) -> None:
    """Write the file. Raises CommandError where the text is no valid policy, and OSError."""
    with TemporaryDirectory(prefix="tokgate-") as folder:
        draft = Path(folder, "service.yaml")
        draft.write_text(text, encoding="utf-8")
        errors = load(draft, Instant.now()).errors
    if errors:
        raise CommandError(f"the file would not load: {errors[0].message} (line {errors[0].origin.line})")
    path.parent.mkdir(parents=True, exist_ok=True)
    with becoming(path) as draft:
        draft.write_text(text, encoding="utf-8")
    if path.is_file():
        path.chmod(POLICY_MODE)
