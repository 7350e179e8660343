"""Explain: the exact text on a small policy, the JSON's shape, times, and agreement with `decide`."""

import json
from pathlib import Path
from typing import Any

import pytest
from whenever import Instant

from labs.command_line import POLICY, Command

EXEMPT = (
    "allow: ::ffff:192.0.2.9 203.0.113.7 (exempt)",
    "   ::ffff:192.0.2.9 is read as 192.0.2.9",
    "   the address 203.0.113.7",
    "   belongs to clips by address:203.0.113.0/28 [policies/policy.yaml:3]",
    "   - lab-watch is not for this client's networks [policies/policy.yaml:24]",
    "Next change: 2023-06-30 18:00 +02:00 Europe/Brussels (2023-06-30T16:00:00Z)",
)
NOBODY = (
    "block: 203.0.113.9 bad..name (invalid-host)",
    "at 2023-05-02T08:00:00Z",
    "   in no network of the policy: settings.unknown_clients says allow",
    "   bad..name is no host name: a label is empty",
    "   none: bans hold for networks",
    "   - spring-ban is not for this service [policies/policy.yaml:15]",
    "   - press from spring-ban is from a ban that has no say here [policies/policy.yaml:31]",
    "   allow, because unknown-client",
    "6. Live traffic to bad..name",
    "   tls: allow, because unknown-client",
    "   http, connect: block, because invalid-host",
    "Next change: none",
)


@pytest.mark.parametrize(
    ("client", "host", "said"),
    [("::ffff:192.0.2.9", "203.0.113.7", EXEMPT), ("203.0.113.9", "bad..name", NOBODY)],
    ids=["exempt", "nobody"],
)
def test_text(policies: Path, tokgate: Command, client: str, host: str, said: tuple[str, ...]) -> None:
    """Besides what docs/admin.md shows of a refusal, and a failing test of an exemption (data/check/err)."""
    outcome = tokgate("explain", "--client", client, "--host", host, "--at", "2023-05-02T08:00Z")
    lines = outcome.out.splitlines()
    assert [line for line in lines if line in said] == list(said)
    assert (outcome.code, outcome.err, "\nresponse: " in outcome.out) == (0, "", False)


def explained(tokgate: Command, *arguments: str) -> dict[str, Any]:
    outcome = tokgate("explain", "--json", *arguments)
    assert outcome.code == 0
    document: dict[str, Any] = json.loads(outcome.out)
    del document["steps"], document["carriers"]
    return document


def test_json_has_the_steps_of_the_text(policies: Path, tokgate: Command) -> None:
    """A program is told what a person is: each step in its order, with what counts and what does not."""
    asked = ("explain", "--client", "192.0.2.70", "--host", "WWW.Clips.example.org.", "--at", "2023-05-02T08:00Z")
    told = json.loads(tokgate(*asked, "--json").out)["steps"]
    assert [(step["number"], step["title"]) for step in told] == [
        (1, "Client"),
        (2, "Name"),
        (3, "Bans"),
        (4, "Exemptions"),
        (5, "Strictest"),
    ]
    said = tokgate(*asked).out.splitlines()
    assert [line for line in said if line.startswith("   ")] == [
        f"   {line}" for step in told for line in (*step["lines"], *(f"- {other}" for other in step["others"]))
    ]
    assert "   the name www.clips.example.org, as WWW.Clips.example.org. is read" in said
    assert "   lab-watch (clips in lab), phase monitor: counts as monitor [policies/policy.yaml:24]" in said


@pytest.mark.parametrize(
    ("client", "wall", "instant", "zone"),
    [
        ("192.0.2.7", "2023-03-10T00:00", "2023-03-09T23:00:00Z", "Europe/Brussels"),
        ("192.0.2.7", "2023-03-10", "2023-03-09T23:00:00Z", "Europe/Brussels"),
        ("198.51.100.7", "2023-03-10T00:00", "2023-03-10T05:00:00Z", "America/New_York"),
        ("203.0.113.7", "2023-03-10T00:00", "2023-03-10T00:00:00Z", "UTC"),
        ("192.0.2.7", "2023-03-26T02:30", "2023-03-26T01:00:00Z", "Europe/Brussels"),
        ("192.0.2.7", "2023-10-29T02:30", "2023-10-29T00:30:00Z", "Europe/Brussels"),
    ],
    ids=["brussels", "date", "new-york", "no-network", "skipped", "twice"],
)
def test_wall_times(policies: Path, tokgate: Command, client: str, wall: str, instant: str, zone: str) -> None:
    """A time without offset is read in the zone of the client's network, and stderr says so."""
    outcome = tokgate("explain", "--client", client, "--host", "a.example", "--at", wall, "--json")
    assert json.loads(outcome.out)["at"] == instant
    assert f"is read in {zone}" in outcome.err


@pytest.mark.parametrize("at", [(), ("--at", "now")])
def test_now(policies: Path, tokgate: Command, at: tuple[str, ...]) -> None:
    """Without a time, or with `now`, the question is about this instant."""
    before = Instant.now()
    asked = explained(tokgate, "--client", "192.0.2.7", "--host", "a.example", *at)
    assert before <= Instant.parse_iso(asked["at"]) <= Instant.now()


PLAY = "https://play.google.com/store/apps/details?id=org.example.clips"
AT = ("--client", "192.0.2.7", "--at", "2023-05-02T08:00Z")


def opening_stores(policies: Path) -> None:
    opened = POLICY.replace("    duration: P6M\n", "    duration: P6M\n    inspect_stores: true\n")
    (policies / "policy.yaml").write_text(opened)


def test_url(policies: Path, tokgate: Command) -> None:
    """A store listing is found by its URL; host and URL are each decided, and the strictest wins."""
    opening_stores(policies)
    assert explained(tokgate, *AT, "--url", PLAY)["rule"] == "store:google-play/org.example.clips"
    both = explained(tokgate, *AT, "--host", "play.google.com", "--url", PLAY)
    assert (both["verdict"], both["signal"]) == ("block", "url")
    text = tokgate("explain", *AT, "--host", "play.google.com", "--url", PLAY).out
    assert "6. Strictest over all signals\n   block, as url says\n" in text
    assert "2. Name seen in sni\n" in text


def test_a_url_that_live_traffic_hides(policies: Path, tokgate: Command) -> None:
    """Without `inspect_stores` nothing opens the store: the verdict is what passes, the steps what a seen URL gets."""
    text = tokgate("explain", *AT, "--url", PLAY).out
    assert text.startswith(f"allow: 192.0.2.7 {PLAY} (no-service)\n")
    assert "5. Strictest\n   block, because ban-block\n" in text
    hidden = "over https this URL is not seen, since the policy does not have the connection opened: the steps above"
    assert f"6. Live traffic to play.google.com\n   {hidden} say what would be if it were\n" in text
    assert explained(tokgate, *AT, "--url", PLAY)["verdict"] == "allow"
    for url in (PLAY.replace("https", "http"), "https://www.clips.example.org/"):  # the path, or the host, is seen
        assert explained(tokgate, *AT, "--url", url)["verdict"] == "block"
        assert hidden not in tokgate("explain", *AT, "--url", url).out
    opening_stores(policies)
    text = tokgate("explain", *AT, "--url", PLAY).out
    assert text.startswith(f"block: 192.0.2.7 {PLAY} (ban-block)\n")
    assert hidden not in text


@pytest.mark.parametrize(
    ("host", "read"),
    [
        ("https://www.clips.example.org/@user?a=b#c", "www.clips.example.org https://www.clips.example.org/@user?a=b"),
        ("www.clips.example.org/@user", "www.clips.example.org https://www.clips.example.org/@user"),
        ("//www.clips.example.org/", "www.clips.example.org https://www.clips.example.org/"),
        ("HTTP://u:p@www.clips.example.org:80/x", "http://www.clips.example.org:80/x"),
        (
            "https:\\\\www.clips.example.org\\@a.example",
            "www.clips.example.org https://www.clips.example.org/@a.example",
        ),
        ("user@www.clips.example.org:8443", "www.clips.example.org"),
        (" www.clips.example.org. ", "www.clips.example.org."),
        ("[2001:db8::1]:443", "[2001:db8::1]:443"),
    ],
)
def test_hosts_as_they_are_pasted(policies: Path, tokgate: Command, host: str, read: str) -> None:
    """What stands in an address bar or a log is read as a client would; JSON echoes it unchanged."""
    verdict = "allow: 192.0.2.7 {} (no-service)" if "2001" in host else "block: 192.0.2.7 {} (ban-block)"
    assert tokgate("explain", *AT, "--host", host).out.splitlines()[0] == verdict.format(read)
    assert explained(tokgate, *AT, "--host", host)["host"] == host


@pytest.mark.parametrize(
    ("client", "read"),
    [
        ("192.0.2.7/32", "192.0.2.7"),
        ("192.0.2.7:50123", "192.0.2.7"),
        ("[2001:db8:1::7]:50123", "2001:db8:1::7"),
        ("[2001:db8:1::7]", "2001:db8:1::7"),
        ("2001:db8:1::7/128", "2001:db8:1::7"),
    ],
)
def test_clients_as_they_are_pasted(policies: Path, tokgate: Command, client: str, read: str) -> None:
    """An address with a port or brackets, or as a prefix that holds nothing else."""
    asked = ("--client", client, "--host", "clips.example.org", "--at", "2023-05-02T08:00Z")
    assert tokgate("explain", *asked).out.startswith(f"block: {read} clips.example.org (ban-block)\n")
    assert explained(tokgate, *asked)["client"] == client


@pytest.mark.parametrize(
    ("client", "named", "says"),
    [
        ("192.0.2.0/24", ("--host", "a.example"), "--client 192.0.2.0/24 is 256 addresses: write one of"),
        ("1.2.3", ("--host", "a.example"), "--client 1.2.3 is no IP address: write one, as 192.0.2.7"),
        ("alice", ("--host", "a.example"), "--client alice is no IP address: write one, as 192.0.2.7 (--user"),
        ("192.0.2.7", ("--host", "/path"), "--host /path names no host: write https://HOST/PATH"),
        ("192.0.2.7", ("--host", "//"), "--host // names no host: write https://HOST/PATH"),
        ("192.0.2.7", ("--host", "ftp://a.example/"), "--host ftp://a.example/ names no host: write https://HOST/PATH"),
        ("192.0.2.7", ("--host", ""), "--host names no host: write one"),
        ("192.0.2.7", ("--host", "."), "--host names no host: write one"),
        ("192.0.2.7", ("--host", "a" * 1013), "--host names no host: write one"),
        ("192.0.2.7", ("--host", "a.example/b", "--url", "https://a.example/"), "--host is a URL, as --url is"),
        ("192.0.2.7", ("--url", "/path"), "--url /path names no host: write https://HOST/PATH"),
        ("192.0.2.7", ("--url", "https://["), "--url https://[ is no URL: "),
        ("192.0.2.7", ("--url", "https://a.example:99999/"), "--url https://a.example:99999/ is no URL: "),
    ],
)  # fmt: skip
def test_what_can_not_be_asked(
    policies: Path, tokgate: Command, client: str, named: tuple[str, ...], says: str
) -> None:
    """Nothing is decided about it: exit code 2, and what to write."""
    outcome = tokgate("explain", "--client", client, *named)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith(f"tokgate: {says}")


@pytest.mark.parametrize("invisible", ["\u200b", "\u202e", "\u061c", "\u00ad", "\x1b[2J"])
def test_a_forged_name_passes_for_no_other(policies: Path, tokgate: Command, invisible: str) -> None:
    """Somebody asks about a name with a character that can't be seen, and sees that it is in there, unobeyed."""
    out = tokgate("explain", "--client", "192.0.2.7", "--host", f"clips{invisible}.example.org").out
    assert invisible not in out
    assert f"clips{invisible.encode('unicode_escape').decode()}.example.org" in out.splitlines()[0]


@pytest.mark.parametrize(
    ("at", "says"),
    [
        ("2023-02-28T12:00", "(clips in office): does not count, it is not announced until 2023-03-01 00:00 +01:00"),
        ("2023-03-05T12:00", "phase announced: does not count yet, it starts 2023-03-10 00:00 +01:00"),
        ("2023-09-10T00:00", "phase expired: does not count, it ended 2023-09-10 00:00 +02:00"),
    ],
)
def test_why_a_ban_does_not_count(policies: Path, tokgate: Command, at: str, says: str) -> None:
    assert says in tokgate("explain", "--client", "192.0.2.7", "--host", "clips.example.org", "--at", at).out


def test_windows_and_held_bans(policies: Path, tokgate: Command) -> None:
    """Outside a window it says until when; past its end a held ban says that it is."""
    text = (policies / "policy.yaml").read_text()
    windows = 'windows: [{days: mon-fri, from: "08:00", to: "18:00"}], on_expiry: hold}'
    (policies / "policy.yaml").write_text(
        text.replace("exemptions:", f"  held: {{title: Held, services: [clips], networks: [office], "
                     f"starts: 2023-01-01T00:00, expires: 2023-02-01T00:00, {windows}\nexemptions:")
    )  # fmt: skip
    asked = ("explain", "--client", "192.0.2.7", "--host", "clips.example.org", "--at")
    assert "held (clips in office), phase block: counts as block, held past its end 2023-02-01 00:00" in (
        tokgate(*asked, "2023-02-15T09:00").out
    )
    assert "does not count, it is outside its windows until 2023-02-15 08:00 +01:00" in (
        tokgate(*asked, "2023-02-15T07:59").out
    )
