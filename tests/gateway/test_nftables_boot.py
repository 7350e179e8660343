"""The text of the rules that hold until tokgate runs."""

from labs.builders import at, ban, snapshot
from tokgate.gateway.nftables import MARKER, boot_rules, closed_boot_rules, table
from tokgate.gateway.ruleset import TableOptions, ruleset_of


def test_the_last_rules() -> None:
    """The whole table, as one transaction with taking out what may be there."""
    rules = ruleset_of(snapshot(ban()), at("2023-06-01T12:00:00Z"), TableOptions())
    lines = boot_rules(rules).splitlines(keepends=True)
    assert lines[1:3] == ["table inet tokgate\n", "delete table inet tokgate\n"]
    assert "".join(lines[3:]) == table(rules)


def test_closed() -> None:
    """A table that tokgate knows for its own."""
    assert f'return comment "{MARKER}"' in closed_boot_rules("other")
    assert closed_boot_rules("other").count("table inet other") == 3
