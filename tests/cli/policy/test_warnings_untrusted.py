"""`tokgate check --authority`: for which names devices would not believe the block page's authority."""

from pathlib import Path

import pytest
from whenever import Instant

from labs.command_line import Command
from tokgate.block_page.authority import AUTHORITY, establish_authority, make_root, pem

POLICY = """\
services:
  clips:
    names:
      suffix: [clips.example.org, other.example.net]
      label: [clips]
    store: {google-play: [org.example.clips]}
networks:
  office: {cidrs: [192.0.2.0/24]}
bans:
  spring:
    title: No clips
    services: [clips]
    networks: [office]
    starts: 2023-03-10
    response: page
"""


def write_authority(folder: Path, *permitted: tuple[str, ...]) -> Path:
    """Certificates as the gateway has them; each permits these names."""
    path = folder / AUTHORITY
    path.write_bytes(pem(make_root(names, "Example", Instant.now(), 1).certificate for names in permitted))
    return path


@pytest.fixture
def policy(policies: Path) -> Path:
    (policies / "policy.yaml").write_text(POLICY)
    return policies / "policy.yaml"


@pytest.mark.parametrize(
    ("permitted", "rules"),
    [
        ((("clips.example.org", "example.net"),), ["label:clips"]),
        ((("clips.example.org", "example.net"), ("example.org", "example.net")), ["label:clips"]),
        ((("example.org", "example.net"), ("example.org",)), ["suffix:other.example.net", "label:clips"]),
        ((("lips.example.org", "example.net"),), ["suffix:clips.example.org", "label:clips"]),
    ],
)
def test_names_outside(
    policy: Path, tokgate: Command, tmp_path: Path, permitted: tuple[tuple[str, ...], ...], rules: list[str]
) -> None:
    """Names below none of those permitted by each certificate, and rules that no certificate can list."""
    outcome = tokgate("check", "--authority", str(write_authority(tmp_path, *permitted)))
    warned = [line for line in outcome.out.splitlines() if line.endswith("[page-untrusted]")]
    assert outcome.code == 0
    assert len(warned) == len(rules)
    assert all(f"`{rule}` of `clips`" in outcome.out for rule in rules)
    assert all(line.startswith("policies/policy.yaml:") for line in warned)


def test_only_where_a_page_is_wanted(policy: Path, tokgate: Command, tmp_path: Path) -> None:
    """A refusal needs no authority; opened stores do, for their own names."""
    file = str(write_authority(tmp_path, ("example.org",)))
    policy.write_text(POLICY.replace("response: page", "response: refuse"))
    assert "page-untrusted" not in tokgate("check", "--authority", file).out
    policy.write_text(POLICY.replace("response: page", "inspect_stores: true"))
    assert "`exact:play.google.com` of `clips`" in tokgate("check", "--authority", file).out
    establish_authority(tmp_path / "unlimited", Instant.now())
    assert "page-untrusted" not in tokgate("check", "--authority", str(tmp_path / "unlimited" / AUTHORITY)).out


def test_no_certificates(policy: Path, tokgate: Command, tmp_path: Path) -> None:
    """A file that holds none, or that is not there, is a usage error with its name."""
    (tmp_path / "empty.pem").write_text("nothing")
    for name in ("empty.pem", "absent.pem"):
        outcome = tokgate("check", "--authority", str(tmp_path / name))
        assert outcome.code == 2
        assert name in outcome.err


def test_a_page_that_no_device_believes(policy: Path, tokgate: Command, tmp_path: Path) -> None:
    """Told where tokgate's folder is, and has no authority or its own; not of a refusal, nor of a ban that is over."""
    confdir = tmp_path / "keys"
    check = ("check", "--confdir", str(confdir), "--at", "2023-05-01T00:00Z")
    assert "no-authority" not in tokgate(*check).out  # another machine
    confdir.mkdir()
    assert f"`spring`: {confdir} has no authority; `tokgate authority init" in tokgate(*check).out
    establish_authority(confdir, Instant.from_utc(2023, 5, 1))
    assert f"{confdir}/mitmproxy-ca.pem is one that tokgate made at its start" in tokgate(*check).out
    for change in (
        ("response: page", "response: refuse"),
        ("starts: 2023-03-10", "starts: 2023-03-10\n    duration: P1M"),
    ):
        policy.write_text(POLICY.replace(*change))
        assert "no-authority" not in tokgate(*check).out
    policy.write_text(POLICY.replace("response: page", "inspect_stores: true"))
    assert "policies/policy.yaml:10:3: warning: devices reject the page of the ban `spring`" in tokgate(*check).out
    (confdir / AUTHORITY).unlink()
    write_authority(confdir, ("example.org",))
    assert "no-authority" not in tokgate(*check).out
