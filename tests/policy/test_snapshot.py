"""Compiling a policy: how far compiling has come."""

from labs import builders
from tokgate.policy.settings import Settings
from tokgate.policy.snapshot import Policy, compile_policy


def test_progress_of_compiling() -> None:
    """Whoever loads a large policy sees how far it is, up to its end."""
    policy = Policy(
        services={"clips": builders.CLIPS},
        networks={"office": builders.OFFICE},
        bans={name: builders.ban(name) for name in ("one", "two")},
        exemptions={},
        settings=Settings(),
        version="test",
    )
    told: list[tuple[int, int]] = []
    compile_policy(policy, lambda done, total: told.append((done, total)))
    assert told[-1][0] == told[-1][1] > 0
    assert told == sorted(told)
