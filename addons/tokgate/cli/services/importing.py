"""`tokgate service import`: a service file from a public list."""

import argparse
import json
import sys
from pathlib import Path

from tokgate.cli.exits import CommandError, Exit
from tokgate.cli.services.held import opened
from tokgate.cli.services.reading import Reading, as_json, read, tell
from tokgate.cli.services.writing import write
from tokgate.cli.terminal import narrate, shown
from tokgate.config.service_lists.selection import service_file


def run(options: argparse.Namespace) -> int:
    """Read the list, report what is not taken of it, and write the file."""
    name: str = options.name
    output: str | None = options.output
    target = None if output == "-" else Path(output or options.policies / "services" / f"{name}.yaml")
    if target is not None and target.exists() and not options.force:
        hint = f"`tokgate service update {name} …` shows what a list changes; --force writes over it"
        raise CommandError(f"{shown(str(target))} is there already: {hint}", Exit.FINDINGS)
    if output is None:
        if options.policies.is_file():
            raise CommandError(
                f"{shown(str(options.policies))} is one file: say with --output where to write", Exit.USAGE
            )
        _refuse_defined(options.policies, name, target)
    reading = read(options, name)
    selection = reading.selection
    tell(selection)
    if not selection.count:
        raise CommandError(f"{shown(str(options.file))} has nothing to take: no file is written", Exit.FINDINGS)
    title = options.title or reading.title or name
    text = service_file(name, title, reading.source, selection.patterns)
    if target is None and not options.json:
        sys.stdout.write(text)
    elif target is not None:
        write(target, text)
        narrate("tokgate: `tokgate diff` shows what it changes; a ban has to name it")
    if options.json:
        sys.stdout.write(json.dumps(_document(name, target, text, reading), ensure_ascii=False) + "\n")
    elif target is not None:
        sys.stdout.write(f"{shown(str(target))}: {_counts(reading)}\n")
    return Exit.FINDINGS if selection.unreadable else Exit.DONE


def _refuse_defined(policies: Path, name: str, target: Path | None) -> None:
    """End the command where another file of the policy defines the service."""
    policy = opened(policies) if policies.exists() else None
    service = None if policy is None else policy.services.get(name)
    taken = () if policy is None or policy.catalogue is None else policy.catalogue.services
    if service is None or name in taken or service.origin is None or Path(service.origin.file) == target:
        return
    raise CommandError(f"the policy has a service {name} already: {service.origin}", Exit.FINDINGS)


def _counts(reading: Reading) -> str:
    selection = reading.selection
    held = ", ".join(f"{len(values)} {kind}" for kind, values in selection.patterns.items() if values)
    left = f"{len(selection.dropped)} dropped, {len(selection.unreadable)} not read, {selection.repeated} repeated"
    return f"{held}; {left}"


def _document(name: str, target: Path | None, text: str, reading: Reading) -> dict[str, object]:
    selection = reading.selection
    return {
        "service": name,
        "file": None if target is None else str(target),
        "yaml": text if target is None else None,
        "format": reading.source.format,
        "names": {kind.value: len(values) for kind, values in selection.patterns.items()},
        "repeated": selection.repeated,
        "dropped": as_json(selection.dropped),
        "unreadable": as_json(selection.unreadable),
    }
