"""Traffic as other programs have it: queries, lines that ask for nothing, and what can't be read."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from whenever import Instant

from labs.command_line import Command
from tokgate.cli.policy.simulate import ProgramLines

NOW: Final = Instant.from_utc(2026, 11, 30, 9)
AT: Final = "2026-11-30T08:41:58"
SQUID: Final = """\
1796028118.577      6 192.0.2.7 TCP_TUNNEL/503 0 CONNECT www.clips.example.org:443 - HIER_NONE/- -
1796028118.740     20 192.0.2.7 TCP_MISS_ABORTED/503 3532 GET http://www.example.org/a? alice HIER_NONE/- text/html
1796028118.925      0 192.0.2.7 TCP_TUNNEL/200 39 CONNECT [2001:db8::7]:443 - HIER_DIRECT/2001:db8::7 -
1796028119.306      0 192.0.2.7 NONE_NONE/400 3332 - error:invalid-request - HIER_NONE/- text/html
"""
COMBINED: Final = """\
192.0.2.7 - - [30/Nov/2026:09:41:58 +0100] "CONNECT www.clips.example.org:443 HTTP/1.1" 503 0 "-" "curl/8.14.1" TCP_TUNNEL:HIER_NONE
192.0.2.7 - - [30/Nov/2026:08:41:59 +0000] "- error:invalid-request HTTP/1.1" 400 3332 "-" "-" NONE_NONE:HIER_NONE
"""  # noqa: E501  (as Squid writes it)
DNSMASQ: Final = """\
Nov 30 08:41:50 dnsmasq[24948]: started, version 2.91 cachesize 150
Nov 30 08:41:58 dnsmasq[24948]: query[A] www.clips.example.org from 192.0.2.7
Nov 30 08:41:58 dnsmasq[24948]: config www.clips.example.org is 192.0.2.80
Nov 30 08:41:58 gw dnsmasq[25073]: 3 192.0.2.7/51586 query[HTTPS] m.example.org from 192.0.2.7
Nov 30 08:41:58 gw dnsmasq[25073]: 3 192.0.2.7/51586 config error is REFUSED (EDE: not ready)
2026-11-30T09:41:58.101+01:00 gw dnsmasq[25073]: query[AAAA] m.example.org from 192.0.2.7
Nov 30 08:41:59 dnsmasq-dhcp[24948]: DHCPACK(eth0) 192.0.2.7 00:53:00:aa:bb:cc
"""
UNBOUND: Final = """\
[1796028074] unbound[26615:0] info: start of service (unbound 1.26.2).
[1796028118] unbound[26615:0] info: 192.0.2.7 www.clips.example.org. A IN
[1796028118] unbound[26615:0] info: 192.0.2.7 www.clips.example.org. A IN NXDOMAIN 0.000000 1 32
Nov 30 08:41:58 gw unbound[26615]: [26615:0] info: 192.0.2.7 m.example.org. HTTPS IN
[1796028120] unbound[26615:0] info: server stats for thread 0: requestlist max 0 avg 0 exceeded 0 jostled 0
"""
ZEEK_SSL: Final = """\
#separator \\x09
#fields\tts\tuid\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\tversion\tserver_name
#types\ttime\tstring\taddr\tport\taddr\tport\tstring\tstring
1796028118.577000\tCx\t192.0.2.7\t50000\t203.0.113.7\t443\tTLSv13\twww.clips.example.org
1796028118.577000\tCy\t192.0.2.7\t50001\t203.0.113.7\t443\tTLSv13\t-
#close\t2026-11-30-08-42-00
"""
ZEEK_DNS: Final = """\
#fields\tts\tid.orig_h\tid.resp_h\tquery
1796028118.577000\t192.0.2.7\t192.0.2.53\twww.clips.example.org
1796028118.577000\t192.0.2.7\t192.0.2.53\t-
"""
ZEEK_JSON: Final = '{"ts": 1796028118.5, "id.orig_h": "192.0.2.7", "server_name": "www.clips.example.org"}'
CONNTRACK: Final = """\
[1796028118.826652]\t    [NEW] tcp      6 120 SYN_SENT src=192.0.2.7 dst=203.0.113.7 sport=58316 dport=443 [UNREPLIED] src=203.0.113.7 dst=192.0.2.7 sport=443 dport=58316
[1796028118.826725]\t[DESTROY] tcp      6 120 CLOSE src=192.0.2.7 dst=203.0.113.7 sport=58316 dport=443 [UNREPLIED] src=203.0.113.7 dst=192.0.2.7 sport=443 dport=58316
tcp      6 431999 ESTABLISHED src=192.0.2.7 dst=203.0.113.7 sport=58316 dport=443 src=203.0.113.7 dst=192.0.2.7 sport=443 dport=58316 [ASSURED] mark=0 use=1
ipv6     10 udp      17 29 src=2001:db8::7 dst=2001:db8::80 sport=50000 dport=443 src=2001:db8::80 dst=2001:db8::7 sport=443 dport=50000 mark=0 use=1
conntrack v1.4.8 (conntrack-tools): 2 flow events have been shown.
"""  # noqa: E501  (as conntrack writes it)
CLIPS: Final = {"client": "192.0.2.7", "host": "www.clips.example.org"}
OTHER: Final = {"client": "192.0.2.7", "host": "m.example.org"}
ADDRESS: Final = {"client": "192.0.2.7", "host": "203.0.113.7"}
V6: Final = {"client": "192.0.2.7", "host": "2001:db8::7"}
PAGE: Final = {"client": "192.0.2.7", "url": "http://www.example.org/a?", "user": "alice"}


def queries(text: str) -> list[dict[str, Any]]:
    """What the lines ask for, with their times to the second."""
    reader = ProgramLines(NOW)
    found = [dict(query) for line in text.splitlines() if (query := reader.read(line)) is not None]
    return [each | {"at": each["at"] and each["at"][:19]} for each in found]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (SQUID, [CLIPS | {"at": AT}, PAGE | {"at": AT}, V6 | {"host": "[2001:db8::7]", "at": AT}]),
        (COMBINED, [CLIPS | {"at": "2026-11-30T09:41:58"}]),
        (
            DNSMASQ,
            [CLIPS | {"at": AT}, OTHER | {"at": AT}, OTHER | {"at": "2026-11-30T09:41:58"}],
        ),
        (UNBOUND, [CLIPS | {"host": "www.clips.example.org.", "at": AT}, OTHER | {"host": "m.example.org.", "at": AT}]),
        (ZEEK_SSL, [CLIPS | {"at": AT}, ADDRESS | {"at": AT}]),
        (ZEEK_DNS, [CLIPS | {"at": AT}]),
        (
            CONNTRACK,
            [
                ADDRESS | {"at": AT},
                ADDRESS | {"at": None},
                {"client": "2001:db8::7", "host": "2001:db8::80", "at": None},
            ],
        ),
    ],
    ids=["squid", "combined", "dnsmasq", "unbound", "ssl.log", "dns.log", "conntrack"],
)
def test_the_lines_of_each_program(text: str, expected: list[dict[str, Any]]) -> None:
    """Lines as the programs write them: who asked for what and when; answers, starts and ends ask for nothing."""
    assert queries(text) == expected


@pytest.mark.parametrize(
    ("stamp", "year"),
    [("Nov 30 09:00:00", 2026), ("Dec  1 08:59:59", 2026), ("Dec  1 09:00:00", 2025), ("Feb 29 00:00:00", 2024)],
)
def test_a_time_without_a_year(stamp: str, year: int) -> None:
    """It is of the latest year in which it is not more than a day ahead."""
    (query,) = queries(f"{stamp} dnsmasq[1]: query[A] a.example from 192.0.2.7")
    assert query["at"].startswith(str(year))


@given(st.one_of(st.text(), st.sampled_from((SQUID + DNSMASQ + UNBOUND + CONNTRACK).split()).flatmap(st.just)))
def test_no_line_breaks_a_reader(line: str) -> None:
    """What another program wrote, or nobody, is a query, nothing, or told."""
    with suppress(ValueError):
        ProgramLines(NOW).read(line)


@pytest.mark.usefixtures("policies")
@pytest.mark.parametrize("text", [SQUID, ZEEK_JSON], ids=["squid", "ssl.log in JSON"])
def test_diff_decides_them(tokgate: Command, tmp_path: Path, text: str) -> None:
    """Whoever has such a log learns what a new policy would have refused of it."""
    old, new = Path("policies/policy.yaml"), tmp_path / "new.yaml"
    new.write_text(old.read_text().replace("duration: P6M", "duration: P60Y"))
    (tmp_path / "log").write_text(text)
    outcome = tokgate("diff", "policies", str(new), "--flows", str(tmp_path / "log"), "--json")
    traffic = json.loads(outcome.out)["traffic"]
    assert (outcome.code, traffic["newly_blocked"], traffic["unreadable"]) == (0, 1, 0)
    assert traffic["effects"][0]["names"] == {"example.org": 1}


@pytest.mark.usefixtures("policies")
def test_what_is_not_read_is_told(tokgate: Command, tmp_path: Path) -> None:
    """Lines of a format that nobody knows make the exit code 1; where nothing else is there, no figure is printed."""
    log = tmp_path / "log"
    log.write_text(f"{SQUID}<30>1 2026 some other program\n")
    some = tokgate("diff", "policies", "policies", "--flows", str(log))
    assert some.code == 1
    assert f"tokgate: {log}:5: not JSON, and no line of Squid, dnsmasq, Unbound, Zeek or conntrack" in some.err
    assert "the figures are without 1 lines" in some.err
    for content in ("<30>1 2026 some other program\n", "", DNSMASQ.splitlines()[0], CONNTRACK.splitlines()[2]):
        log.write_text(content)
        none = tokgate("diff", "policies", "policies", "--flows", str(log))
        assert (none.code, none.out) == (1, "")
        assert "no line of the flows could be read as one" in none.err
    assert "neither the flow nor --at says when" in none.err
    dated = tokgate("diff", "policies", "policies", "--flows", str(log), "--at", "2023-05-02T08:00Z")
    assert (dated.code, "Traffic: 1 events" in dated.out) == (0, True)


@pytest.mark.usefixtures("policies")
def test_simulate_answers_them(tokgate: Command, tmp_path: Path) -> None:
    """A line for each query of another program, and none for the others."""
    (tmp_path / "log").write_text(SQUID)
    outcome = tokgate("simulate", str(tmp_path / "log"))
    assert outcome.code == 0
    assert [json.loads(line)["host"] for line in outcome.out.splitlines()] == [
        "www.clips.example.org",
        None,
        "[2001:db8::7]",
    ]
