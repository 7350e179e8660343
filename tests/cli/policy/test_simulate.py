"""Simulate: a line for a line whatever comes in, in constant memory, without keeping a waiting program waiting."""

import io
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from whenever import Instant

from labs.builders import policy_in
from labs.command_line import POLICY, Command, explained
from labs.waiting import DEADLINE
from tokgate.cli.policy.simulate import MAX_LINE, Simulation, lines_of
from tokgate.policy.decide import decide
from tokgate.policy.snapshot import Snapshot, compile_policy
from tokgate.policy.values.hostname import AddressLiteral, normalise, parse_address
from tokgate.policy.values.text import utc
from tokgate.wire.host_names import can_be_dialled

AT = Instant.from_utc(2023, 5, 2, 8)
QUERY: dict[str, Any] = {"client": "192.0.2.7", "host": "www.clips.example.org"}
KEYS = [
    "client", "host", "at", "verdict", "phase", "service", "rule", "signal",
    "network", "ban", "exemption", "response", "reason", "next_change",
]  # fmt: skip


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    path = tmp_path_factory.mktemp("simulate") / "policy.yaml"
    path.write_text(POLICY)
    return compile_policy(policy_in(path, AT))


def answers(tokgate: Command, lines: Iterable[object], tmp_path: Path, *arguments: str) -> list[dict[str, Any]]:
    file = tmp_path / "queries.ndjson"
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return [json.loads(line) for line in tokgate("simulate", *arguments, str(file)).out.splitlines()]


def test_order_and_shape(policies: Path, tokgate: Command, tmp_path: Path) -> None:
    """One line for each, in order, with the keys of the contract; `at` of the line goes before --at."""
    lines: list[dict[str, Any]] = [
        QUERY,
        QUERY | {"at": "2023-03-09T23:59:59+01:00"},
        QUERY | {"at": "2023-03-10T00:00", "comment": "wall time; other keys are ignored"},
        {"client": "nobody", "host": "no..name"},
        {"client": "192.0.2.7", "host": ""},
        QUERY | {"at": None, "url": None},
        QUERY | {"host": "play.google.com", "url": "https://play.google.com/store/apps/details?id=org.example.clips"},
    ]
    found = answers(tokgate, lines, tmp_path, "--at", "2023-05-02T10:00")
    assert all(list(answer) == KEYS for answer in found)
    assert [(a["client"], a["host"]) for a in found] == [(q["client"], q["host"]) for q in lines]
    assert [(a["verdict"], a["reason"]) for a in found] == [
        ("block", "ban-block"),
        ("allow", "announced"),
        ("block", "ban-block"),
        ("allow", "invalid-client"),
        ("allow", "invalid-host"),
        ("block", "ban-block"),
        ("block", "ban-block"),
    ]
    assert found[0]["at"] == "2023-05-02T08:00:00Z"
    assert found[1]["at"] == "2023-03-09T22:59:59Z"


NO_QUERIES: list[tuple[bytes, object, object]] = [
    (b"", None, None),
    (b"   ", None, None),
    (b"not json", None, None),
    (b"{", None, None),
    (b"[]", None, None),
    (b'"text"', None, None),
    (b"null", None, None),
    (b"{}", None, None),
    (b'{"client": "192.0.2.7"}', "192.0.2.7", None),
    (b'{"host": "a.example"}', None, "a.example"),
    (b'{"client": 7, "host": "a.example"}', 7, "a.example"),
    (b'{"client": "192.0.2.7", "host": ["a.example"]}', "192.0.2.7", ["a.example"]),
    (b'{"client": "192.0.2.7", "host": null}', "192.0.2.7", None),
    (b'{"client": "192.0.2.7", "host": "a.example", "at": 5}', "192.0.2.7", "a.example"),
    (b'{"client": "192.0.2.7", "host": "a.example", "at": "now"}', "192.0.2.7", "a.example"),
    (b'{"client": "192.0.2.7", "host": "a.example", "at": "2023-02-30T00:00Z"}', "192.0.2.7", "a.example"),
    (b'{"client": "192.0.2.7", "host": "a.example", "at": "0001-01-01T00:00Z"}', "192.0.2.7", "a.example"),
    (b'{"client": "192.0.2.7", "host": "a.example", "url": 1}', "192.0.2.7", "a.example"),
    (b'{"client": 1e999, "host": "a.example"}', None, "a.example"),
    (b'{"client": NaN, "host": "a.example"}', None, None),
    (b'{"client": "192.0.2.7", "host": "\xff"}', None, None),
    (b'{"client": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", None, None),
    (b'{"client": ' + b"9" * 10_000 + b"}", None, None),
    (b'{"client": "192.0.2.7", "host": "' + b"a" * MAX_LINE + b'"}', None, None),
]


@pytest.mark.parametrize(("line", "client", "host"), NO_QUERIES, ids=[str(n) for n in range(len(NO_QUERIES))])
def test_what_is_no_query(policies: Path, tokgate: Command, line: bytes, client: object, host: object) -> None:
    """It gets its line, is counted, makes the exit code 1, and what follows is answered."""
    file = policies.parent / "queries.ndjson"
    file.write_bytes(line + b"\n" + json.dumps(QUERY).encode())
    outcome = tokgate("simulate", "--at", utc(AT), str(file))
    first, second = map(json.loads, outcome.out.splitlines())
    assert list(first) == KEYS
    assert first == dict.fromkeys(KEYS) | {"client": client, "host": host, "reason": "invalid-query"}
    assert second["verdict"] == "block"
    assert outcome.code == 1
    why, counted = outcome.err.splitlines()
    assert why.startswith("tokgate: line 1: ")
    assert counted == "tokgate: 1 of 2 lines hold no query (invalid-query)"


def test_lines_with_carriage_returns(policies: Path, tokgate: Command) -> None:
    """Files from other systems are read as well; of nothing there is nothing to say."""
    file = policies.parent / "queries.ndjson"
    file.write_bytes(json.dumps(QUERY).encode() + b"\r\n")
    assert tokgate("simulate", str(file)).code == 0
    outcome = tokgate("simulate", os.devnull)
    assert (outcome.code, outcome.out, outcome.err) == (0, "", "")


def test_deciding_that_fails_falls_back(snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for live traffic: what `on_error` says, and the next line is answered."""

    def fail(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr("tokgate.cli.policy.simulate.decided", fail)
    simulation = Simulation(snapshot, AT)
    for host, verdict in (("clips.example.org", "block"), ("a.example", "allow")):
        answer = json.loads(simulation.answer(json.dumps({"client": "192.0.2.7", "host": host}).encode()))
        assert (answer["verdict"], answer["reason"]) == (verdict, "internal-error")
    assert simulation.failed == 2


@given(st.lists(st.binary(max_size=12)), st.lists(st.integers(1, 9), min_size=1))
def test_lines_do_not_depend_on_how_they_come(lines: list[bytes], sizes: list[int]) -> None:
    data = b"\n".join(lines)
    source, step = io.BytesIO(data), iter(sizes * (len(data) + 1))

    class Pieces(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, into: Any, /) -> int:
            piece = source.read(min(next(step, 1), len(into)))
            into[: len(piece)] = piece
            return len(piece)

    expected = data.split(b"\n")
    if not expected[-1]:
        expected.pop()
    assert list(lines_of(io.BufferedReader(Pieces()))) == expected


@pytest.mark.parametrize("excess", [0, 1, 300_000])
def test_long_lines_are_skipped_to_their_end(excess: int) -> None:
    """A line that is too long is one line, and is not kept."""
    data = b"a\n" + b"x" * (MAX_LINE + excess) + b"\nb\n" + b"y" * (MAX_LINE + 1)
    lines = lines_of(io.BufferedReader(io.BytesIO(data)))
    assert [line if line is None else line[:1] for line in lines] == [b"a", None if excess else b"x", b"b", None]


def start(*arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    command = (sys.executable, "-m", "tokgate", "simulate", *arguments)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, **options)


def test_a_program_can_ask_as_it_goes(policies: Path) -> None:
    """Each query is answered while the pipe stays open; Ctrl-C ends the waiting without a trace."""
    with start("-", stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for number in range(3):
            host = f"host{number}.example.org"
            process.stdin.write(json.dumps(QUERY | {"host": host}).encode() + b"\n")
            process.stdin.flush()
            readable, _, _ = select.select([process.stdout], [], [], DEADLINE)
            assert readable, "no answer while the pipe is open"
            assert json.loads(process.stdout.readline())["host"] == host
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=DEADLINE)
        assert (process.returncode, errors) == (130, b"")


def test_constant_memory(policies: Path) -> None:
    """A hundred thousand clients and names more need no more memory."""

    def peak(count: int) -> int:
        """Kilobytes at most."""
        file = policies.parent / f"{count}.ndjson"
        with file.open("w") as out:
            for number in range(count):
                client = f"192.0.{number >> 8 & 255}.{number & 255}"
                out.write(f'{{"client": "{client}", "host": "host{number}.clips.example.org"}}\n')
        with start(str(file)) as process:
            assert process.stdout is not None
            assert sum(1 for _ in process.stdout) == count
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        return usage.ru_maxrss

    small, large = peak(70_000), peak(170_000)  # both above the 65,536 clients that a snapshot remembers
    assert large - small < 4_000


HOSTS = st.one_of(
    st.sampled_from(
        [
            "clips.example.org",
            "www.Clips.example.org.",
            "static.example.net",
            "notclips.example.org",
            "203.0.113.7",
            "play.google.com",
            "[2001:db8::1]:443",
            "a..b",
            "",
            "\ud800",
            "\u3002",
        ]
    ),
    st.text(max_size=20),
)
CLIENTS = st.one_of(
    st.sampled_from(["192.0.2.7", "192.0.2.9", "192.0.2.70", "198.51.100.1", "203.0.113.1", "::ffff:192.0.2.9"]),
    st.ip_addresses().map(str),
    st.text(max_size=12),
)
INSTANTS = st.integers(1_670_000_000, 1_700_000_000).map(Instant.from_timestamp)


@given(CLIENTS, HOSTS, INSTANTS)
@example("192.0.2.9", "clips.example.org", Instant.from_utc(2023, 6, 30, 16))
def test_agrees_with_decide(snapshot: Snapshot, client: str, host: str, at: Instant) -> None:
    """Simulate says, for any query, what `decide` says; so does explain, of a client and a host that there can be."""
    decision = decide(snapshot, client, host, at)
    expected = {
        "client": client,
        "host": host,
        "at": utc(at),
        "next_change": None if decision.next_change is None else utc(decision.next_change),
    } | {name: getattr(decision, name) for name in KEYS[3:-1]}
    query = {"client": client, "host": host, "at": utc(at)}
    assert json.loads(Simulation(snapshot, None).answer(json.dumps(query).encode())) == expected
    name = normalise(host)
    can_be = isinstance(name, AddressLiteral) or can_be_dialled(str(name).encode("utf-8", "replace"))
    if parse_address(client) is not None and can_be:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("tokgate.cli.policy.explain.open_source", lambda *_: snapshot)
            answer = explained(f"--client={client}", f"--host={host}", "--at", utc(at))
        assert {key: answer[key] for key in answer if key not in ("steps", "carriers")} == expected


def test_a_url_is_enough(policies: Path, tokgate: Command, tmp_path: Path) -> None:
    """A line with a URL alone is decided as `explain --url` does, and one with neither is told apart on stderr."""
    lines: list[dict[str, Any]] = [
        {"client": "192.0.2.7", "url": "https://www.clips.example.org/", "at": utc(AT)},
        {"client": "192.0.2.7", "url": "https://www.example.com/", "at": utc(AT)},
    ]
    assert [each["verdict"] for each in answers(tokgate, lines, tmp_path)] == ["block", "allow"]
    file = tmp_path / "none.ndjson"
    bent = '{"client": 1, "host": "x.example"}\n{"client": "192.0.2.7", "host": "x.example", "at": "noon"}\n'
    file.write_text(f'{{"client": "192.0.2.7"}}\n{{"host": "x.example"}}\nnot JSON\n{bent}')
    said = tokgate("simulate", str(file)).err.splitlines()
    assert said[:4] == [
        "tokgate: line 1: `host` or `url` is missing",
        "tokgate: line 2: `client` is missing",
        "tokgate: line 3: not JSON, and no line of Squid, dnsmasq, Unbound, Zeek or conntrack",
        "tokgate: line 4: `client` is not text",
    ]
    assert said[4].startswith("tokgate: line 5: 'noon' is no time: use 2023-03-10T00:00:00Z, ")
