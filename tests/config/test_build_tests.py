"""Tests inside policies: how they are read."""

from collections.abc import Callable

from whenever import Instant

from tokgate.config.loader import Loaded

ZONES = """\
networks:
  wide: {cidrs: [10.0.0.0/8], timezone: America/New_York}
  narrow: {cidrs: [10.1.0.0/16], timezone: Europe/Brussels}
tests:
  - {client: 10.1.2.3, host: a.example, at: 2023-03-10T12:00, expect: allow}
  - {client: 10.2.2.3, host: a.example, at: 2023-03-10T12:00, expect: allow}
  - {client: 192.0.2.1, host: a.example, at: 2023-03-10, expect: block}
  - {client: 10.1.2.3, host: a.example, at: 2023-03-10T12:00Z, expect: allow}
"""


def test_wall_times_are_in_the_zone_of_the_narrowest_network(say: Callable[[str], Loaded]) -> None:
    """Without an offset a time is the client's; a client of no network is in UTC."""
    tests = say(ZONES).tests
    assert [test.at for test in tests] == [
        Instant.from_utc(2023, 3, 10, 11),
        Instant.from_utc(2023, 3, 10, 17),
        Instant.from_utc(2023, 3, 10),
        Instant.from_utc(2023, 3, 10, 12),
    ]
    assert [test.origin.line for test in tests] == [5, 6, 7, 8]
