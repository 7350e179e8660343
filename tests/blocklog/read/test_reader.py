"""Reading back: every kind of file, every kind of damage, and the filters."""

import gzip
import json
import tracemalloc
from pathlib import Path
from typing import Any, BinaryIO, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labs.builders import at, present
from labs.logs import refusal, write
from labs.samples import SNAPSHOT, judged, seen, stamp
from tokgate.blocklog.paths import with_rotated
from tokgate.blocklog.read.reader import (
    MAX_LINE,
    Filter,
    Junk,
    Line,
    client_filter,
    client_network,
    find,
    holds,
    parse_line,
    read,
)
from tokgate.blocklog.records.record import WITHHELD, encode
from tokgate.blocklog.records.traffic import traffic_record
from tokgate.blocklog.write.pseudonyms import Secret
from tokgate.policy.membership import Identity


def numbered(*numbers: int) -> bytes:
    return b"".join(encode({"n": n}) for n in numbers)


def told(paths: list[Path]) -> list[Any]:
    """Numbers of records, and problems of junk with their line."""
    return [
        line.record["n"] if isinstance(line, Line) else (line.number, line.problem.partition(":")[0])
        for line in read(paths)
    ]


def test_junk_is_reported_in_its_place(tmp_path: Path) -> None:
    """Lines that are no records are told with their number and why, and the lines around them are read."""
    path = tmp_path / "block.ndjson"
    deep = b"[" * 100_000 + b"\n"
    wide = '{"n":7}'.encode("utf-16-be") + b"\n"  # JSON, but the log is UTF-8
    bad_text = b'{"n": "\xff"}\n'
    path.write_bytes(numbered(0) + b"\n" + b"not json\n" + b"[1]\n" + bad_text + deep + wide + numbered(1) + b'{"n":')
    assert told([path]) == [
        0,
        *((number, "not a record") for number in range(2, 8)),
        1,
        (9, "the last line is torn"),
    ]
    junk = [line for line in read([path]) if isinstance(line, Junk)]
    assert str(junk[-1]) == f"{path}:9: the last line is torn (5 bytes)"
    path.write_bytes(numbered(0)[:-1])
    assert told([path]) == [0]  # a line that lost only its newline is a record


@pytest.mark.parametrize("size", [MAX_LINE, MAX_LINE + 1, MAX_LINE + 2, 3 * MAX_LINE + 7])
def test_a_line_that_is_too_long(tmp_path: Path, size: int) -> None:
    """One of just the limit, its newline included, is read; a longer one is a piece of junk, whose size is told."""
    path = tmp_path / "block.ndjson"
    path.write_bytes(numbered(0) + b'{"n":"' + b"x" * (size - 9) + b'"}\n' + numbered(1))
    first, line, last = read([path])
    assert (type(first), type(last), last.number) == (Line, Line, 3)
    assert line.number == 2
    assert line.size == size if isinstance(line, Junk) else size == MAX_LINE


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """Twenty thousand records pass through without being kept."""
    path = tmp_path / "block.ndjson"
    path.write_bytes(numbered(*range(20_000)) + b"y" * (8 * MAX_LINE))
    tracemalloc.start()
    assert sum(1 for _ in read([path])) == 20_001
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * MAX_LINE


@given(st.lists(st.binary(max_size=40) | st.just(b'{"n":1}')))
def test_any_bytes_can_be_read(tmp_path_factory: pytest.TempPathFactory, parts: list[bytes]) -> None:
    """Each line is a record or junk, numbered from one, whatever the bytes are."""
    path = tmp_path_factory.getbasetemp() / "any.ndjson"
    data = b"\n".join(parts)
    path.write_bytes(data)
    lines = list(read([path]))
    assert [line.number for line in lines] == list(range(1, len(lines) + 1))
    assert len(lines) == data.count(b"\n") + bool(data and not data.endswith(b"\n"))
    assert all(isinstance(parse_line(part + b"\n", "f", 1), Line | Junk) for part in parts)


def test_rotated_files_come_in_their_order(tmp_path: Path) -> None:
    """Ours by their instant, logrotate's by number or date, the live file last, strangers not at all."""
    wanted = [
        "block-20230310T000000.000000Z.ndjson.gz",
        "block-20230311T000000.000000Z.ndjson",
        "block.ndjson-20230312.zst",
        "block.ndjson.10.gz",
        "block.ndjson.2",
        "block.ndjson.1",
        "block.ndjson",
    ]
    for name in [*wanted, "block-notes.ndjson", "block.ndjson.bak", "other.ndjson", "block.ndjson~"]:
        (tmp_path / name).touch()
    assert [path.name for path in with_rotated(tmp_path / "block.ndjson")] == wanted
    (tmp_path / "block.ndjson").unlink()
    assert [path.name for path in with_rotated(tmp_path / "block.ndjson")] == wanted[:-1]
    assert with_rotated(tmp_path / "nowhere" / "x.ndjson") == [tmp_path / "nowhere" / "x.ndjson"]


def test_a_compressed_copy_is_not_read_beside_its_file(tmp_path: Path) -> None:
    """While `gzip` is at work, and after `zstd`, both are there: each line is read once. The copy alone is the file."""
    for name in ("block-20230310T000000.000000Z.ndjson", "block.ndjson-20230311", "block.ndjson.1"):
        for packed in ("", ".gz", ".zst"):
            (tmp_path / f"{name}{packed}").touch()
        assert [path.name for path in with_rotated(tmp_path / "block.ndjson")] == [name]
        (tmp_path / name).unlink()
        assert [path.name for path in with_rotated(tmp_path / "block.ndjson")] == [f"{name}.gz"]
        for packed in (".gz", ".zst"):
            (tmp_path / f"{name}{packed}").unlink()


def record(**observed: Any) -> dict[str, Any]:
    observation = seen(**observed)
    made = present(traffic_record(stamp(), observation, judged(observation), SNAPSHOT))
    line: dict[str, Any] = json.loads(encode(made))
    return line


@pytest.mark.parametrize(
    ("wanted", "accepted"),
    [
        ({}, True),
        ({"since": at("2023-03-10T11:00:00.123456Z")}, True),
        ({"since": at("2023-03-10T11:00:00.123457Z")}, False),
        ({"until": at("2023-03-10T11:00:00.123456Z")}, False),
        ({"until": at("2023-03-10T11:00:00.123457Z")}, True),
        ({"client": client_network("192.0.2.7")}, True),
        ({"client": client_network("::ffff:192.0.2.7")}, True),
        ({"client": client_network("192.0.2.0/29")}, True),
        ({"client": client_network("192.0.2.8/29")}, False),
        ({"client": client_network("2001:db8::/32")}, False),
        ({"name": "example.org"}, True),
        ({"name": "www.clips.example.org"}, True),
        ({"name": "ample.org"}, False),
        ({"user": "alice"}, True),
        ({"user": "bob"}, False),
        ({"ban": "ban"}, True),
        ({"ban": "other"}, False),
        ({"action": "tls-handshake-refused"}, True),
        ({"action": "dns-query-blocked"}, False),
        ({"verdict": "block"}, True),
        ({"verdict": "monitor"}, False),
        ({"network": "office"}, True),
        ({"network": "home", "ban": "ban"}, False),
    ],
)
def test_each_filter(wanted: dict[str, Any], accepted: bool) -> None:
    """Every condition alone, on both sides of its boundary."""
    assert Filter(**wanted).accepts(record(identity=Identity(user="alice"))) is accepted


@pytest.mark.parametrize("bent", [{}, {"tokgate": 1, "event": [], "source": {"ip": 7}, "@timestamp": "yesterday"}])
def test_filters_bear_records_of_any_shape(bent: dict[str, Any]) -> None:
    """A record that lacks or bends a field doesn't meet a condition on it, and meets none of none."""
    assert Filter().accepts(bent)
    wanted: dict[str, Any] = dict.fromkeys(("user", "name", "ban", "action", "verdict", "network"), "x")
    wanted |= {"since": at("2020-01-01T00:00:00Z"), "client": client_network("0.0.0.0/0")}
    for name, value in wanted.items():
        assert not Filter(**{name: value}).accepts(bent)


def test_what_a_person_types_for_a_client() -> None:
    """An address, a network or a pseudonym, as the log shows them; anything else is an error, and finds nobody."""
    pseudonym = Secret(30, 600, bytes(32)).pseudonym("192.0.2.7")
    assert client_filter(pseudonym) == pseudonym
    assert client_filter(WITHHELD) == WITHHELD
    assert client_filter("192.0.2.7") == client_network("192.0.2.7/32")
    for text in ("nobody", "192.0.2.0/33", ""):
        with pytest.raises(ValueError, match=r"."):
            client_filter(text)


@pytest.mark.parametrize(
    ("client", "source", "accepted"),
    [
        ("p1-abc", {"address": "p1-abc"}, True),
        ("p1-abd", {"address": "p1-abc"}, False),
        ("withheld", {"address": "p1-abc"}, False),
        (client_network("2001:db8:1::/48"), {"ip": "2001:0DB8:1::0007"}, True),
        (client_network("192.0.2.0/24"), {"address": "192.0.2.0/25"}, True),
        (client_network("192.0.2.0/25"), {"address": "192.0.2.0/24"}, False),
    ],
)
def test_clients_as_a_log_may_name_them(client: Any, source: dict[str, str], accepted: bool) -> None:
    """An analyst sees the lines of a pseudonym, in any spelling of an address, and of prefixes within a network."""
    assert Filter(client=client).accepts({"source": source}) is accepted


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_octets_are_found_however_few_are_read_at_once(size: int) -> None:
    """A packed file gives what it has: what is looked for may come in many pieces."""

    class Pieces:
        def __init__(self) -> None:
            self._left = b"some before, what is looked for, and some behind"

        def __enter__(self) -> BinaryIO:
            return cast("BinaryIO", self)

        def __exit__(self, *_: object) -> None:
            pass

        def read(self, most: int) -> bytes:
            piece, self._left = self._left[: min(size, most)], self._left[min(size, most) :]
            return piece

    assert holds(Path("log"), b"what is looked for", lambda _: cast("BinaryIO", Pieces()))
    assert not holds(Path("log"), b"what is not", lambda _: cast("BinaryIO", Pieces()))


def test_the_record_with_an_id(tmp_path: Path) -> None:
    """The last of those that have it, where files overlap; none if no record has it."""
    path = tmp_path / "block.ndjson"
    records = [refusal() | {"n": number, "event": {"id": name}} for number, name in enumerate(("a", "b", "a", "c"))]
    write(path, [records[0], b"junk\n", *records[1:]])
    found = find([path], "a")
    assert found is not None
    assert (found.number, found.record["n"]) == (4, 2)
    assert find([path], "d") is None
    damaged = path.with_name("block.ndjson.1.gz")
    damaged.write_bytes(gzip.compress(path.read_bytes())[:-40])
    later = find([path, damaged], "c")
    assert later is not None
    assert later.file == str(path), "the packed copy ends before it"
