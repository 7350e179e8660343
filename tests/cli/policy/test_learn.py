"""`tokgate service learn`: what a monitored ban on all saw becomes a service that its `except` can name."""

from dataclasses import replace
from pathlib import Path

import pytest

from labs.builders import at, policy_in
from labs.command_line import Command
from labs.logs import Record, write
from labs.samples import judged, seen, stamp
from tokgate.blocklog.records.folding import Fold
from tokgate.blocklog.records.traffic import repeats_record, traffic_record
from tokgate.policy.decision import Signal
from tokgate.policy.observation import Endpoint, Stage
from tokgate.policy.snapshot import Snapshot, compile_policy

KIOSK = """\
version: 1
services:
  library: {title: Library, names: {suffix: [library.example.org]}}
networks: {room: {cidrs: [192.0.2.0/24], timezone: UTC}}
bans:
  kiosk:
    title: The library alone
    reason: an exam
    services: all
    except: [library]
    networks: [room]
    starts: 2023-03-01
    action: monitor
  clips-ban: {title: No library, services: [library], networks: [room], starts: 2023-03-01, action: monitor}
"""


@pytest.fixture
def policy(policies: Path) -> Snapshot:
    """A folder with the policy, which is the working directory."""
    (policies / "policy.yaml").write_text(KIOSK)
    return compile_policy(policy_in(policies))


def asked(policy: Snapshot, name: str, client: int = 7, hour: int = 10, count: int = 1) -> Record:
    """A would-block of a name, or of an address without one, by a client of the room."""
    moment, names = f"2023-03-10T{hour:02}:00:00Z", [] if name[0].isdigit() else [(Signal.SNI, name)]
    observation = seen(Stage.TLS if names else Stage.ADDRESS, *names, client=Endpoint(f"192.0.2.{client}"))
    if not names:
        observation = replace(observation, destination=Endpoint(name, 22))
    judgement = judged(observation, moment, policy)
    fold, of = Fold((), None, 0.0, count, at(moment), at(moment)), "01862000-0000-7000-8000-000000000001"
    record = (
        traffic_record(stamp(moment), observation, judgement, policy)
        if count == 1
        else repeats_record(stamp(moment, 2), observation, judgement, policy, fold, of)
    )
    assert record is not None
    return record


def test_a_service_to_be_edited(policy: Snapshot, tokgate: Command) -> None:
    """Names stand under their domains, with how often, by how many, since when, and what an editor has to know."""
    write(
        Path("block.ndjson"),
        [
            asked(policy, "www.payroll.example.net", 7, 9),
            asked(policy, "WWW.payroll.example.net", 8, 8, count=11),
            asked(policy, "cdn.payroll.example.net", 8),
            asked(policy, "d1.cloudfront.net"),
            asked(policy, "d1.cloudfront.net", 8),
            asked(policy, "www.tiktok.com"),
            asked(policy, "203.0.113.9"),
            asked(policy, "on", 9),
        ],
    )
    outcome = tokgate("service", "learn", "--ban", "kiosk")
    assert (outcome.code, outcome.out) == (0, "policies/services/kiosk-learned.yaml: 5 names, 1 address\n")
    assert "add kiosk-learned to the `except` of kiosk" in outcome.err
    text = Path("policies/services/kiosk-learned.yaml").read_text()
    assert "of 18 events that kiosk would have refused, since 2023-03-10T08:00:00Z" in text
    assert (
        text[text.index("    names:") :]
        == """\
    names:
      exact:
        # example.net: 13 times, 2 clients
        - www.payroll.example.net  # 12 times, 2 clients, since 2023-03-10T08:00:00Z
        - cdn.payroll.example.net  # 1 time, 1 client, since 2023-03-10T10:00:00Z
        # cloudfront.net: 2 times, 2 clients
        - d1.cloudfront.net  # 2 times, 2 clients, since 2023-03-10T10:00:00Z; a shared host: below cloudfront.net \
are many customers' names
        # on: 1 time, 1 client
        - 'on'  # 1 time, 1 client, since 2023-03-10T10:00:00Z; a stranger: one client alone asked for this domain
        # tiktok.com: 1 time, 1 client
        - www.tiktok.com  # 1 time, 1 client, since 2023-03-10T10:00:00Z; belongs to tiktok; \
a stranger: one client alone asked for this domain
    addresses:  # asked for without a name
      - 203.0.113.9  # 1 time, 1 client, since 2023-03-10T10:00:00Z; a stranger: one client alone asked for this domain
"""
    )


@pytest.mark.parametrize("pseudonym", ["p-1f2e3d4c5b6a", "192.0.2.0/25"])
def test_hidden_clients_are_counted(policy: Snapshot, tokgate: Command, pseudonym: str) -> None:
    """A log under pseudonyms tells how many clients there were, and the file who they were no more than the log."""
    record = asked(policy, "www.example.net")
    record["source"] = {"address": pseudonym}
    write(Path("block.ndjson"), [record, asked(policy, "www.example.net")])
    assert tokgate("service", "learn", "--ban", "kiosk").code == 0
    text = Path("policies/services/kiosk-learned.yaml").read_text()
    assert "www.example.net  # 2 times, 2 clients" in text
    assert "192.0.2" not in text


def test_only_the_bans_own(policy: Snapshot, tokgate: Command) -> None:
    """Records of other bans, and names that are excepted by now, are not learned."""
    record = asked(policy, "www.example.net")
    record["rule"]["id"] = "clips-ban"
    write(Path("block.ndjson"), [record])
    outcome = tokgate("service", "learn", "--ban", "kiosk")
    assert (outcome.code, outcome.out) == (1, "")
    assert "the log has no would-blocks of kiosk that its `except` lacks" in outcome.err
    write(Path("block.ndjson"), [asked(policy, "www.example.net")])
    rules = Path("policies/policy.yaml")
    rules.write_text(KIOSK.replace("suffix: [library.example.org]", "suffix: [library.example.org, example.net]"))
    assert tokgate("service", "learn", "--ban", "kiosk").code == 1


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--ban", "kiosc"), 2, "there is no ban kiosc; did you mean `kiosk`?"),
        (("--ban", "clips-ban"), 2, "clips-ban is not on all services"),
        (("--ban", "kiosk", "--log", "none.ndjson"), 3, "there is no log at none.ndjson"),
        (("--ban", "kiosk", "--name", "../x"), 2, "can't be a name"),
        (("--ban", "kiosk", "--name", "library"), 1, "there is a service library already: choose another --name"),
        (("--ban", "kiosk", "--policies", "policies/policy.yaml"), 2, "is one file: a service file needs a folder"),
    ],
)
def test_what_cannot_be_learned(
    policy: Snapshot, tokgate: Command, options: tuple[str, ...], code: int, said: str
) -> None:
    write(Path("block.ndjson"), [asked(policy, "www.example.net")])
    outcome = tokgate("service", "learn", *options)
    assert outcome.code == code
    assert said in outcome.err
    assert not Path("policies/services").exists()


def test_damaged_lines_are_told(policy: Snapshot, tokgate: Command) -> None:
    """They keep nothing from being learned, and the exit code says so."""
    write(Path("block.ndjson"), [asked(policy, "www.example.net"), b"{\n"])
    outcome = tokgate("service", "learn", "--ban", "kiosk")
    assert (outcome.code, outcome.out) == (1, "policies/services/kiosk-learned.yaml: 1 name, 0 addresses\n")
    assert "block.ndjson:2" in outcome.err
    assert Path("policies/services/kiosk-learned.yaml").exists()
