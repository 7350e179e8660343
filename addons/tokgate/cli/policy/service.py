"""`tokgate service`: services as the policy and the catalogue define them; lists from which they are made."""

import argparse
import hashlib
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, TypedDict

import yaml
from whenever import Instant

from tokgate.cli.arguments import argument_of, identifier
from tokgate.cli.commands import CommandError, Exit, Subparsers, add_command, add_subcommand
from tokgate.cli.configuration import default_log, default_policies
from tokgate.cli.log.source import add_log_option
from tokgate.cli.output_file import replace_policy_file
from tokgate.cli.policy_source import add_policies_option, open_policy
from tokgate.cli.terminal import narrate, print_json, print_lines, show_rows, styled, visible
from tokgate.config.catalogue import catalogue_files
from tokgate.config.diagnostics import did_you_mean
from tokgate.config.format import values
from tokgate.config.format.services import ListFormat
from tokgate.config.loader import load
from tokgate.config.service_lists.lists import detect, read_domain_list, read_hosts
from tokgate.config.service_lists.selection import Selection, SourceOutput, names_of, select, service_file, source_keys
from tokgate.policy.services import Match, PatternKind, Service, ServiceIndex, ServiceSource
from tokgate.policy.snapshot import Policy

_EPILOG: Final = """\
examples:
  tokgate service list                              what a ban can name: the policy's services and the catalogue's
  tokgate service show deepseek
  tokgate service test deepseek chat.deepseek.com   does this name belong to it?
  tokgate service import data/deepseek --name deepseek
                                                    a service file from a public list
  tokgate service update deepseek newer/deepseek    what a newer list changes
  tokgate service learn --ban kiosk                 a service file of what a monitored ban on all saw

Nothing is fetched: lists are files. docs/services.md says how the catalogue's services are kept."""
_LIST_EPILOG: Final = """\
example:
  tokgate service list --json                       the policy's services and the catalogue's, as one JSON object"""
_SHOW_EPILOG: Final = """\
example:
  tokgate service show tiktok                       its names, addresses and apps, and the bans that name it"""
_IMPORT_EPILOG: Final = """\
examples:
  tokgate service import domain-list-community/data/telegram --name telegram
  tokgate diff HEAD:policies policies                        review what it changes

formats:
  domain-list-community   include:, full:, domain:, regexp:, @attributes; included lists in the same folder
  hosts                   hosts(5), or names one a line

Public suffixes, shared hosts (CDNs, clouds) and keywords are dropped, and reported with their lines; so is what can't
be read. The file is POLICIES/services/NAME.yaml, with the list's digest and day; its title, and where the list is
published, are yours to write there. Exit code 1: some lines could not be read; the file has the others. Also 1, and no
file: the policy has a service of this name, or the list has nothing to take."""
_UPDATE_EPILOG: Final = """\
examples:
  tokgate service update telegram domain-list-community/data/telegram
  tokgate service update telegram domain-list-community/data/telegram --write

Lines with + are names that only the newer list has, lines with - those that it does not have. The list is read as the
last one was (format, attributes), unless an option says otherwise. Exit code 1: some lines could not be read."""
_LEARN_EPILOG: Final = """\
examples:
  tokgate service learn --ban kiosk --log block.ndjson
  tokgate diff HEAD:policies policies --log block.ndjson     what would still be refused

A ban on all services (`services: all`) with `action: monitor`, or in the days of `monitor_from`, logs what it would
refuse. The file, POLICIES/services/NAME.yaml, has those names under their registrable domains, each with how often,
by how many clients and since when. What is a shared host, another service's, or asked for by one client alone is
marked. Edit it, then add the service to the ban's `except`. Exit code 1: nothing to learn, the service is there
already, or lines could not be read."""
_TEST_EPILOG: Final = """\
examples:
  tokgate service test tiktok p16-sign-va.tiktokcdn.com
  tokgate service test tiktok 'https://play.google.com/store/apps/details?id=com.zhiliaoapp.musically'

Exit code 0: all belong to the service; 1: one doesn't."""


class ServicePatterns(TypedDict):
    """Name patterns by kind."""

    exact: list[str]
    suffix: list[str]
    regex: list[str]
    label: list[str]


class ServiceContent(TypedDict):
    """What belongs to the service; listings by store."""

    names: ServicePatterns
    addresses: list[str]
    store: dict[str, list[str]]


class ServiceShown(TypedDict):
    """`tokgate service show --json`."""

    name: str
    title: str
    bans: list[str]
    catalogue: bool
    origin: str
    source: SourceOutput | None
    content: ServiceContent


class ServiceList(TypedDict):
    """`tokgate service list --json`: each as `show` has it."""

    services: list[ServiceShown]


class NameTested(TypedDict):
    """A name: whether it belongs to the service and by which rule; other services by name, with their rules."""

    host: str
    belongs: bool
    rule: str | None
    others: dict[str, str]
    problem: str | None


class ServiceTested(TypedDict):
    """`tokgate service test --json`."""

    service: str
    results: list[NameTested]


def add_parser(subparsers: Subparsers) -> None:
    parser = add_command(subparsers, "service", _EPILOG)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="service_command", required=True)
    listing = _added(commands, _list, "list", "list all services, one a line", _LIST_EPILOG)
    showing = _added(commands, _show, "show", "show what belongs to a service", _SHOW_EPILOG)
    showing.add_argument("name", metavar="NAME")
    testing = _added(commands, _test, "test", "test names against a service", _TEST_EPILOG)
    testing.add_argument("name", metavar="NAME")
    testing.add_argument("hosts", metavar="HOST", nargs="+", help="a host name, an address or a URL")
    for each in (listing, showing, testing):
        each.add_argument("--json", action="store_true", help="one JSON object")
    importing = _added(commands, _import, "import", "make a service file of a list", _IMPORT_EPILOG)
    importing.add_argument("file", metavar="FILE", type=Path, help="the list")
    importing.add_argument("--name", required=True, type=identifier, help="what to call the service")
    updating = _added(commands, _update, "update", "show what a newer list changes", _UPDATE_EPILOG)
    updating.add_argument("name", metavar="NAME", help="the service")
    updating.add_argument("file", metavar="NEWLIST", type=Path, help="the newer list")
    updating.add_argument("--write", action="store_true", help="write the service's file")
    for each in (importing, updating):
        each.add_argument("--format", choices=list(ListFormat), help="of the list (default: told by its lines)")
        each.add_argument(
            "--attribute", action="append", type=_line, metavar="ATTR",
            help="only entries with this attribute, or with --attribute=-ATTR without it; may be given several times",
        )  # fmt: skip
        each.add_argument("--subdomains", action="store_true", help="take single hosts with all below them")
    learning = _added(commands, _learn, "learn", "make a service file of what a monitored ban saw", _LEARN_EPILOG)
    learning.add_argument("--ban", required=True, metavar="BAN", help="a ban on all services, with its would-blocks")
    add_log_option(learning, f"logs to learn from, those rotated away included (default: {default_log()})")
    learning.add_argument("--name", type=identifier, help="what to call the service (default: BAN-learned)")
    for each in (listing, showing, testing, importing, updating, learning):
        add_policies_option(each, argument=each is not testing)


def _added(
    commands: Subparsers, run: Callable[[argparse.Namespace], int], name: str, summary: str, epilog: str
) -> argparse.ArgumentParser:
    parser = add_subcommand(commands, name, summary, epilog)
    parser.set_defaults(run=run)
    return parser


@dataclass(frozen=True, slots=True)
class KnownService:
    """A service, the bans that name it, and whether the policy's own files define it."""

    service: Service
    bans: tuple[str, ...]
    from_catalogue: bool

    @property
    def where(self) -> str:
        """Its file and line; of the catalogue's its file there."""
        return f"catalogue/{self.service.name}.yaml" if self.from_catalogue else str(self.service.origin)


def _learn(options: argparse.Namespace) -> int:
    from tokgate.cli.policy.learn import learn  # it reads logs, which the others do without

    policy = open_policy(options.policies, Instant.now())
    return learn(options, policy, (each.service for each in all_services(policy)))


_line = argument_of(values.one_line)
_COLUMNS: Final = ("service", "title", "names", "addresses", "apps", "bans", "from")


def _list(options: argparse.Namespace) -> int:
    """List the policy's services and the catalogue's."""
    known = [_shown(each) for each in all_services(policy_if_any(options.policies))]
    if options.json:
        print_json(ServiceList(services=known), ascii_only=False)
        return Exit.DONE
    rows = [
        (
            each["name"],
            visible(each["title"]),
            str(sum(len(each["content"]["names"][kind.value]) for kind in PatternKind)),
            str(len(each["content"]["addresses"]) or ""),
            str(sum(map(len, each["content"]["store"].values())) or ""),
            ", ".join(each["bans"]),
            "catalogue" if each["catalogue"] else each["origin"],
        )
        for each in known
    ]
    show_rows(_COLUMNS, rows, right=(False, False, True, True, True))
    return Exit.DONE


def _show(options: argparse.Namespace) -> int:
    shown = _shown(find(policy_if_any(options.policies), options.name))
    if options.json:
        print_json(shown, ascii_only=False)
        return Exit.DONE
    content, bans = shown["content"], shown["bans"]
    lines = [f"{shown['name']}: {visible(shown['title'])}", f"  defined in {shown['origin']}"]
    lines.append(f"  banned by {', '.join(bans)}" if bans else "  no ban names it")
    for key, value in (shown["source"] or {}).items():
        if value:
            said = ", ".join(map(str, value)) if isinstance(value, list) else "yes" if value is True else str(value)
            lines.append(f"  imported: {key} {visible(said)}")
    lines += [f"  {kind} {visible(each)}" for kind in PatternKind for each in content["names"][kind.value]]
    lines += [f"  address {prefix}" for prefix in content["addresses"]]
    lines += [f"  store {store} {visible(app)}" for store, apps in content["store"].items() for app in apps]
    print_lines(lines)
    return Exit.DONE


def _shown(known: KnownService) -> ServiceShown:
    service = known.service
    names: ServicePatterns = {"exact": [], "suffix": [], "regex": [], "label": []}
    for each in service.patterns:
        names[each.kind.value].append(each.value)
    stores: dict[str, list[str]] = {}
    for listing in service.stores:
        stores.setdefault(listing.store, []).append(listing.identifier)
    return {
        "name": service.name,
        "title": service.title,
        "bans": list(known.bans),
        "catalogue": known.from_catalogue,
        "origin": known.where,
        "source": None if service.source is None else source_keys(service.source),
        "content": {"names": names, "addresses": [str(prefix) for prefix in service.addresses], "store": stores},
    }


def _test(options: argparse.Namespace) -> int:
    """Say of each name whether it belongs to the service, by which rule, and to which others it belongs."""
    policy = policy_if_any(options.policies)
    own = ServiceIndex([replace(find(policy, options.name).service, origin=None)])
    others = ServiceIndex(each.service for each in all_services(policy) if each.service.name != options.name)
    rows = list[NameTested]()
    for host in options.hosts:
        mine = _match(own, host)
        rule = next((hit.rule for hit in mine.hits if not hit.front), None)
        also = {hit.service: hit.rule for hit in _match(others, host).hits if not hit.front}
        rows.append({"host": host, "belongs": rule is not None, "rule": rule, "others": also, "problem": mine.problem})
    if options.json:
        print_json(ServiceTested(service=options.name, results=rows), ascii_only=False)
    else:
        print_lines(_verdict(options.name, row) for row in rows)
    return Exit.DONE if all(row["belongs"] for row in rows) else Exit.FINDINGS


def _match(index: ServiceIndex, host: str) -> Match:
    return index.match_url(host) if "://" in host else index.match(host)


def _verdict(name: str, row: NameTested) -> str:
    host, others = visible(row["host"]), "; also " + ", ".join(row["others"]) if row["others"] else ""
    if row["belongs"]:
        return f"{host} belongs to {name}: {row['rule']}{others}"
    if row["problem"]:
        return f"{host} is no host name: {row['problem']}"
    instead = ", ".join(f"{service} ({rule})" for service, rule in row["others"].items())
    return f"{host} does not belong to {name}" + (f"; it belongs to {instead}" if instead else "")


def policy_if_any(path: Path) -> Policy | None:
    """The policy; None where there is none at the default place: the catalogue is all there is then."""
    if not path.exists() and path == default_policies():
        return None
    return open_policy(path, Instant.now())


def find(policy: Policy | None, name: str) -> KnownService:
    """A service of the policy, else the catalogue's; a CommandError that suggests others if there is none."""
    if policy is not None and name in policy.services:
        bans = tuple(ban.name for ban in policy.bans.values() if name in ban.services)
        return KnownService(
            policy.services[name], bans, name in (policy.catalogue.services if policy.catalogue else ())
        )
    shipped = catalogue_files()
    if name not in shipped:
        known = [*shipped, *(() if policy is None else policy.services)]
        raise CommandError(f"there is no service {visible(name)}{did_you_mean(name, known)}", Exit.USAGE)
    its = load(shipped[name], Instant.now()).policy
    if its is None or name not in its.services:
        raise CommandError(f"the catalogue's file of {name} is damaged: install tokgate again")
    return KnownService(its.services[name], (), from_catalogue=True)


def all_services(policy: Policy | None) -> list[KnownService]:
    """The services that a ban can name, in the order of their names."""
    own = () if policy is None else policy.services
    return [find(policy, name) for name in sorted({*own, *catalogue_files()})]


def _import(options: argparse.Namespace) -> int:
    """Read the list, report what is not taken of it, and write the file."""
    name: str = options.name
    if options.policies.is_file():
        raise CommandError(f"{visible(str(options.policies))} is one file: import into a folder", Exit.USAGE)
    target: Path = options.policies / "services" / f"{name}.yaml"
    policy = open_policy(options.policies, Instant.now()) if options.policies.exists() else None
    service = None if policy is None else policy.services.get(name)
    taken = () if policy is None or policy.catalogue is None else policy.catalogue.services
    there = target if target.exists() else None if service is None or name in taken else service.origin
    if there is not None:
        hint = f"`tokgate service update {name} …` shows what a list changes"
        raise CommandError(f"there is a service {name} already, {visible(str(there))}: {hint}", Exit.FINDINGS)
    selection, source = _read(options)
    _write(target, service_file(name, name, source, selection.patterns), selection, options.file)
    narrate("tokgate: `tokgate diff` shows what it changes; a ban has to name it")
    kinds = ", ".join(f"{len(values)} {kind}" for kind, values in selection.patterns.items() if values)
    left = f"{len(selection.dropped)} dropped, {len(selection.unreadable)} not read, {selection.repeated} repeated"
    sys.stdout.write(f"{visible(str(target))}: {kinds}; {left}\n")
    return Exit.FINDINGS if selection.unreadable else Exit.DONE


_TINTS: Final = {"+": "32", "-": "31"}


def _update(options: argparse.Namespace) -> int:
    """Compare a service with a newer list, show the difference, and with `--write` write it."""
    known = find(policy_if_any(options.policies), options.name)
    service, old = known.service, known.service.source
    file = _own_file(known) if options.write else None
    selection, source = _read(options, old)
    changes: list[tuple[str, PatternKind, str]] = []
    for kind, before in names_of(service).items():
        changes += [("+", kind, value) for value in sorted(set(selection.patterns[kind]) - set(before))]
        changes += [("-", kind, value) for value in sorted(set(before) - set(selection.patterns[kind]))]
    was = "not imported" if old is None else " ".join(filter(None, (old.revision, old.date)))
    signs = [sign for sign, _, _ in changes]
    print_lines((
        f"old: {service.name} ({visible(was)})",
        f"new: {visible(source.list)} ({source.revision} {source.date})",
        *(styled(f"{sign}{kind} {visible(value)}", _TINTS[sign]) for sign, kind, value in changes),
        f"{signs.count('+')} added, {signs.count('-')} removed",
    ))  # fmt: skip
    if file is not None:
        text = service_file(service.name, service.title, source, selection.patterns, service)
        _write(file, text, selection, options.file)
        narrate(f"tokgate: wrote {visible(str(file))}")
    return Exit.FINDINGS if selection.unreadable else Exit.DONE


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
    source = replace(
        before or ServiceSource(path.name, chosen),
        format=chosen,
        revision=f"sha256:{hashlib.sha256(text.encode()).hexdigest()[:_DIGEST]}",
        date=Instant.from_timestamp(int(path.stat().st_mtime)).to_tz("UTC").date().format_iso(),
    )
    if options.attribute:
        source = replace(source, attributes=tuple(options.attribute))
    if options.subdomains:
        source = replace(source, subdomains=True)
    if chosen == ListFormat.HOSTS:
        found = read_hosts(str(path), text)
    else:
        found = read_domain_list(str(path), text, lambda other: _included(path, other))
    selection = select(found, source.attributes, subdomains=source.subdomains)
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


def _write(path: Path, text: str, selection: Selection, file: Path) -> None:
    """Write the file. Raises CommandError where nothing was taken or the text is no valid policy, and OSError."""
    if not selection.count:
        raise CommandError(f"{visible(str(file))} has nothing to take: nothing is written", Exit.FINDINGS)
    with TemporaryDirectory(prefix="tokgate-") as folder:
        draft = Path(folder, "service.yaml")
        draft.write_text(text, encoding="utf-8")
        errors = load(draft, Instant.now()).errors
    if errors:
        raise CommandError(f"the file would not load: {errors[0].message} (line {errors[0].origin.line})")
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_policy_file(path, text.encode())
