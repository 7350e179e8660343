"""What the log says of policies that were read again."""

from collections.abc import Callable
from pathlib import Path

import pytest
from whenever import Instant

from labs.samples import stamp
from tokgate.blocklog.records.record import Record, Stamp
from tokgate.config.reload.holder import open_policy
from tokgate.runtime.reloads import announce

POLICY = "services: {clips: {names: {suffix: [example.org]}}}\n"
BROKEN = f"{POLICY}nonsense: 1\n"


async def test_an_invalid_edit_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Somebody reloads files that were read already: nothing is new. Another edit, or the same one later, is."""
    path, records = tmp_path / "a.yaml", list[Record]()
    path.write_text(POLICY)

    def write(build: Callable[[Stamp], Record]) -> None:
        records.append(build(stamp()))

    holder = open_policy(path, Instant.from_utc(2023, 5, 1))
    holder.subscribe(lambda reloaded: announce(reloaded, (), write))
    for text, told in ((BROKEN, 1), (None, 1), (f"{BROKEN}# still\n", 2), (POLICY, 3), (BROKEN, 4), (None, 4)):
        if text is not None:
            path.write_text(text)
        reloaded = await holder.reload()
        assert reloaded.ok == (text == POLICY)
        assert reloaded.diagnostics or reloaded.ok  # whoever asked is told again
        assert len(records) == told
    failed = "policy-load-failed"
    assert [record["event"]["action"] for record in records] == [failed, failed, "policy-loaded", failed]
    assert caplog.text.count("the new policy has errors") == 3
