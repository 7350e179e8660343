"""`tokgate evasion` from a client's network, against a gateway with each carrier: nothing gets past it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from labs.gateway import CARRIERS, Gateway, got_round, office_policy
from labs.netns import Lab
from labs.origin import Origin


@pytest.mark.parametrize("carrier", CARRIERS)
def test_nobody_gets_round_it(
    lab: Lab, origin: Origin, any_gateway: Callable[..., Gateway], carrier: str, tmp_path: Path
) -> None:
    """Of all attempts none reaches the banned service's own server, whatever carries them."""
    with any_gateway(tmp_path, policy=office_policy(), **CARRIERS[carrier]) as running:
        assert got_round(lab, running) == []
