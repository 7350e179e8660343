"""The peers' configurations ban what the policy bans."""

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from comparison.namespaces import Lab
from comparison.origin import Origin
from comparison.peers import Place, banned_names, peers
from comparison.settings import BANNED_NAME, POLICIES
from whenever import Instant

from tokgate.config.loader import load
from tokgate.policy.decide import decide
from tokgate.policy.decision import Response, Verdict
from tokgate.policy.snapshot import compile_policy

AT = Instant.from_utc(2026, 1, 1)


@pytest.mark.parametrize(("file", "response"), [("refuse.yaml", Response.REFUSE), ("page.yaml", Response.PAGE)])
def test_the_policies_ban_the_names_for_the_client(file: str, response: Response) -> None:
    """And nothing else: neither other names nor other clients."""
    loaded = load(POLICIES / file, AT)
    assert loaded.policy is not None
    assert not loaded.diagnostics
    snapshot = compile_policy(loaded.policy)
    for name in (*banned_names(), BANNED_NAME):
        decision = decide(snapshot, "192.0.2.3", name, AT)
        assert decision.verdict is Verdict.BLOCK
        assert decision.response is response
    assert decide(snapshot, "192.0.2.3", "www.example.org", AT).verdict is Verdict.ALLOW
    assert decide(snapshot, "198.51.100.9", BANNED_NAME, AT).verdict is Verdict.ALLOW


@pytest.mark.parametrize("name", ["haproxy", "haproxy-splice"])
def test_haproxy_bans_the_same_names(name: str, tmp_path: Path) -> None:
    """The names themselves and everything below them, from the policy's file."""
    origin = cast(Origin, SimpleNamespace(certificate=Path("c"), key=Path("k")))
    prepare = peers()[name].prepare
    assert prepare is not None
    prepare(Place(cast(Lab, None), origin, tmp_path, 9000))
    configuration = (tmp_path / "haproxy.cfg").read_text()
    assert f"req.ssl_sni -i {' '.join(banned_names())}\n" in configuration
    assert f"req.ssl_sni -i -m end {' '.join('.' + banned for banned in banned_names())}\n" in configuration
    assert "bind :9000 " in configuration
    assert ("splice-auto" in configuration.partition("frontend")[0]) is (name == "haproxy-splice")
