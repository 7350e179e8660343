"""The compiled policy: which services are banned when, and how far compiling has come."""

from labs import builders
from labs.builders import at, wall
from tokgate.policy.settings import Settings
from tokgate.policy.snapshot import Policy, compile_policy


def test_services_with_a_ban_in_force() -> None:
    """Resembling names are looked for while a service is announced or banned, and not once its ban is over."""
    held = builders.snapshot(
        builders.ban(announced=wall("2023-03-01T00:00"), expires=wall("2023-09-10T00:00")),
        builders.ban("later", services=("films",), starts=wall("2024-01-01T00:00"), announced=wall("2023-12-01T00:00")),
        services=(builders.CLIPS, builders.service("films", "suffix:films.example.org")),
    )
    assert held.services_banned_at(at("2023-02-01T12:00:00Z")) == frozenset()
    assert held.services_banned_at(at("2023-03-02T12:00:00Z")) == {"clips"}
    assert held.services_banned_at(at("2023-10-01T12:00:00Z")) == frozenset()
    assert held.services_banned_at(at("2023-12-02T12:00:00Z")) == {"films"}


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
