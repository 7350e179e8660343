"""Positions in policy files."""

from tokgate.policy.values.source_position import Origin


def test_a_position_reads_as_editors_take_it() -> None:
    """A click on it leads to the line of the ban."""
    assert str(Origin("policies/bans.yaml", 12, 5)) == "policies/bans.yaml:12:5"
