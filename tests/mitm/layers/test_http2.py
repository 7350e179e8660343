"""What a client sends over HTTP/2 is read a few frames at a time."""

from hyperframe.frame import DataFrame, PingFrame
from hypothesis import given
from hypothesis import strategies as st

from tokgate.mitm.layers.http2 import AT_ONCE, Frames

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


@given(sizes=st.lists(st.integers(0, 300), max_size=200), cuts=st.lists(st.integers(1, 500), max_size=50))
def test_few_frames_begin_in_a_piece(sizes: list[int], cuts: list[int]) -> None:
    """However it comes, nothing is lost, and few frames begin in what is read at once."""
    said, begins = bytearray(PREFACE), []
    for size in sizes:
        begins.append(len(said))
        said += DataFrame(1, bytes(size)).serialize()
    frames, read, at = Frames(), bytearray(), 0
    for cut in [*cuts, len(said)]:
        for piece in frames.cut(bytes(said[at : at + cut])):
            start = len(read)
            read += piece
            assert sum(start <= begin < len(read) for begin in begins) <= AT_ONCE + 1
        at += cut
    assert read == said


def test_large_frames_make_no_pieces() -> None:
    """A body costs no turns but those of reading it; many small frames do."""
    assert len(list(Frames().cut(PREFACE + DataFrame(1, bytes(16384)).serialize() * 4))) == 1
    assert len(list(Frames().cut(PREFACE + PingFrame(0, bytes(8)).serialize() * 3 * AT_ONCE))) == 3
