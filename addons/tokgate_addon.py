"""Entry for mitmproxy: `mitmdump -s addons/tokgate_addon.py --set tokgate_policies=DIR --set tokgate_log=FILE`."""

from whenever import Instant

from tokgate.cli.decision_query import DecisionQuery
from tokgate.cli.decision_steps import step_lines, steps
from tokgate.mitm.addon import ScriptedTokgate
from tokgate.policy.snapshot import Snapshot
from tokgate.service.mitmproxy_addons import ControlAddon, MetricsAddon


def explain(snapshot: Snapshot, client: str, host: str | None, url: str | None) -> str:
    """The steps of a decision now, as `tokgate explain` shows them."""
    query = DecisionQuery(client, host, Instant.now(), url)
    return "\n".join(line for step in steps(snapshot, query) for line in step_lines(step))


tokgate = ScriptedTokgate()
control = ControlAddon(tokgate, explain=explain)
addons = [tokgate, control, MetricsAddon(tokgate)]
