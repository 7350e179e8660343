"""Clients in the log: under the name that the policy says; who a pseudonym was, only both halves of a secret tell."""

from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from whenever import Instant

from labs.builders import exemption, present
from labs.samples import NOON, OBSERVER, SNAPSHOT, judged, seen, stamp
from tokgate.blocklog.integrity.checkpoint import KeyUnusable
from tokgate.blocklog.integrity.verify import Verifier
from tokgate.blocklog.paths import secret_path_for
from tokgate.blocklog.records.lifecycle import override_started
from tokgate.blocklog.records.record import WITHHELD, decode, encode
from tokgate.blocklog.records.traffic import traffic_record
from tokgate.blocklog.write.checkpointer import LogOptions
from tokgate.blocklog.write.pseudonyms import (
    NotAHalf,
    Pseudonyms,
    Secret,
    join,
    period_of,
    prefix,
    read_secret,
    reidentify,
    split,
    with_alias,
    write_secret,
)
from tokgate.blocklog.write.writer import LogWriter
from tokgate.policy.decision import Signal
from tokgate.policy.membership import Identity
from tokgate.policy.observation import Endpoint, Stage
from tokgate.policy.settings import ClientsShown

SECRET = Secret(30, 600, bytes(range(32)))


def test_pseudonyms_change_with_the_period() -> None:
    """The same within one, another in the next, another for another client and another secret."""
    later = SECRET.at(601)
    names = {
        SECRET.pseudonym("192.0.2.7"),
        SECRET.pseudonym("192.0.2.8"),
        later.pseudonym("192.0.2.7"),
        Secret(30, 600, bytes(32)).pseudonym("192.0.2.7"),
    }
    assert len(names) == 4
    assert SECRET.pseudonym("192.0.2.7") in names
    assert SECRET.at(603) == later.at(603)
    with pytest.raises(ValueError, match="before this secret"):
        later.at(600)


@given(st.binary(min_size=32, max_size=32), st.integers(1, 400), st.integers(0, 10_000))
def test_two_halves_make_the_whole(state: bytes, days: int, period: int) -> None:
    """Any secret comes back from its halves, in either order; neither half holds it."""
    secret = Secret(days, period, state)
    first, second = split(secret)
    assert join(first, second) == join(second, first) == secret
    assert state.hex() not in first + second


@pytest.mark.parametrize("other", ["", "tokgate-half 30 600 00 00", "half", split(SECRET)[0]])
def test_other_halves_are_refused(other: str) -> None:
    """A half of something else never gives wrong names."""
    with pytest.raises(NotAHalf):
        join(split(SECRET)[0], other)


def test_halves_of_something_else_are_refused() -> None:
    """Also where all but the first word fits: another format may derive its keys in another way."""
    first, second = split(SECRET)
    with pytest.raises(NotAHalf, match="not the two halves"):
        join(first, second.replace("tokgate-half", "tokgate-half-2"))


def test_reidentify() -> None:
    """Pseudonyms of several periods, with the addresses that are theirs; others are not told."""
    known = {SECRET.at(600).pseudonym("192.0.2.7"), SECRET.at(612).pseudonym("2001:db8::1")}
    among = ["192.0.2.6", "192.0.2.7", "2001:db8::1"]
    assert {address for _, address in reidentify(SECRET, known, among)} == {"192.0.2.7", "2001:db8::1"}
    assert list(reidentify(SECRET, [SECRET.pseudonym("192.0.2.9")], among)) == []
    with pytest.raises(ValueError, match="no pseudonym"):
        list(reidentify(SECRET, ["192.0.2.7"], among))


def test_the_secret_moves_on_and_is_overwritten(tmp_path: Path) -> None:
    """What lies on the machine gives no earlier period back; a clock that goes back keeps the later name."""
    path, moments, troubles = tmp_path / "block.pseudonyms", [NOON], list[Exception]()
    name = Pseudonyms(path, 7, lambda: moments[-1], troubles.append)
    first = name("192.0.2.7")
    before = read_secret(path)
    assert (before.period, path.stat().st_mode & 0o777) == (period_of(NOON, 7), 0o600)
    written = path.stat().st_ino
    assert name("192.0.2.7") == first
    assert path.stat().st_ino == written  # not replaced for each record
    moments.append(NOON.add(hours=24 * 7))
    assert name("192.0.2.7") != first
    assert read_secret(path) == before.at(before.period + 1)
    moments.append(NOON.add(hours=24 * 21))
    second = name("192.0.2.7")
    after = read_secret(path)
    assert (after, first != second) == (before.at(before.period + 3), True)
    moments.append(NOON)
    assert name("192.0.2.7") == second
    assert Pseudonyms(path, 30, lambda: moments[-1], troubles.append)("192.0.2.7") == second
    assert not troubles


@pytest.mark.parametrize(
    "content",
    [
        *("{}", "[]", "no json", "", "é", '{"days": 30, "period": 600, "state": "xy"}'),
        '{"days": null, "period": 600, "state": "00"}',
    ],
)
def test_without_a_key_clients_are_withheld(tmp_path: Path, content: str) -> None:
    """Never their addresses."""
    troubles: list[Exception] = []
    path = tmp_path / "block.pseudonyms"
    path.write_text(content)
    path.chmod(0o600)
    name = Pseudonyms(path, 30, Instant.now, troubles.append)
    assert name("192.0.2.7") == WITHHELD
    write_secret(path, SECRET)
    path.chmod(0o640)  # whoever can read it can tell who each pseudonym is
    assert name("192.0.2.7") == WITHHELD
    assert [type(trouble) for trouble in troubles] == [KeyUnusable, KeyUnusable]


def record_of(client: str, stage: Stage = Stage.TLS) -> dict[str, Any]:
    observation = seen(stage, client=Endpoint(client, 51234))
    return present(traffic_record(stamp(), observation, judged(seen(stage)), SNAPSHOT))


@pytest.mark.parametrize("stage", list(Stage))
@pytest.mark.parametrize("client", ["192.0.2.7", "::ffff:192.0.2.7", "2001:db8:1::7", "nonsense"])
def test_nothing_of_the_client_is_left(client: str, stage: Stage, valid_record: Any) -> None:
    """On schema, and neither address nor port anywhere in the line."""
    record = record_of(client, stage)
    line = encode(valid_record(with_alias(record, lambda _: "p1-alias"))).decode()
    told = client.removeprefix("::ffff:")
    assert told in encode(record).decode()
    assert told not in line
    assert "51234" not in line
    assert decode(line.encode())["source"] == {"address": "p1-alias"}
    assert decode(line.encode())["message"].startswith("p1-alias")


def test_users_have_aliases_too(valid_record: Any) -> None:
    """A person's name tells more than an address; and an alias is no address, which a SIEM would refuse as one."""
    observation = seen(identity=Identity(user="alice"))
    record = present(traffic_record(stamp(), observation, judged(observation), SNAPSHOT))
    hidden = valid_record(with_alias(record, lambda text: f"p1-{len(text)}"))
    assert record["message"].startswith("alice at 192.0.2.7 (")
    assert "alice" not in encode(hidden).decode()
    assert hidden["message"].startswith("p1-5 at p1-9 (")
    assert (hidden["user"], hidden["related"]["user"]) == ({"name": "p1-5"}, ["p1-5"])
    assert hidden["related"]["ip"] == ["203.0.113.5"]


def test_no_other_address_is_touched() -> None:
    """An address that only begins or ends like the client's stays as it is."""
    record = record_of("192.0.2.7")
    record["message"] = "192.0.2.7 192.0.2.71 1192.0.2.7 192.0.2.7.5 192.0.2.7, fe80::192.0.2.7"
    assert with_alias(record, lambda _: "X")["message"] == "X 192.0.2.71 1192.0.2.7 192.0.2.7.5 X, fe80::192.0.2.7"


@pytest.mark.parametrize(
    ("client", "shape", "held"),
    [
        ("192.0.2.7", "{}", "192.0.2.7"),
        ("192.0.2.7", "www.{}", "192.0.2.7"),
        ("192.0.2.7", "1.{}", "192.0.2.7"),
        ("192.0.2.7", "ip-{}.eu", "192-0-2-7"),
        ("192.0.2.7", "{}.in-addr", "7.2.0.192"),
        ("2001:db8:1::7", "{}", "2001-db8-1--7"),
        ("2001:db8:1::7", "{}.x", "2001-0db8-0001-0000-0000-0000-0000-0007"),
        ("2001:db8:1::7", "{}.ip6", "7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2"),
    ],
)
def test_names_that_hold_the_address(client: str, shape: str, held: str, valid_record: Any) -> None:
    """A client may ask for a name made of its address: it is hidden there, in every field that has the name."""
    name = (Signal.SNI, f"{shape.format(held)}.clips.example.org")
    observation = seen(Stage.TLS, name, client=Endpoint(client, 51234))
    record = present(traffic_record(stamp(), observation, judged(seen(Stage.TLS, name)), SNAPSHOT))
    hidden = valid_record(with_alias(record, lambda _: "p1-alias"))
    assert held in encode(record).decode()
    assert held not in encode(hidden).decode()
    assert hidden["destination"]["domain"] == f"{shape.format('p1-alias')}.clips.example.org"
    assert hidden["destination"]["subdomain"] == f"{shape.format('p1-alias')}.clips"


def test_overrides_name_no_client(valid_record: Any) -> None:
    """Else an exemption that one client has would tell who that pseudonym is; how narrow it was is still told."""
    nets = ("192.0.2.7/32", "192.0.2.9/32", "198.51.100.4/30", "203.0.113.0/24", "10.0.0.0/8", "2001:db8:1:2::7/128")
    hole = exemption(clients=tuple(map(ip_network, nets)), reason="192.0.2.7 needs it", by="alice", override=True)
    record = override_started(stamp(), hole, NOON.add(hours=1), "v1")
    hidden = valid_record(with_alias(record, prefix))
    around = ["192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "10.0.0.0/8", "2001:db8:1::/48"]
    assert hidden["tokgate"]["clients"] == around
    assert hidden["tokgate"]["widest"] == record["tokgate"]["widest"]
    assert hidden["user"] == {"name": "alice"}
    line = encode(hidden).decode()
    assert "192.0.2.0/24 needs it" in line
    assert not any(address in line for address in ("192.0.2.7", "192.0.2.9", "198.51.100.4", "2001:db8:1:2::7"))
    assert with_alias(record, lambda _: "p1-alias") == hidden


def test_addresses_in_any_spelling() -> None:
    """An IPv6 address that some library wrote in capitals names the client as well; so does one without its length."""
    record = record_of("2001:db8:1:2::a7")
    record["message"] += " (2001:DB8:1:2::A7)"
    assert "::a7" not in encode(with_alias(record, prefix)).decode().lower()
    for client, shown in (("2001:db8:1:2::a7", "2001:db8:1::/48"), ("192.0.2.7", "192.0.2.0/24")):
        override = {"tokgate": {"clients": [client]}}
        assert with_alias(override, prefix)["tokgate"]["clients"] == [shown]


@pytest.mark.parametrize("clients", list(ClientsShown))
def test_the_writer_names_them_so(tmp_path: Path, clients: ClientsShown, check_lines: Any) -> None:
    """From the policy's setting to the line on the disk, in a chain that verifies."""
    path = tmp_path / "block.ndjson"
    write_secret(secret_path_for(path), SECRET)
    path.touch()  # as after a restart
    writer = LogWriter(
        path, OBSERVER, LogOptions(clients=clients), clock=lambda: Instant.from_timestamp(600 * 30 * 86400)
    )
    writer.start()
    writer.put(record_of("192.0.2.7"))
    assert writer.close(60)
    source = check_lines(path)[0]["source"]
    assert (
        source
        == {
            ClientsShown.PLAIN: {"ip": "192.0.2.7", "port": 51234},
            ClientsShown.PREFIX: {"address": "192.0.2.0/24"},
            ClientsShown.PSEUDONYM: {"address": SECRET.pseudonym("192.0.2.7")},
        }[clients]
    )
    assert list(Verifier().run([path])) == []
