"""The text of a first policy: one network, one ban, and the tests of both."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from whenever import Instant

from tokgate.policy.services import PatternKind, Service
from tokgate.policy.values.prefixes import IPNetwork


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What a first policy says. `starts` is as the file has it, `begins` the instant that it means."""

    services: tuple[Service, ...]
    networks: tuple[IPNetwork, ...]
    timezone: str
    starts: str
    begins: Instant
    authority: str
    basis: str


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
    # duration: P6M             # or `last_day: 2027-06-30`; without either it holds until you lift it
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
