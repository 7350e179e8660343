"""What is known of a connection before its first byte."""

import pytest

from tokgate.policy.observation import Endpoint
from tokgate.traffic.seen import Arrival


@pytest.mark.parametrize("host", ["192.0.2.80", "2001:db8::80", "www.example.org", None])
def test_a_destination_in_the_log(host: str | None) -> None:
    """It is an address: the log's field takes no name, which stands elsewhere, and may be unknown; nor is it judged."""
    wanted = None if host is None else Endpoint(host, 443)
    arrival = Arrival(client=Endpoint("192.0.2.1", 40000), destination=wanted, connection="1")
    named = host == "www.example.org"
    assert arrival.endpoint == (None if named else wanted)
    assert [sighting.value for sighting in arrival.sightings] == ([] if named or host is None else [host])
