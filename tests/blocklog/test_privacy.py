"""Clients in the log: under the name that the policy says, and nowhere under another; who can tell who was meant."""

import json
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from whenever import Instant

from blocklog.samples import NOON, OBSERVER, SNAPSHOT, judged, seen, stamp
from builders import exemption
from tokgate.blocklog.aliases import WITHHELD
from tokgate.blocklog.custody import Sealing
from tokgate.blocklog.lifecycle import internal_error, override_started, stopped
from tokgate.blocklog.line import decode, encode
from tokgate.blocklog.observation import Endpoint, Stage
from tokgate.blocklog.privacy import (
    NotAHalf,
    Pseudonyms,
    Secret,
    disguised,
    join,
    period_of,
    prefix,
    read_secret,
    reidentify,
    secret_path_for,
    split,
    write_secret,
)
from tokgate.blocklog.records import traffic_record
from tokgate.blocklog.signing import KeyUnusable
from tokgate.blocklog.verify import Verifier
from tokgate.blocklog.writer import LogWriter
from tokgate.policy.bans import ClientsShown

SECRET = Secret(30, 600, bytes(range(32)))


def record_of(client: str, stage: Stage = Stage.TLS) -> dict[str, Any]:
    """A record about a client."""
    observation = seen(stage, client=Endpoint(client, 51234))
    record = traffic_record(stamp(), observation, judged(seen(stage)), SNAPSHOT)
    assert record is not None
    return record


@pytest.mark.parametrize("stage", list(Stage))
@pytest.mark.parametrize("client", ["192.0.2.7", "::ffff:192.0.2.7", "2001:db8:1::7", "nonsense"])
def test_nothing_of_the_client_is_left(client: str, stage: Stage, valid_record: Any) -> None:
    """On schema, and neither address nor port anywhere in the line."""
    record = record_of(client, stage)
    line = encode(valid_record(disguised(record, lambda _: "p1-alias"))).decode()
    told = client.removeprefix("::ffff:")
    assert told in encode(record).decode()
    assert told not in line
    assert "51234" not in line
    assert decode(line.encode())["source"] == {"address": "p1-alias"}
    assert decode(line.encode())["message"].startswith("p1-alias")


def test_no_other_address_is_touched() -> None:
    """An address that only begins or ends like the client's stays as it is."""
    record = record_of("192.0.2.7")
    record["message"] = "192.0.2.7 192.0.2.71 1192.0.2.7 192.0.2.7.5 192.0.2.7, fe80::192.0.2.7"
    assert disguised(record, lambda _: "X")["message"] == "X 192.0.2.71 1192.0.2.7 192.0.2.7.5 X, fe80::192.0.2.7"


def test_error_messages_too() -> None:
    """What an exception said, and its trace, name nobody either."""
    record = internal_error(stamp(), ValueError("no route for 192.0.2.7"), "decide")
    assert "192.0.2.7" not in encode(disguised(record, prefix)).decode().replace("192.0.2.0/24", "")


def test_overrides_name_no_client(valid_record: Any) -> None:
    """Else an exemption that one client has would tell who that pseudonym is; how narrow it was is still told."""
    nets = ("192.0.2.7/32", "192.0.2.9/32", "198.51.100.4/30", "203.0.113.0/24", "10.0.0.0/8", "2001:db8:1:2::7/128")
    hole = exemption(clients=tuple(map(ip_network, nets)), reason="192.0.2.7 needs it", by="alice", override=True)
    record = override_started(stamp(), hole, NOON.add(hours=1), "v1")
    hidden = valid_record(disguised(record, prefix))
    around = ["192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "10.0.0.0/8", "2001:db8:1::/48"]
    assert hidden["tokgate"]["clients"] == around
    assert hidden["tokgate"]["widest"] == record["tokgate"]["widest"]
    assert hidden["user"] == {"name": "alice"}
    line = encode(hidden).decode()
    assert "192.0.2.0/24 needs it" in line
    assert not any(address in line for address in ("192.0.2.7", "192.0.2.9", "198.51.100.4", "2001:db8:1:2::7"))
    assert disguised(record, lambda _: "p1-alias") == hidden


def test_records_about_tokgate_stay() -> None:
    """Where there is no client there is nothing to disguise."""
    record = stopped(stamp(), 1, "SIGTERM")
    assert disguised(record, lambda _: "X") is record


@pytest.mark.parametrize(
    ("address", "shown"),
    [("192.0.2.7", "192.0.2.0/24"), ("2001:db8:1:2::7", "2001:db8:1::/48"), ("nonsense", WITHHELD)],
)
def test_prefixes(address: str, shown: str) -> None:
    """The network around a client."""
    assert prefix(address) == shown


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
    moments.append(NOON.add(hours=24 * 14))
    second = name("192.0.2.7")
    after = read_secret(path)
    assert (after, first != second) == (before.at(before.period + 2), True)
    moments.append(NOON)
    assert name("192.0.2.7") == second
    assert Pseudonyms(path, 30, lambda: moments[-1], troubles.append)("192.0.2.7") == second
    assert not troubles


def test_without_a_key_clients_are_withheld(tmp_path: Path) -> None:
    """Never their addresses."""
    troubles: list[Exception] = []
    path = tmp_path / "block.pseudonyms"
    path.write_text("{}")
    path.chmod(0o600)
    name = Pseudonyms(path, 30, Instant.now, troubles.append)
    assert name("192.0.2.7") == WITHHELD
    path.chmod(0o644)
    assert name("192.0.2.7") == WITHHELD
    assert [type(trouble) for trouble in troubles] == [KeyUnusable, KeyUnusable]


@pytest.mark.parametrize("clients", list(ClientsShown))
def test_the_writer_names_them_so(tmp_path: Path, clients: ClientsShown, check_lines: Any) -> None:
    """From the policy's setting to the line on the disk, in a chain that verifies."""
    path = tmp_path / "block.ndjson"
    write_secret(secret_path_for(path), SECRET)
    writer = LogWriter(path, OBSERVER, Sealing(clients=clients), clock=lambda: Instant.from_timestamp(600 * 30 * 86400))
    writer.start()
    writer.put(record_of("192.0.2.7"))
    assert writer.close(10)
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


def test_a_device_has_no_place_for_a_secret(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """On standard output clients are withheld unless a key's place is given."""
    writer = LogWriter(Path("/dev/stdout"), OBSERVER, Sealing(clients=ClientsShown.PSEUDONYM))
    writer.start()
    writer.put(record_of("192.0.2.7"))
    writer.close(10)
    written = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert all(record["source"] == {"address": WITHHELD} for record in written)
    assert not Path("/dev/stdout.pseudonyms").exists()
