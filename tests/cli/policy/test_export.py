"""`tokgate export mdm`: the apps of banned services."""

import csv
from pathlib import Path

from labs.command_line import POLICY, Command

LASTING = POLICY.replace("duration: P6M", "duration: P90Y")


def test_csv(policies: Path, tokgate: Command) -> None:
    """Without a name: every app of the services under a ban that is not over."""
    (policies / "policy.yaml").write_text(LASTING)
    outcome = tokgate("export", "mdm")
    assert outcome.code == 0
    assert list(csv.reader(outcome.out.splitlines())) == [
        ["service", "title", "store", "identifier"],
        ["clips", "Clips", "google-play", "org.example.clips"],
    ]


def test_one_network(policies: Path, tokgate: Command) -> None:
    """The apps of the bans for one network: for whom nothing is banned there are none; another is no network."""
    visitors = "\nnetworks:\n  visitors: {cidrs: [203.0.113.0/24]}\n"
    (policies / "policy.yaml").write_text(LASTING.replace("\nnetworks:\n", visitors))
    words = ("export", "mdm", "--network")
    assert "org.example.clips" in tokgate(*words, "office").out
    other = tokgate(*words, "visitors")
    assert (other.code, "org.example.clips" in other.out) == (1, False)
    assert tokgate(*words, "ofice").code == 2


def test_services(policies: Path, tokgate: Command) -> None:
    """TikTok's apps as Android's and Apple's management name them; a service that there isn't ends it with 2."""
    words = ("export", "mdm", "--service")
    outcome = tokgate(*words, "tiktok", "--service", "clips")
    apps = {(row["store"], row["identifier"]) for row in csv.DictReader(outcome.out.splitlines())}
    assert apps >= {(store, "com.zhiliaoapp.musically") for store in ("google-play", "apple-bundle")}
    assert ("google-play", "org.example.clips") in apps
    assert tokgate(*words, "clpis").code == 2


def test_none(policies: Path, tokgate: Command) -> None:
    """Exit code 1 where no service has an app, and who has none is told."""
    (policies / "policy.yaml").write_text(POLICY.replace("    store: {google-play: [org.example.clips]}\n", ""))
    outcome = tokgate("export", "mdm", "--service", "clips")
    assert (outcome.code, outcome.err) == (1, "tokgate: without an app: clips\n")
