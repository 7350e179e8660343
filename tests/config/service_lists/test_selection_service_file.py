"""The service file: it loads, and says again what it was made of."""

from pathlib import Path

from whenever import Instant

from tokgate.config.loader import load
from tokgate.config.service_lists.entries import EntryKind
from tokgate.config.service_lists.selection import names_of, service_file
from tokgate.policy.services import NamePattern, PatternKind, Service, ServiceSource
from tokgate.policy.stores import StoreListing

SOURCE = ServiceSource(
    "https://www.example.org/#1", "adblock", None, "7: a", "MIT", "2026-08-19", ("!cn", "-ads"), True
)
NAMES = {
    EntryKind.SUFFIX: ["clips.example", "no"],
    EntryKind.EXACT: ["www.clips.example.org"],
    EntryKind.REGEX: ["^v[0-9]{1,3}\\.clips\\.example$"],
    EntryKind.ADDRESS: ["203.0.113.0/24", "2001:db8::/48"],
}


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    """No title, pattern or revision is lost or changed by YAML, and labels and apps stay."""
    before = Service(
        "clips",
        "old",
        description="Two\nlines",
        patterns=(NamePattern(PatternKind.LABEL, "clips"),),
        stores=(StoreListing("apple", "835599320"), StoreListing("google-play", "org.example.clips")),
    )
    names = {**NAMES, EntryKind.SUFFIX: ["clips.example"]}
    path = tmp_path / "clips.yaml"
    path.write_text(service_file("clips", "Clips: the app # 1", SOURCE, names, before), encoding="utf-8")
    loaded = load(path, Instant.from_utc(2026, 1, 1))
    assert loaded.diagnostics == ()
    assert loaded.policy is not None
    service = loaded.policy.services["clips"]
    assert service.title == "Clips: the app # 1"
    assert service.source == SOURCE
    assert service.description == "Two\nlines"
    assert names_of(service) == names
    assert [each.value for each in service.patterns if each.kind is PatternKind.LABEL] == ["clips"]
    assert {(each.store, each.identifier) for each in service.stores} == {
        ("apple", "835599320"),
        ("google-play", "org.example.clips"),
    }
