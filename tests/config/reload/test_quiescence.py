"""When files are stable: nothing was lost from them lately."""

from pathlib import Path

import pytest

from tokgate.config.reload.quiescence import SETTLE, SETTLE_LOSS, Fingerprint, StabilityCheck

POLICY, GONE = Path("policies/a.yaml"), Path("policies/b.yaml")


@pytest.mark.parametrize(
    ("seen", "state", "lost"),
    [
        ({POLICY: 9, GONE: 9}, {POLICY: 9}, True),
        ({POLICY: 9}, {POLICY: 0}, True),
        ({POLICY: 9}, {POLICY: 5}, False),
        ({POLICY: 0, GONE: 0}, {POLICY: 0}, False),
        ({}, {POLICY: 0}, False),
    ],
)
def test_a_loss_is_waited_out(
    seen: dict[Path, int], state: dict[Path, int], lost: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An editor that empties a file before it writes lifts no ban: what is removed or emptied has to stay so longer."""

    def fingerprint(sizes: dict[Path, int]) -> Fingerprint:
        return {path: (1, 1, size, 0, 0) for path, size in sizes.items()}

    now = 0.0
    monkeypatch.setattr("tokgate.config.reload.quiescence.time.monotonic", lambda: now)
    check = StabilityCheck(lambda: fingerprint(state), fingerprint(seen), on_unstable=lambda: None)
    now += SETTLE
    assert (check.stable_state() is None) is lost
    now += SETTLE_LOSS
    assert check.stable_state() == fingerprint(state)
