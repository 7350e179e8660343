"""`tokgate phone` without a tunnel that is up: what it says, asks for, writes and refuses."""

import json
from pathlib import Path
from typing import ClassVar

import pytest
from whenever import Instant

from labs.builders import policy_in
from labs.command_line import Command, Outcome
from tokgate.config.loader import load
from tokgate.gateway.phones.interface import Interface
from tokgate.gateway.phones.tunnel import Phone, Tunnel, new_private_key, public_key

UP = ("--endpoint", "vpn.example.org", "--dns", "192.0.2.53")


class NoInterface:
    """In the interface's place: says what it was asked to do."""

    is_up = False
    did: ClassVar[list[str]] = []

    def __init__(self, name: str) -> None:
        self.name = name

    def up(self, tunnel: Tunnel, phones: tuple[Phone, ...]) -> str:
        self.did.append(f"up {len(phones)}")
        return "kernel"

    def down(self) -> None:
        self.did.append("down")


@pytest.fixture
def phones(tokgate: Command, policies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """`tokgate phone` with folders of its own, and nothing done to this machine's interfaces."""
    monkeypatch.setattr("tokgate.cli.service.phone.Interface", NoInterface)
    NoInterface.did.clear()

    def run(action: str, *words: str) -> Outcome:
        return tokgate("phone", action, "--policies", str(policies), "--state", str(tmp_path / "tunnel"), *words)

    return run


def test_the_first_time(phones: Command, policies: Path) -> None:
    """`up` asks for what it can't know, names the network in a valid policy, and later asks for nothing."""
    assert "needs --endpoint and --dns" in phones("up").err
    outcome = phones("up", *UP)
    assert (outcome.code, NoInterface.did) == (0, ["up 0"])
    assert "names the phones as the network `phones`" in outcome.err
    assert phones("up").err.count("\n") == 1
    assert load(policies, Instant.now()).errors == ()
    assert phones("add", "one", "--owner", "alice", "--config", "-").code == 0
    network = policy_in(policies).networks["phones"]
    assert [str(each) for each in network.cidrs] == ["10.83.0.0/16", "fd83:7467:6174:6500::/64"]
    assert [(device.name, device.owner) for device in network.devices] == [("one", "alice")]
    assert phones("revoke", "one").code == 0
    assert load(policies, Instant.now()).errors == ()


def test_what_stays(phones: Command) -> None:
    """Another endpoint is for phones that come; prefixes and interface are in those that are there, and stay."""
    phones("up", *UP)
    assert phones("up", "--endpoint", "[2001:db8::7]:443").code == 0
    assert "Endpoint = [2001:db8::7]:443" in phones("add", "one", "--config", "-").out
    assert phones("up", "--interface", "wg7").code == 2
    outcome = phones("up", "--prefix", "10.9.0.0/16")
    assert (outcome.code, "a tunnel keeps its prefixes" in outcome.err) == (2, True)


def test_a_qr_code(phones: Command) -> None:
    """Without an output the configuration is a QR code on stdout, which says nothing to who reads over the shoulder."""
    phones("up", *UP)
    outcome = phones("add", "one")
    assert outcome.code == 0
    assert len(outcome.out.splitlines()) > 20
    assert "PrivateKey" not in outcome.out
    assert "nowhere else" in outcome.err


def test_a_key_of_its_own(phones: Command) -> None:
    """A phone that made its key itself is added by the public one, which no other phone has or had."""
    phones("up", *UP)
    key = public_key(new_private_key())
    outcome = phones("add", "one", "--public-key", key, "--config", "-")
    assert (outcome.code, "PrivateKey" in outcome.out) == (0, False)
    assert "a key is one phone's" in phones("add", "two", "--public-key", key, "--config", "-").err
    phones("revoke", "one")
    assert "a key is one phone's" in phones("add", "two", "--public-key", key, "--config", "-").err


def test_names(phones: Command) -> None:
    """A name is one phone's, whatever its case; a misspelt one is guessed; there must be a tunnel first."""
    assert "there is no tunnel yet" in phones("add", "one", "--config", "-").err
    phones("up", *UP)
    phones("add", "alice-phone", "--config", "-")
    assert phones("add", "Alice-Phone", "--config", "-").code == 2
    assert "did you mean `alice-phone`?" in phones("revoke", "alic-phone").err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("up", "--endpoint", "vpn.example.org:0"), "is no HOST:PORT"),
        (("up", "--endpoint", "vpn.example.org:x"), "is no HOST:PORT"),
        (("up", "--endpoint", "a b"), "is no HOST:PORT"),
        (("up", "--prefix", "10.0.0.1/8"), "has host bits set"),
        (("up", *UP, "--prefix", "10.0.0.0/8"), "one IPv4 and one IPv6 prefix"),
        (("add", "a/b"), "does not match"),
        (("add", "a", "--public-key", "x"), "no key of WireGuard"),
    ],
)
def test_what_is_wrong(phones: Command, words: tuple[str, ...], said: str) -> None:
    outcome = phones(*words)
    assert (outcome.code, said in outcome.err) == (2, True), outcome.err
    assert NoInterface.did == []


def test_list(phones: Command) -> None:
    """Phones in their order; revoked ones on demand, with the addresses they had."""
    phones("up", *UP)
    assert "no phones" in phones("list").err
    for name in ("one", "two"):
        phones("add", name, "--config", "-")
    phones("revoke", "one")
    assert [each["name"] for each in json.loads(phones("list", "--json").out)["phones"]] == ["two"]
    everything = json.loads(phones("list", "--json", "--all").out)["phones"]
    assert [(each["name"], each["addresses"][0], each["revoked"] is None) for each in everything] == [
        ("two", "10.83.0.3", True),
        ("one", "10.83.0.2", False),
    ]
    assert "10.83.0.3" in phones("list").out
    assert phones("down").code == 0
    assert NoInterface.did[-1] == "down"


def test_the_real_interface_is_not_there() -> None:
    """The interface that these tests do without is looked up by its name."""
    assert not Interface("wg-none").is_up
