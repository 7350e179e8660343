"""The one sentence that a refused client can be told where there is no page: in DNS, in QUIC."""

from tokgate.blocklog.wording import by_whom
from tokgate.gate.enforcer import Ruling


def explanation(ruling: Ruling) -> str:
    """By which ban, by whom, and whom to ask."""
    ban = ruling.snapshot.bans.get(ruling.decision.ban or "")
    if ban is None:
        return "Refused by the policy of this network"
    return by_whom(ban) + (f"; contact: {ban.contact}" if ban.contact else "")
