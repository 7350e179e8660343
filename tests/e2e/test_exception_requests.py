"""A request for an exception, from the page to its approval, by curl and commands as docs/overrides.md has them."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from labs.gateway import Gateway, office_policy
from labs.netns import Lab, wait_until
from labs.origin import ADDRESSES, ALLOWED, BANNED, Origin, to_banned

DOCS = Path(__file__).parents[2] / "docs" / "overrides.md"
ASK, ANSWER, REACH = re.findall(r"^```sh\n(.*?)^```$", DOCS.read_text(), re.MULTILINE | re.DOTALL)


class Person:
    """Somebody with a shell and curl on the client, who trusts the page's authority and the origin's."""

    def __init__(self, lab: Lab, folder: Path, trusted: list[Path], scheme: str) -> None:
        self._lab, self._scheme, folder = lab, scheme, folder / "person"
        folder.mkdir()
        bundle = folder / "trusted.pem"
        bundle.write_bytes(b"".join(path.read_bytes() for path in trusted))
        places = [f'resolve = "{name}:{port}:{ADDRESSES[name][4]}"' for name in (BANNED, ALLOWED) for port in (80, 443)]
        (folder / ".curlrc").write_text("\n".join([*places, f'cacert = "{bundle}"', "max-time = 60"]))
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


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_from_the_page_to_approval(
    lab: Lab,
    origin: Origin,
    constrained_authority: Path,
    gateway_factory: Callable[..., Gateway],
    tmp_path: Path,
    scheme: str,
) -> None:
    """Refused, asked, listed and approved: the service is reached until the override is ended, and refused again."""
    policy = office_policy(response="page") | {"settings": {"overrides": {"requests": True}}}
    person = Person(lab, tmp_path, [constrained_authority / "root.pem", origin.authority], scheme)
    with gateway_factory(tmp_path, policy=policy, options=["--confdir", constrained_authority]) as gateway:
        with origin.watch() as seen:
            kept = person.does(ASK)
            refused = person.does(REACH)
        assert to_banned(seen) == 0
        assert "It is not decided yet" in kept
        assert "It is not decided yet" in refused
        asked = gateway.wait_for_record(
            "the request is logged", lambda r: r["event"]["action"] == "exception-requested"
        )
        assert asked["event"]["id"] in kept
        assert (asked["source"]["ip"], asked["tokgate"]["request"]["why"]) == (Lab.CLIENT[4], "Press conference")
        events = [record["event"]["id"] for record in gateway.records()]
        assert asked["tokgate"]["request"]["refusal"] in events

        override = on_the_gateway(gateway, tmp_path, ANSWER).splitlines()[-1]
        answered = gateway.wait_for_record(
            "the approval is logged", lambda record: record["event"]["action"] == "exception-approved"
        )
        assert answered["tokgate"]["request"]["id"] == asked["event"]["id"]
        assert (answered["tokgate"]["exemption"], answered["tokgate"]["ticket"]) == (override, "CHG-1042")
        wait_until("the service is reached", lambda: f"origin of {BANNED}" in person.does(REACH))

        on_the_gateway(gateway, tmp_path, f"tokgate override end {override}")
        # What crosses that moment is cut.
        wait_until("it is refused again", lambda: "not available on this network" in person.does(REACH, check=False))
        listed = json.loads(on_the_gateway(gateway, tmp_path, "tokgate override requests --all --json"))
        assert [each["state"] for each in listed["requests"]] == ["approved"]


def test_declined(
    lab: Lab,
    origin: Origin,
    constrained_authority: Path,
    gateway_factory: Callable[..., Gateway],
    tmp_path: Path,
) -> None:
    """The page tells who asked why, the log who declined, and nothing passes."""
    policy = office_policy(response="page") | {"settings": {"overrides": {"requests": True}}}
    person = Person(lab, tmp_path, [constrained_authority / "root.pem", origin.authority], "https")
    with gateway_factory(tmp_path, policy=policy, options=["--confdir", constrained_authority]) as gateway:
        person.does(ASK)
        name = json.loads(on_the_gateway(gateway, tmp_path, "tokgate override requests --json"))["requests"][0]["id"]
        on_the_gateway(gateway, tmp_path, f"tokgate override decline {name} --reason 'Use the library' --by bob")
        with origin.watch() as seen:
            wait_until("the page tells it", lambda: "Use the library" in person.does(REACH))
        assert to_banned(seen) == 0
        declined = gateway.wait_for_record(
            "the refusal is logged", lambda record: record["event"]["action"] == "exception-declined"
        )
        assert (declined["user"]["name"], declined["event"]["reason"]) == ("bob", "Use the library")
