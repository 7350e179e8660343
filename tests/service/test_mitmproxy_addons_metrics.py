"""Metrics and health of running tokgates: with gates, and with mitmproxy alone."""

from contextlib import closing
from pathlib import Path

import pytest

from labs.running_lab import POLICY, WITHOUT_BAN, Scraped, until

WRONG = POLICY | {"bans": {"ban": {"title": "no services"}}}
CARRIERS = {
    "gates": ("--mode", "gate:explicit@127.0.0.1:0"),
    "mitmproxy": ("--mode", "regular@127.0.0.1:0"),
}


@pytest.mark.parametrize("carrier", CARRIERS)
def test_metrics_and_health(tmp_path: Path, carrier: str) -> None:
    """Red with the reason while the log can't be written, or the newest edit is wrong; green once that is mended."""
    (tmp_path / "block.ndjson").mkdir()
    with closing(Scraped(tmp_path, CARRIERS[carrier])) as running:
        until("health is red", lambda: any("Is a directory" in each for each in running.problems()))
        assert running.metric("log_writable") == running.metric("healthy") == 0
        until("a banned name is refused", running.refuses)
        running.log.rmdir()
        until("it is well", lambda: running.problems() == [])
        assert running.metric("healthy") == 1
        assert running.metric("ban_phase", ban="ban", zone="UTC", phase="block") == 1
        until("records were written", lambda: (running.metric("log_records_written_total") or 0) >= 2)
        counted = running.metric("decisions_total", network="here", visibility="decrypted", verdict="block")
        assert (counted or 0) >= 1
        role = "gate" if carrier == "gates" else "proxy"
        assert running.metric("workers", role=role, state="serving") == 1
        authority = str(running.confdir / "mitmproxy-ca.pem")
        assert (running.metric("certificate_seconds_until_expiry", file=authority) or 0) > 86400

        running.write(WRONG)
        until("health is red", running.problems)
        assert "the newest policy is not in force" in running.problems()[0]
        assert running.metric("policy_newest_in_force") == 0
        assert (running.metric("policy_reloads_total", result="failure") or 0) >= 1
        running.write(WITHOUT_BAN)
        until("it is well again", lambda: running.problems() == [])
        assert running.metric("ban_phase", ban="ban", zone="UTC", phase="block") is None
        assert (running.metric("policy_reloads_total", result="success") or 0) >= 1
    assert "Traceback" not in running.narrated()
