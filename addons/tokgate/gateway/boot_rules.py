"""The rules that hold from the start of the machine until tokgate runs, as text for `nft -f`."""

from typing import Final

from tokgate.gateway.nftables import MARKER, OWNER, table
from tokgate.gateway.ruleset import Ruleset

FILE: Final = "rules.nft"
"""In tokgate's folder: the last rules that were loaded."""


def text(rules: Ruleset) -> str:
    """A table as it was loaded. Where no gate listens yet it refuses clients under a ban, as `on_crash` says."""
    said = f"# The last rules that tokgate loaded, policy {rules.version}. Written again whenever it loads others."
    return f"{said}\n{_replacing(rules.options.table)}{table(rules)}"


def closed(name: str) -> str:
    """A table without a policy, which says for whom the web is closed: it is closed for all that is forwarded.

    `tokgate run --gateway` takes it for its own, and replaces it.
    """
    return f"""\
# There were no rules yet, and no valid policy to make them from: the web is closed for all that is forwarded.
{_replacing(name)}table inet {name} {{
	chain {OWNER} {{
		return comment "{MARKER}"
	}}

	chain forward {{
		type filter hook forward priority filter; policy accept;
		tcp dport {{ 80, 443 }} ct direction original counter reject with tcp reset
		udp dport 443 ct direction original counter reject with icmpx port-unreachable
	}}
}}
"""


def _replacing(name: str) -> str:
    """Declared, so that deleting can't fail, then deleted: with what follows one transaction."""
    return f"table inet {name}\ndelete table inet {name}\n"
