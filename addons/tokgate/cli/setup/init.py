"""`tokgate init`: asks what to ban for whom, and writes a first policy that is valid and passes its tests."""

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from whenever import SYSTEM_TZ, Instant, Time

from tokgate.blocklog.atomic_file import replace_file
from tokgate.cli.arguments import settle
from tokgate.cli.commands import CommandError, Exit, Subparsers, add_command
from tokgate.cli.configuration import default_policies
from tokgate.cli.output_file import POLICY_MODE
from tokgate.cli.terminal import narrate, visible
from tokgate.config.catalogue import catalogue_files
from tokgate.config.diagnostics import did_you_mean, render
from tokgate.config.format import networks, times, values
from tokgate.config.loader import load
from tokgate.config.yaml.source import SUFFIXES
from tokgate.policy.schedule import Edge, add_duration, resolve
from tokgate.policy.services import PatternKind, Service
from tokgate.policy.snapshot import compile_policy
from tokgate.policy.values.prefixes import IPNetwork, disjoint
from tokgate.traffic.policy_tests import run_tests

EPILOG: Final = """\
examples:
  tokgate init                        asks, and writes policies/policy.yaml
  tokgate init --yes                  asks nothing: TikTok, for this machine and its networks, from today until lifted
  tokgate init --yes --ends P6M       the same for six months
  tokgate init --yes --service tiktok deepseek --network 10.32.0.0/14 2001:db8:32::/48 --timezone Europe/Brussels

Then: tokgate check; tokgate run. Services come from the catalogue inside the package. A folder that holds a policy
already is left as it is (exit code 2)."""
_FILE: Final = "policy.yaml"


class _Questions:
    """Asks on the terminal until an answer can be read. What was said on the command line is not asked."""

    def __init__(self, *, silent: bool) -> None:
        self._silent: Final = silent

    def __call__[T](
        self, question: str, said: list[str] | None, default: tuple[str, ...], read: Callable[[list[str]], T]
    ) -> T:
        """The value of an answer. Raises CommandError for one that was given and is invalid, or at the end of input."""
        if said is not None or self._silent:
            try:
                return read(said if said is not None else list(default))
            except ValueError as error:
                raise CommandError(str(error), Exit.USAGE) from error
        while True:
            sys.stderr.write(f"{question} [{' '.join(default)}]: ")
            sys.stderr.flush()
            line = sys.stdin.readline()
            if not line:
                raise CommandError("the answers ended: nothing is written (--yes asks nothing)", Exit.USAGE)
            try:
                return read(line.split() or list(default))
            except ValueError as error:
                narrate(f"  {error}")


@dataclass(frozen=True, slots=True)
class Answers:
    """What a first policy says. `starts` and `ends` are as the file has them, `begins` and `over` what they mean."""

    services: tuple[Service, ...]
    networks: tuple[IPNetwork, ...]
    timezone: str
    starts: str
    begins: Instant
    ends: str
    over: Instant | None
    authority: str
    basis: str


def add_parser(subparsers: Subparsers) -> None:
    parser = add_command(subparsers, "init", EPILOG)
    parser.add_argument(
        "dir", metavar="DIR", nargs="?", type=Path, default=default_policies(), help="folder (default: ./policies)"
    )
    parser.add_argument("-y", "--yes", action="store_true", help="ask nothing")
    parser.add_argument("--service", nargs="+", metavar="NAME", help="what to ban (default: tiktok)")
    parser.add_argument("--network", nargs="+", metavar="CIDR", help="for whom (default: this host's networks)")
    parser.add_argument("--timezone", metavar="ZONE", help="of times without offset (default: this host's)")
    parser.add_argument("--starts", metavar="TIME", help="from when (default: today, 00:00)")
    parser.add_argument(
        "--ends",
        metavar="WHEN",
        help="how long (P6M), its last day (2027-06-30), an instant, or `lifted` (the default)",
    )
    parser.add_argument("--authority", metavar="TEXT", help="who decided it")
    parser.add_argument("--basis", metavar="TEXT", help="on which basis")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    folder: Path = options.dir
    if folder.exists() and not folder.is_dir():
        raise CommandError(f"{visible(str(folder))} is a file", Exit.USAGE)
    if folder.name.endswith(SUFFIXES):
        message = f"{visible(str(folder))} looks like a file: name the folder in which {_FILE} is to be"
        raise CommandError(message, Exit.USAGE)
    there = sorted(path for path in folder.rglob("*") if path.name.endswith(SUFFIXES)) if folder.exists() else []
    if there:
        message = f"{visible(str(there[0]))} is there already: nothing is overwritten; name another folder"
        raise CommandError(message, Exit.USAGE)
    now = Instant.now()
    answers = _answers(options, now)
    path, text = folder / _FILE, policy_text(answers).encode()
    _try_out(text, now)
    try:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        replace_file(path, text, POLICY_MODE)
    except OSError as error:
        raise CommandError(f"{visible(str(path))} can't be written: {error.strerror}") from error
    sys.stdout.write(f"{path}\n")
    where = "" if folder == default_policies() else f" {folder}"
    host, client = example_host(answers.services[0]), _clients(answers.networks)[0]
    if any(IPv4Address("127.0.0.1") in network for network in answers.networks):
        narrate(f"tokgate: next: tokgate check{where}; tokgate run{where}; and elsewhere")
        narrate(f"tokgate:       curl -i -x http://127.0.0.1:8080 https://{host}/")
    else:  # this machine itself is under no ban
        narrate(f"tokgate: next: tokgate check{where}; tokgate explain --client {client} --host {host}{where};")
        narrate(f"tokgate:       tokgate run --listen-host ADDRESS{where}, which clients reach; and on a client of")
        narrate(f"tokgate:       {answers.networks[0]}: curl -i -x http://ADDRESS:8080 https://{host}/")
    return Exit.DONE


def _answers(options: argparse.Namespace, now: Instant) -> Answers:
    """What was said on the command line, else asked, else (`--yes`) the defaults."""
    asks = _Questions(silent=options.yes)
    services = asks("Services to ban, of the catalogue (`?` lists them)", options.service, ("tiktok",), _services)
    networks = asks("Networks whose clients it holds for", options.network, tuple(map(str, host_networks())), _networks)
    zone = asks("Time zone", options.timezone and [options.timezone], (_zone(),), partial(_one, times.timezone))
    today = now.to_tz(zone).date().format_iso()
    default = f"{today}T00:00"
    starts = asks("From when", options.starts and [options.starts], (default,), lambda said: _starts(said, zone))
    begins = settle(times.moment(starts), zone)
    question = "Until when: how long (P6M), the last day (2027-06-30), an instant, or `lifted`"
    ends = asks(question, options.ends and [options.ends], (_LIFTED,), lambda said: _ends(said, begins, zone))
    line, operator = partial(_one, values.one_line), ("The operator of this network",)
    authority = asks("Who decided it", options.authority and [options.authority], operator, line)
    basis = asks("On which basis", options.basis and [options.basis], (f"Decision of {today}",), line)
    return Answers(services, networks, zone, starts, begins, *ends, authority, basis)


def _services(said: list[str]) -> tuple[Service, ...]:
    shipped = catalogue_files()
    names = dict.fromkeys(word.strip(",") for word in said)
    if "?" in names:
        raise ValueError(f"the catalogue has {', '.join(shipped)}")
    for name in names:
        if name not in shipped:
            raise ValueError(f"the catalogue has no service {visible(name)}{did_you_mean(name, shipped)}")
    policies = [load(shipped[name], Instant.now()).policy for name in names]
    return tuple(service for policy in policies if policy is not None for service in policy.services.values())


def _networks(said: list[str]) -> tuple[IPNetwork, ...]:
    return tuple(dict.fromkeys(_one(networks.cidr, [word.strip(",")]) for word in said))


def _starts(said: list[str], zone: str) -> str:
    settle(_one(times.moment, said), zone)
    return " ".join(said)


_LIFTED: Final = "lifted"


def _ends(said: list[str], begins: Instant, zone: str) -> tuple[str, Instant | None]:
    """How the file says when it ends, and the instant that this is; until lifted: nothing, and None."""
    text = " ".join(said)
    if text == _LIFTED:
        return "", None
    if text[:1].upper() == "P":
        stated, over = "duration", add_duration(begins, _one(times.duration, said), zone)
    elif len(text) == len("2027-06-30"):
        stated, over = "last_day", settle(_one(times.date, said).add(days=1).at(Time.MIN), zone)
    else:
        stated, over = "expires", resolve(_one(times.expiry, said), zone, Edge.END)
    if over <= begins:
        raise ValueError(f"`{text}` is not after the start")
    return f"{stated}: {text}", over


def _one[T](read: Callable[[str], T], said: list[str]) -> T:
    """The words as one value of a policy. Raises ValueError."""
    return read(" ".join(said))


def _zone() -> str:
    """The host's time zone; UTC where it has no name."""
    return Instant.now().to_tz(SYSTEM_TZ).tz_id or "UTC"


def _try_out(text: bytes, now: Instant) -> None:
    """Load the policy in a folder of its own and run its tests; a failure is a defect or a broken catalogue."""
    with TemporaryDirectory(prefix="tokgate-") as folder:
        (Path(folder) / _FILE).write_bytes(text)
        loaded = load(Path(folder), now)
    if loaded.policy is None:
        errors = "\n".join(render(error) for error in loaded.errors)
        raise CommandError(f"what would be written is no valid policy:\n{errors}", Exit.FINDINGS)
    failed = [result for result in run_tests(compile_policy(loaded.policy), loaded.tests) if not result.passed]
    if failed:
        raise CommandError(f"what would be written fails its own test: {failed[0].decision}", Exit.FINDINGS)


def policy_text(answers: Answers) -> str:
    """The policy as YAML, with a comment on each choice."""
    names = [service.name for service in answers.services]
    titles = " and ".join(service.title for service in answers.services)
    tests = "\n".join(f"  - {line}" for line in _tests(answers))
    return f"""\
# What tokgate enforces, as `tokgate init` wrote it. Change it at will: `tokgate check` says what is wrong with an edit,
# and a running tokgate takes it up at once. For completion in an editor: tokgate schema policy > policy.schema.json,
# and as the first line here: # yaml-language-server: $schema=policy.schema.json
version: 1

networks:
  here:
    title: This machine and its networks
    cidrs: {_list(map(str, answers.networks))}
    timezone: {answers.timezone}    # of all times below that have no offset

bans:
  {names[0]}-ban:
    title: {_text(titles)}
    # Who decided it and on which basis: the block page and the log say it, and with either the refusal is a 451.
    authority: {_text(answers.authority)}
    basis: {_text(answers.basis)}
    # contact: servicedesk@example.org
    services: {_list(names)}    # not defined here: from the catalogue inside the package
    networks: [here]
    starts: {answers.starts}
    {answers.ends or "# duration: P6M            "} # or `last_day: 2027-06-30`; without either: until you lift it
    action: block               # or `monitor`, which only records, or `warn`
    response: refuse            # or `page`: shows why over HTTPS too, where devices trust `tokgate authority init`

tests:    # `tokgate check` runs them
{tests}
"""


def example_host(service: Service) -> str:
    """A host that belongs to a service: of a name that it lists, else an address; its own name if it has neither."""
    for kind, before in ((PatternKind.SUFFIX, "www."), (PatternKind.EXACT, "")):
        for pattern in service.patterns:
            if pattern.kind is kind:
                return f"{before}{pattern.value}"
    return str(service.addresses[0].network_address) if service.addresses else service.name


def _tests(answers: Answers) -> Iterator[str]:
    before, begins = answers.begins.subtract(seconds=1), answers.begins
    for client in _clients(answers.networks):
        for service in answers.services:
            yield _test(client, example_host(service), begins, "block")
    first, host = _clients(answers.networks)[0], example_host(answers.services[0])
    yield _test(first, host, before, "allow")
    yield _test(first, "www.example.org", begins, "allow")
    if answers.over is not None:
        yield _test(first, host, answers.over.subtract(seconds=1), "block")
        yield _test(first, host, answers.over, "allow")


def _test(client: str, host: str, at: Instant, expect: str) -> str:
    asked = client if "." in client else _text(client)
    return f"{{client: {asked}, host: {host}, at: {_text(at.format_iso())}, expect: {expect}}}"


def _clients(networks: Sequence[IPNetwork]) -> list[str]:
    """A client of the first network of each version of IP."""
    first = {network.version: network for network in reversed(networks)}
    return [str(network[1] if network.num_addresses > 1 else network[0]) for _, network in sorted(first.items())]


def _list(words: Iterator[str] | Sequence[str]) -> str:
    return f"[{', '.join(_text(word) if ':' in word else word for word in words)}]"


def _text(text: str) -> str:
    """Text in quotes as YAML 1.2 and JSON have them."""
    return json.dumps(text, ensure_ascii=False)


_PROC: Final = Path("/proc/net")
_UP: Final = 0x1  # RTF_UP of linux/route.h


def host_networks() -> tuple[IPNetwork, ...]:
    """Loopback, and the prefixes of the host's interfaces: IPv4 first, without those inside others."""
    loopback = IPv4Network("127.0.0.0/8"), IPv6Network("::1/128")
    return tuple(disjoint((*v4_networks(_lines("route")), *v6_networks(_lines("if_inet6")), *loopback)))


def v4_networks(lines: Iterable[str]) -> Iterator[IPv4Network]:
    """The networks that are reached without a gateway, of the lines of /proc/net/route (numbers in host order)."""
    for line in list(lines)[1:]:
        _, destination, gateway, flags, _, _, _, mask, *_ = line.split()
        if int(flags, 16) & _UP and int(gateway, 16) == 0 and int(mask, 16) != 0:
            network = IPv4Network((_v4(destination), str(_v4(mask))))
            if not network.is_link_local:
                yield network


def v6_networks(lines: Iterable[str]) -> Iterator[IPv6Network]:
    """The networks of the addresses in the lines of /proc/net/if_inet6."""
    for line in lines:
        address, _, length, *_ = line.split()
        network = IPv6Interface((IPv6Address(bytes.fromhex(address)), int(length, 16))).network
        if not (network.is_link_local or network.is_loopback):
            yield network


def _v4(number: str) -> IPv4Address:
    return IPv4Address(bytes.fromhex(number)[::-1])


def _lines(name: str) -> list[str]:
    """The lines of a file in /proc/net; none where there is no such file, as without IPv6."""
    try:
        return (_PROC / name).read_text("ascii").splitlines()
    except OSError:
        return []
