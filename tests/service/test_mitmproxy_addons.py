"""Commands in mitmproxy's own programs: explain what is decided, and read the policy again."""

from pathlib import Path

import pytest
from mitmproxy.exceptions import CommandError
from mitmproxy.test import tflow, tutils
from whenever import Instant

from labs.addon_context import addon_context
from labs.waiting import eventually
from tokgate.config.reload.holder import PolicyHolder, open_policy
from tokgate.mitm.addon import Tokgate
from tokgate.policy.decide import decide
from tokgate.policy.snapshot import Snapshot
from tokgate.service.mitmproxy_addons import ControlAddon

NOW = Instant.from_utc(2023, 5, 1)
POLICY = """\
services: {clips: {names: {suffix: [clips.example.org]}}}
networks: {here: {cidrs: [127.0.0.0/8]}}
bans: {ban: {title: Clips, services: [clips], networks: [here], starts: 2023-03-10}}
"""


def explain(snapshot: Snapshot, client: str, host: str | None, url: str | None) -> str:
    """The verdict alone."""
    return f"{client} {host} {url}: {decide(snapshot, client, host or '', NOW).verdict}"


@pytest.fixture
def holder(tmp_path: Path) -> PolicyHolder:
    """The policy in force."""
    (tmp_path / "policy.yaml").write_text(POLICY)
    return open_policy(tmp_path / "policy.yaml", NOW)


async def test_commands(holder: PolicyHolder) -> None:
    """Somebody in mitmweb asks about a flow or a name, and has the policy read, without another terminal."""
    tokgate = Tokgate()
    addon = ControlAddon(tokgate, explain=explain)
    with addon_context() as context:
        context.master.commands.collect_commands(addon)
        call = context.master.commands.call
        with pytest.raises(CommandError, match="no policy"):
            call("tokgate.reload")
        tokgate.holder = holder
        assert (
            call("tokgate.explain.host", "127.0.0.1", "clips.example.org") == "127.0.0.1 clips.example.org None: block"
        )
        flow = tflow.tflow(req=tutils.treq(host="www.example.org", scheme=b"https", port=443))
        assert call("tokgate.explain", [flow]) == "127.0.0.1 www.example.org https://www.example.org/path: allow"
        holder.path.write_text(POLICY.replace("Clips", "Other"))
        assert call("tokgate.reload") == f"reading {holder.path}"
        await eventually("it is read", lambda: holder.snapshot.bans["ban"].title == "Other")
