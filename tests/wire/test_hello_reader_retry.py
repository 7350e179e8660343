"""What a server says first: a HelloRetryRequest, told from everything else, however it comes."""

import ssl
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labs import hello_builder as build
from tokgate.wire.hello_reader import HELLO_RETRY, MAX_ANSWER, asks_again, may_begin_record


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


@given(data=st.sampled_from([p.values[0] for p in ANSWERS]), cuts=st.lists(st.integers(0, 150), max_size=5))
def test_cuts_do_not_matter(data: bytes, cuts: list[int]) -> None:
    """TCP may cut an answer anywhere."""
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    pieces = [data[start:end] for start, end in pairwise(edges)]
    assert told(pieces) is told([data])


@given(st.binary(max_size=200), st.sampled_from([b"", b"\x16\3\3\0\x60", b"\x16\3\3\0\x60\2\0\0\x5c\3\3"]))
def test_garbage(data: bytes, prefix: bytes) -> None:
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


def test_openssl_asks_for_a_retry(tmp_path: Path) -> None:
    """A real server whose groups the client guessed wrong asks again; one whose groups it guessed right does not."""
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    make = f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=a -keyout {key}"
    subprocess.run([*make.split(), "-out", str(certificate)], check=True, capture_output=True)
    for curve, expected in (("secp521r1", True), ("X25519", False)):
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(certificate, key)
        if expected:
            server.set_ecdh_curve(curve)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        serving = server.wrap_bio(incoming, outgoing, server_side=True)
        incoming.write(build.openssl_hello())
        with pytest.raises(ssl.SSLWantReadError):
            serving.do_handshake()
        assert told([outgoing.read()]) is expected
