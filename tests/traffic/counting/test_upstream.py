"""What becomes of connections to destinations, as it is counted."""

import errno

import pytest

from tokgate.traffic.counting.counters import Counters
from tokgate.traffic.counting.upstream import BOUNDS, CONNECT_SECONDS, OWN, ConnectError, Histogram, cumulated, kind_of


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ECONNREFUSED, ConnectError.REFUSED),
        (errno.ENETUNREACH, ConnectError.UNREACHABLE),
        (errno.ETIMEDOUT, ConnectError.TIMEOUT),
        (errno.EADDRNOTAVAIL, ConnectError.NO_PORT),
        (errno.EMFILE, ConnectError.NO_DESCRIPTOR),
        (errno.EPERM, ConnectError.FORBIDDEN),
        (errno.EIO, ConnectError.OTHER),
        (None, ConnectError.OTHER),
    ],
)
def test_kinds(number: int | None, kind: ConnectError) -> None:
    """What this machine lacks is told from what is the destination's."""
    assert kind_of(number) is kind
    assert (kind in OWN) == (number in (errno.EADDRNOTAVAIL, errno.EMFILE))


def test_a_histogram() -> None:
    """A bucket holds what is no longer than its bound; Prometheus' ones hold those below as well."""
    counters = Counters()
    histogram = Histogram(counters.shared, CONNECT_SECONDS)
    for seconds in (0.0, BOUNDS[0], 0.02, 60.0):
        histogram.add(seconds)
    counted = {key[1]: number for key, number in counters.shared.read().items() if key[0] == CONNECT_SECONDS}
    buckets, total = cumulated(counted)
    assert [number for _, number in buckets] == [2.0, 2.0, *([3.0] * (len(BOUNDS) - 2)), 4.0]
    assert buckets[-1][0] == "+Inf"
    assert total == pytest.approx(60.025)


def test_nothing_was_counted() -> None:
    """All buckets are there from the start, so that the first connection is an increase."""
    assert cumulated({}) == ([(str(bound), 0.0) for bound in BOUNDS] + [("+Inf", 0.0)], 0.0)
