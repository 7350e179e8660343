"""Where gates listen when a mode names no address: an open proxy is one default away."""

import pytest

from tokgate.gate.sockets import Entry
from tokgate.service.listeners import endpoints, free_port


def places(*specs: str, host: str | None = None) -> list[tuple[str, int, Entry]]:
    """Where modes listen, and for whom."""
    return [(each.host, each.port, each.entry) for each in endpoints(specs, host)]


def test_explicit_clients_are_served_on_loopback_only() -> None:
    """Unless an address is given, nobody on the network can use the machine as a proxy."""
    assert places("gate:explicit") == [("127.0.0.1", 8080, Entry.EXPLICIT)]
    assert places("gate:explicit@3128") == [("127.0.0.1", 3128, Entry.EXPLICIT)]
    assert places("gate:explicit@192.0.2.1:3128") == [("192.0.2.1", 3128, Entry.EXPLICIT)]
    assert places("gate:explicit", host="192.0.2.1") == [("192.0.2.1", 8080, Entry.EXPLICIT)]


@pytest.mark.parametrize(("spec", "entry"), [("gate", Entry.REDIRECT), ("gate:tproxy", Entry.TPROXY)])
def test_redirected_clients_are_awaited_everywhere(spec: str, entry: Entry) -> None:
    """They come to the gateway's addresses in both families; IPv6 may be missing, IPv4 may not."""
    assert places(spec) == [("0.0.0.0", 8080, entry), ("::", 8080, entry)]
    assert [each.optional for each in endpoints((spec,))] == [False, True]


def test_a_range_of_ports() -> None:
    """`tokgate ruleset --redirect` spreads connections over as many ports, each of which a gate has to listen on."""
    assert places("gate@10443-10506", host="192.0.2.1") == [
        ("192.0.2.1", port, Entry.REDIRECT) for port in range(10443, 10507)
    ]


@pytest.mark.parametrize("spec", ["gate@9-8", "gate@1-65536", "gate@8443-"])
def test_what_is_no_range(spec: str) -> None:
    """A slip of the pen is an error at the start, not a port that nobody listens on."""
    with pytest.raises(ValueError, match="is no"):
        endpoints((spec,))


@pytest.mark.parametrize(
    ("specs", "port"),
    [
        (("gate@8443", "gate:explicit@192.0.2.1:8443"), 8443),
        (("gate:explicit@[::1]:8080", "gate:tproxy"), 8080),
        (("gate@10443-10506", "gate:explicit@10450"), 10450),
        (("gate:explicit@192.0.2.1:8080", "gate:explicit@192.0.2.1:8080"), 8080),
    ],
)
def test_a_port_that_two_modes_want(specs: tuple[str, str], port: int) -> None:
    """Also where one listens on all addresses, and where it has the port by default: both modes are named."""
    with pytest.raises(ValueError, match="both want") as refused:
        endpoints(specs)
    assert str(refused.value).startswith(f"{specs[0]} and {specs[1]} both want port {port}: ")


@pytest.mark.parametrize(
    "specs",
    [
        ("gate:explicit@192.0.2.1:8080", "gate:explicit@192.0.2.2:8080"),
        ("gate:explicit@0.0.0.0:8080", "gate:explicit@[2001:db8::1]:8080"),
        ("gate:explicit@0", "gate:explicit@0"),
    ],
)
def test_a_port_that_several_modes_have(specs: tuple[str, str]) -> None:
    """On addresses of their own; any port is another one each time."""
    assert len(endpoints(specs)) == len(specs)


def test_a_free_port() -> None:
    """The next one up; where any port will do the kernel chooses, and where none is free listening fails."""
    assert free_port({8081}) == 8080
    assert free_port({8080, 8081}) == 8082
    assert free_port({8080}, 9000) == 9000
    assert free_port({0, 8080}, 0) == 0
    assert free_port({65535}, 65535) == 65535
