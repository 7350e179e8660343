"""Properties of the ClientHello reader over generated hellos, cuts and garbage.

What a server says first: a HelloRetryRequest, told from everything else, however it comes.
"""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from mitmproxy.proxy.layers.tls import parse_client_hello

from labs.builders import present
from labs.hello_builder import HelloPieces
from tokgate.evasion import hello as build
from tokgate.wire.client_hello import ClientHello, ClientHelloError, is_grease, ja4
from tokgate.wire.hello_reader import (
    HELLO_RETRY,
    MAX_ANSWER,
    asks_again,
    may_begin_record,
    read_client_hello,
)
from tokgate.wire.host_names import NameStatus, can_be_dialled, listed_names

type Outcome = ClientHello | type[ClientHelloError] | None

label = st.from_regex(r"[A-Za-z0-9_-]{1,12}", fullmatch=True)
names = st.builds(
    lambda labels, top, dot: ".".join([*labels, top]) + dot,
    st.lists(label, max_size=5),
    label.map(lambda last: last + "g"),  # no name ends in a number
    st.sampled_from(["", "."]),
)
name_bodies = st.one_of(
    names.map(lambda name: build.server_name(name.encode())),
    st.lists(st.binary(max_size=20), max_size=3).map(lambda many: build.server_name(*many)),
    st.binary(max_size=12).map(lambda body: (build.SERVER_NAME, body)),
)
others = st.tuples(st.integers(1, 0xFFFF), st.binary(max_size=40))
known = st.one_of(
    st.lists(st.binary(min_size=1, max_size=8), min_size=1, max_size=4).map(lambda p: build.alpn(*p)),
    st.lists(st.integers(0, 0xFFFF), max_size=5).map(lambda v: build.supported_versions(*v)),
    st.lists(st.integers(0, 0xFFFF), max_size=8).map(lambda v: build.signature_algorithms(*v)),
    st.just(build.ech()),
)
messages = st.builds(
    lambda extensions, ciphers, session_id, version: build.hello(
        *extensions, ciphers=ciphers, session_id=session_id, version=version
    ),
    st.lists(st.one_of(name_bodies, others, known), max_size=10),
    st.lists(st.integers(0, 0xFFFF), min_size=1, max_size=20),
    st.binary(max_size=32),
    st.integers(0, 0xFFFF),
)
mutations = st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=4)


def outcome(data: bytes) -> Outcome:
    """What the reader says, with an error as a value. Anything else that it raises fails the test."""
    try:
        return read_client_hello(data)
    except ClientHelloError as error:
        return type(error)


def outcome_in_pieces(pieces: list[bytes]) -> Outcome:
    """The same by way of the buffer, which is fed no more once it has an answer."""
    buffer = HelloPieces()
    for piece in pieces:
        try:
            if seen := buffer.feed(piece):
                return seen
        except ClientHelloError as error:
            return type(error)
    return None


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    """`data` in pieces that end at the given offsets."""
    return [data[start:end] for start, end in pairwise([0, *sorted(c % (len(data) + 1) for c in cuts), len(data)])]


def mutate(data: bytes, changes: list[tuple[int, int]]) -> bytes:
    changed = bytearray(data)
    for position, value in changes:
        changed[position % len(changed)] = value
    return bytes(changed)


def assert_all_facts_readable(seen: ClientHello) -> None:
    """Every property, and the fingerprint, gives a value, whatever the hello holds."""
    assert (seen.name is None) is (seen.name_status is not NameStatus.VALID)
    assert seen.ech is (build.ECH in seen.extension_types)
    assert build.SERVER_NAME in seen.extension_types or seen.name_status is NameStatus.NONE
    assert isinstance(seen.alpn, tuple)
    assert isinstance(seen.versions, tuple)
    assert isinstance(seen.signature_algorithms, tuple)
    assert len(ja4(seen)) == 36


@given(
    data=st.binary(max_size=300),
    prefix=st.sampled_from([b"", b"\x16", b"\x16\x03\x01", b"\x16\x03\x01\x00\x20\x01\0\0\x1c", b"\x80"]),
)
def test_garbage(data: bytes, prefix: bytes) -> None:
    whole = prefix + data
    result = outcome(whole)
    assert outcome_in_pieces([whole[i : i + 1] for i in range(len(whole))]) == result


@given(message=messages, changes=mutations, size=st.integers(1, 300), cuts=st.lists(st.integers(0, 5000), max_size=8))
def test_mutated_hellos(message: bytes, changes: list[tuple[int, int]], size: int, cuts: list[int]) -> None:
    """A hello with a few octets changed gives the same answer whole and in pieces, and all of it can be read."""
    data = mutate(build.records(message, size), changes)
    result = outcome(data)
    assert outcome_in_pieces(cut(data, cuts)) == result
    if isinstance(result, ClientHello):
        assert_all_facts_readable(result)


@given(message=messages, cuts=st.lists(st.integers(1, 2000), max_size=12), trailing=st.binary(max_size=20))
def test_records_do_not_matter(message: bytes, cuts: list[int], trailing: bytes) -> None:
    """Any cut into records, with anything behind, is the same hello."""
    places = sorted({place for place in cuts if place < len(message)})
    result = outcome(build.records_at(message, places) + trailing)
    assert isinstance(result, ClientHello)
    assert result == outcome(build.records(message))
    assert_all_facts_readable(result)


@given(message=messages, size=st.integers(1, 300), changes=mutations)
def test_answers_are_final(message: bytes, size: int, changes: list[tuple[int, int]]) -> None:
    """Incomplete, then one answer, which no further octet changes."""
    data = mutate(build.records(message, size), changes)
    answers = [outcome(data[:end]) for end in range(len(data) + 1)]
    first = next((i for i, answer in enumerate(answers) if answer is not None), len(answers))
    assert all(answer == answers[first] for answer in answers[first:])


@given(name=names, before=st.lists(others, max_size=6), after=st.lists(others, max_size=6))
@example(name="example.org", before=[(0xFE0D, b"")], after=[(0xFE0D, b"")])
def test_the_name_is_found_anywhere(name: str, before: list[build.Extension], after: list[build.Extension]) -> None:
    """Among any other extensions, of which each counts by its type, also without a body."""
    seen = present(read_client_hello(build.records(build.hello(*before, build.server_name(name.encode()), *after))))
    assert (seen.name, seen.name_status) == (name, NameStatus.VALID)
    assert_all_facts_readable(seen)


def ends_otherwise(name: str) -> bool:
    """Whether mitmproxy takes a name that no host has: with a line's end, or a number as its last label."""
    return name.endswith("\n") or not can_be_dialled(name.encode())


@given(message=messages, size=st.integers(1, 300))
def test_agrees_with_mitmproxy(message: bytes, size: int) -> None:
    data = build.records(message, size)
    ours = present(read_client_hello(data))
    try:
        theirs = parse_client_hello(data)
    except ValueError:
        return  # it refuses a whole hello for the inside of one extension
    assert theirs is not None
    bodies = [body for kind, body in theirs.extensions if kind == build.SERVER_NAME]
    listed = [name for body in bodies for name in listed_names(body)]
    if len(bodies) < 2 and len(listed) < 2 and "xn--" not in (ours.name or "").lower():
        assert ours.name == theirs.sni or ends_otherwise(theirs.sni or "")
    assert list(ours.ciphers) == [cipher for cipher in theirs.cipher_suites if not is_grease(cipher)]
    assert list(ours.extension_types) == [kind for kind, _ in theirs.extensions if not is_grease(kind)]


def server_hello(random: bytes, kind: int = 2) -> bytes:
    """A ServerHello as a message: session id, cipher, compression, no extensions that matter."""
    return bytes((kind,)) + build.vector(3, b"\3\3" + random + b"\x20" + b"s" * 32 + b"\x13\1\0\0\0")


RETRY = server_hello(HELLO_RETRY)
HELLO = server_hello(b"r" * 32)
ALERT = b"\x15\3\3\0\2\1\x70"
CHANGE = b"\x14\3\3\0\1\1"

ANSWERS = [
    pytest.param(build.records(RETRY), True, id="retry"),
    pytest.param(build.records(RETRY) + CHANGE, True, id="retry_and_change"),
    pytest.param(build.records(RETRY, 10), True, id="fragments"),
    pytest.param(build.records(RETRY, 1), True, id="records_of_one_octet"),
    pytest.param(ALERT + build.records(RETRY), True, id="warning_first"),
    pytest.param(CHANGE + b"\x16\3\3\0\0" + build.records(RETRY, 40), True, id="odd_records_first"),
    pytest.param(CHANGE + ALERT + build.records(RETRY), True, id="warning_behind_change"),
    pytest.param(b"\x14\3\3\0\1\2" + build.records(RETRY), True, id="change_of_another_value"),
    pytest.param(b"\x15\3\3\1\2", False, id="long_alert"),
    pytest.param(b"\x15\3\3\0\3\1\x70\0", False, id="alert_and_more"),
    pytest.param(b"\x14\3\3\0\2\1\1", False, id="change_and_more"),
    pytest.param(build.records(HELLO), False, id="hello"),
    pytest.param(build.records(HELLO, 7), False, id="hello_in_fragments"),
    pytest.param(ALERT + build.records(HELLO), False, id="warning_and_hello"),
    pytest.param(build.records(server_hello(HELLO_RETRY[:-1] + b"\0")), False, id="last_octet_differs"),
    pytest.param(build.records(server_hello(HELLO_RETRY, kind=3)), False, id="other_message"),
    pytest.param(b"\x15\3\3\0\2\2\x28", False, id="fatal_alert"),
    pytest.param(b"\x17\3\3\0\1x", False, id="data"),
    pytest.param(b"HTTP/1.1 400 Bad Request\r\n", False, id="http"),
    pytest.param(ALERT * (1 + MAX_ANSWER // 7), False, id="endless_warnings"),
    pytest.param(b"\x16\3\3\0\0" * MAX_ANSWER, False, id="endless_empty_records"),
    pytest.param(b"\0" * MAX_ANSWER, False, id="zeros"),
    pytest.param(b"\0", False, id="an_octet_that_begins_no_record"),
    pytest.param(b"ok", False, id="shorter_than_a_record"),
    pytest.param(CHANGE + b"\0", False, id="no_record_behind_one"),
    pytest.param(b"", None, id="nothing"),
    pytest.param(build.records(RETRY)[:42], None, id="one_octet_short"),
]


def told(pieces: list[bytes]) -> bool | None:
    """What is told first of an answer that comes in pieces."""
    answers = (asks_again(b"".join(pieces[: number + 1])) for number in range(len(pieces)))
    return next((answer for answer in answers if answer is not None), None)


@pytest.mark.parametrize(("data", "answer"), ANSWERS)
def test_answers(data: bytes, answer: bool | None) -> None:
    """A retry is seen in every framing, or the client's second name would pass unread; nothing else is one."""
    assert told([data]) is answer
    assert told([data[i : i + 1] for i in range(len(data))]) is answer


@given(st.binary(max_size=200), st.sampled_from([b"", b"\x16\3\3\0\x60", b"\x16\3\3\0\x60\2\0\0\x5c\3\3"]))
def test_answers_that_are_garbage(data: bytes, prefix: bytes) -> None:
    """No answer of a server breaks the reader, and none is a retry by accident."""
    assert told([prefix + data]) is not True


@pytest.mark.parametrize(
    ("said", "may"),
    [(b"", False), (b"\x13", False), *((bytes((kind,)), True) for kind in range(0x14, 0x19)), (b"\x19", False)],
)
def test_what_may_hold_a_second_hello(said: bytes, may: bool) -> None:
    """Records of any type wait for the server's answer; other protocols' octets go on at once."""
    assert may_begin_record(said) is may
    assert may_begin_record(said + b"\x16") is (may or not said)
    assert may_begin_record(said + b"G") is may
