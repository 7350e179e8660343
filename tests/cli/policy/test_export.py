"""`tokgate export mdm`: the apps of banned services, in the formats of device management."""

import csv
import json
import plistlib
from pathlib import Path

import pytest

from labs.command_line import Command


def test_csv(policies: Path, tokgate: Command) -> None:
    """Without a name: every app of the services under a ban that is not over."""
    policy = policies / "policy.yaml"
    policy.write_text(policy.read_text().replace("duration: P6M", "duration: P90Y"))
    outcome = tokgate("export", "mdm", "--policies", str(policies))
    assert outcome.code == 0
    assert list(csv.reader(outcome.out.splitlines())) == [
        ["service", "title", "store", "identifier"],
        ["clips", "Clips", "google-play", "org.example.clips"],
    ]


def test_one_network(policies: Path, tokgate: Command) -> None:
    """The apps of the bans for one network: for whom nothing is banned there are none; another is no network."""
    policy = policies / "policy.yaml"
    said = policy.read_text().replace("duration: P6M", "duration: P90Y")
    policy.write_text(said.replace("\nnetworks:\n", "\nnetworks:\n  visitors: {cidrs: [203.0.113.0/24]}\n"))
    words = ("export", "mdm", "--policies", str(policies), "--network")
    assert "org.example.clips" in tokgate(*words, "office").out
    other = tokgate(*words, "visitors")
    assert (other.code, "org.example.clips" in other.out) == (1, False)
    assert tokgate(*words, "ofice").code == 2


def test_formats(policies: Path, tokgate: Command) -> None:
    """TikTok's apps as Android's and Apple's management take them."""
    words = ("export", "mdm", "--policies", str(policies), "--service", "tiktok", "--service", "clips", "--format")
    android = tokgate(*words, "android")
    blocked = {each["packageName"]: each["installType"] for each in json.loads(android.out)["applications"]}
    assert blocked["com.zhiliaoapp.musically"] == blocked["org.example.clips"] == "BLOCKED"
    apple = tokgate(*words, "apple")
    (payload,) = plistlib.loads(apple.out.encode())["PayloadContent"]
    assert payload["PayloadType"] == "com.apple.applicationaccess"
    assert payload["blockedAppBundleIDs"] == ["com.zhiliaoapp.musically"]
    assert "without an app that this format can name: clips" in apple.err


@pytest.mark.parametrize("option", ["--service", "--format"])
def test_unknown(policies: Path, tokgate: Command, option: str) -> None:
    """A service or format that there isn't ends it with 2."""
    assert tokgate("export", "mdm", "--policies", str(policies), option, "clpis").code == 2


def test_none(policies: Path, tokgate: Command, tmp_path: Path) -> None:
    """Exit code 1 where a format can name no app; the file is written all the same."""
    output = tmp_path / "apps.mobileconfig"
    words = ("--policies", str(policies), "--service", "clips", "--format", "apple", "-o", str(output))
    assert tokgate("export", "mdm", *words).code == 1
    assert plistlib.loads(output.read_bytes())["PayloadContent"][0]["blockedAppBundleIDs"] == []
