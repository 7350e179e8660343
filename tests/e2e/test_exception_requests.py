"""A request for an exception, from the page to its approval, by curl and commands as docs/overrides.md has them."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from labs.gateway import CARRIERS, Gateway, MakeGateway, Record, office_policy
from labs.netns import Lab, wait_until
from labs.origin import ADDRESSES, ALLOWED, BANNED, Origin, to_banned

DOCS = Path(__file__).parents[2] / "docs" / "overrides.md"
ASK, ANSWER, REACH = re.findall(r"^```sh\n(.*?)^```$", DOCS.read_text(), re.MULTILINE | re.DOTALL)


class Person:
    """Somebody with a shell, curl and an address on the client, who trusts the page's authority and the origin's."""

    def __init__(self, lab: Lab, folder: Path, trusted: list[Path], scheme: str, address: str) -> None:
        self.address, self._lab, self._scheme, folder = address, lab, scheme, folder / "person"
        folder.mkdir()
        bundle = folder / "trusted.pem"
        bundle.write_bytes(b"".join(path.read_bytes() for path in trusted))
        places = [f'resolve = "{name}:{port}:{ADDRESSES[name][4]}"' for name in (BANNED, ALLOWED) for port in (80, 443)]
        options = (f'cacert = "{bundle}"', "max-time = 60", f'interface = "{address}"')
        (folder / ".curlrc").write_text("\n".join([*places, *options]))
        self._environment = {**os.environ, "HOME": str(folder), "CURL_HOME": str(folder)}

    def does(self, script: str, *, check: bool = True) -> str:
        """What a script of the documents prints here."""
        script = script.replace("http://", f"{self._scheme}://")
        return self._lab.client.run("sh", "-euc", script, env=self._environment, check=check).stdout


def on_the_gateway(gateway: Gateway, folder: Path, script: str) -> str:
    """What a script of the documents prints on the gateway, whose configuration names policies and log."""
    programs = folder / "programs"
    programs.mkdir(exist_ok=True)
    (programs / "tokgate").write_text(f'#!/bin/sh\nexec {sys.executable} -m tokgate "$@"\n')
    (programs / "tokgate").chmod(0o755)
    where = {"TOKGATE_POLICIES": str(gateway.policies), "TOKGATE_LOG": str(gateway.log)}
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    return gateway.namespace.run("sh", "-euc", script, env={**gateway.environment, **where, "PATH": path}).stdout


@pytest.fixture(scope="module")
def gateway(any_gateway: MakeGateway, constrained_authority: Path) -> Iterator[Gateway]:
    """One that takes requests on its pages."""
    policy = office_policy(response="page") | {"settings": {"overrides": {"requests": True}}}
    with any_gateway(policy=policy, options=["--confdir", constrained_authority], **CARRIERS["gates"]) as running:
        yield running


@pytest.fixture
def person(
    request: pytest.FixtureRequest, lab: Lab, origin: Origin, constrained_authority: Path, tmp_path: Path
) -> Iterator[Person]:
    """One by each scheme, from an address that no other test has."""
    scheme, address = request.param
    lab.client.run("ip", "address", "add", f"{address}/24", "dev", "eth0")
    yield Person(lab, tmp_path, [constrained_authority / "root.pem", origin.authority], scheme, address)
    lab.client.run("ip", "address", "del", f"{address}/24", "dev", "eth0")


def answered(gateway: Gateway, action: str, request: str) -> Record:
    """The record of what was decided about a request."""

    def matches(record: Record) -> bool:
        return bool(record["event"]["action"] == action and record["tokgate"]["request"]["id"] == request)

    return gateway.wait_for_record(f"{action} is logged", matches)


@pytest.mark.parametrize("person", [("http", "192.0.2.31"), ("https", "192.0.2.32")], indirect=True)
def test_from_the_page_to_approval(origin: Origin, gateway: Gateway, tmp_path: Path, person: Person) -> None:
    """Refused, asked, listed and approved: the service is reached until the override is ended, and refused again."""
    with origin.watch() as seen:
        kept = person.does(ASK)
        refused = person.does(REACH)
    assert to_banned(seen) == 0
    assert "It is not decided yet" in kept
    assert "It is not decided yet" in refused
    asked = gateway.wait_for_record("it is logged", lambda record: record["event"]["id"] in kept)
    assert (asked["event"]["action"], asked["source"]["ip"]) == ("exception-requested", person.address)
    assert asked["tokgate"]["request"]["why"] == "Press conference"
    events = [record["event"]["id"] for record in gateway.records()]
    assert asked["tokgate"]["request"]["refusal"] in events

    override = on_the_gateway(gateway, tmp_path, ANSWER).splitlines()[-1]
    approved = answered(gateway, "exception-approved", asked["event"]["id"])["tokgate"]
    assert (approved["exemption"], approved["ticket"]) == (override, "CHG-1042")
    wait_until("the service is reached", lambda: f"origin of {BANNED}" in person.does(REACH))

    on_the_gateway(gateway, tmp_path, f"tokgate override end {override}")
    # What crosses that moment is cut.
    wait_until("it is refused again", lambda: "not available on this network" in person.does(REACH, check=False))
    listed = json.loads(on_the_gateway(gateway, tmp_path, "tokgate override requests --all --json"))["requests"]
    assert [each["state"] for each in listed if each["id"] == asked["event"]["id"]] == ["approved"]


@pytest.mark.parametrize("person", [("https", "192.0.2.33")], indirect=True)
def test_declined(origin: Origin, gateway: Gateway, tmp_path: Path, person: Person) -> None:
    """The page tells who asked why, the log who declined, and nothing passes."""
    person.does(ASK)
    name = json.loads(on_the_gateway(gateway, tmp_path, "tokgate override requests --json"))["requests"][0]["id"]
    on_the_gateway(gateway, tmp_path, f"tokgate override decline {name} --reason 'Use the library' --by bob")
    with origin.watch() as seen:
        wait_until("the page tells it", lambda: "Use the library" in person.does(REACH))
    assert to_banned(seen) == 0
    declined = answered(gateway, "exception-declined", name)
    assert (declined["user"]["name"], declined["event"]["reason"]) == ("bob", "Use the library")
