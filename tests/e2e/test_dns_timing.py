"""What DNS mode lets clients remember, across the start and the end of a ban."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import dns.message
import dns.rcode
from whenever import Instant

from labs.gateway import Gateway, office_policy
from labs.netns import Lab, wait_until
from labs.resolver import ADDRESS, TTL, Upstream, ask

BANNED = "dns.tiktok.com"


def test_nothing_outlives_a_ban_s_edges(
    lab: Lab, resolver: Upstream, any_gateway: Callable[..., Gateway], tmp_path: Path
) -> None:
    """Before a start no answer lasts beyond it, before an end no refusal does; and they come at their instants."""
    options = ("--listen-host", "", "--name-server", ADDRESS)
    seen: list[tuple[Instant, dns.message.Message, Instant]] = []

    def over() -> bool:
        before = Instant.now()
        seen.extend((before, ask(lab.client, BANNED, kind), Instant.now()) for kind in ("A", "HTTPS"))
        return before > expires.add(seconds=1)

    with any_gateway(tmp_path, policy=office_policy(), mode="dns", ports=(53,), options=options) as gateway:
        wait_until("the ban that is in force refuses", lambda: ask(lab.client, BANNED).rcode() == dns.rcode.NXDOMAIN)
        starts = gateway.soon(5).round("second")
        expires = starts.add(seconds=4)
        policy = office_policy(starts=str(starts), expires=str(expires))
        del policy["bans"]["office-ban"]["last_day"]
        gateway.write_policy(policy)
        wait_until("the edit is in force", lambda: ask(lab.client, BANNED).answer)
        wait_until("the ban is over", over, every=0.1)

    for before, got, after in seen:
        if after < starts:
            assert got.answer[0].ttl <= (starts - before).total("seconds")
        elif before >= starts and after < expires:
            assert got.rcode() == dns.rcode.NXDOMAIN
            assert got.authority[0].ttl <= (expires - before).total("seconds")
        elif before >= expires:
            assert got.answer[0].ttl in (60, TTL)
    assert {got.rcode() for _, got, _ in seen} == {dns.rcode.NOERROR, dns.rcode.NXDOMAIN}
    assert [after < starts for _, _, after in seen].count(True) > 2
