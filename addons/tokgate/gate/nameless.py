"""TLS connections that hide where they go: what the settings `missing_sni` and `ech_outer` make of them."""

from whenever import Instant

from tokgate.policy.decision import Decision, Phase, Reason, Response, Verdict
from tokgate.policy.identity import Identity
from tokgate.policy.snapshot import Snapshot


def refusal(
    snapshot: Snapshot, client: str, at: Instant, reason: Reason, identity: Identity | None = None
) -> Decision | None:
    """The decision to refuse a nameless connection; None for clients that are under no ban at this instant.

    Such a setting serves the bans: where and when none blocks anything for this client, it has nothing to protect.
    """
    membership = snapshot.membership(client) if identity is None else snapshot.membership(client, identity)
    for track in snapshot.tracks:
        network = next((name for name in membership.networks if name in track.networks), None)
        if network is None:
            continue
        standing = track.schedule.standing(at)
        if standing.phase is not Phase.BLOCK or standing.idle is not None:
            continue
        if any(at in track.exemptions[name] for name in membership.exemptions & track.exemptions.keys()):
            continue
        return Decision(
            Verdict.BLOCK, reason, standing.phase, network=network, ban=track.ban.name, response=Response.REFUSE
        )
    return None
