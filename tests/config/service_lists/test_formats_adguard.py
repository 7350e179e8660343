"""AdGuard's files of blocked services: JSON with several, YAML with one, and files of another kind."""

import json

import pytest

from tokgate.config.service_lists.formats import NoSuchPart, read_adguard

SERVICES = json.dumps(
    {
        "blocked_services": [
            {"id": "clips", "name": "Clips", "icon_svg": "PHN2Zz4=", "rules": ["||clips.example^", "||b.example/path"]},
            {"id": "songs", "name": "Songs", "rules": ["||songs.example^$denyallow=a.songs.example"]},
        ],
        "groups": [{"id": "social_network"}],
    },
    indent=2,
)
ONE = """\
id: clips
name: Clips
group: social_network
icon: PHN2Zz4=
rules:
  - "||clips.example^"
  - "||songs.example/x"
"""


def test_one_service_of_many() -> None:
    """The rules of the service that is asked for, with their lines in the file."""
    found = read_adguard("services.json", SERVICES, "clips")
    assert [(entry.kind, entry.value, entry.place.line) for entry in found.entries] == [("suffix", "clips.example", 8)]
    assert [(each.place.line, each.text) for each in found.unreadable] == [(9, "||b.example/path")]
    assert found.said == {"title": "Clips"}


def test_a_file_with_one_service() -> None:
    """Who has one service's file need not say which."""
    found = read_adguard("clips.yml", ONE, "whatever")
    assert [(entry.value, entry.place.line) for entry in found.entries] == [("clips.example", 6)]
    assert [each.place.line for each in found.unreadable] == [7]


def test_a_service_that_the_file_lacks() -> None:
    """A mistyped identifier is told with one that is meant."""
    with pytest.raises(NoSuchPart, match=r"2 services, and none is `clip`.*`clips`"):
        read_adguard("services.json", SERVICES, "clip")


@pytest.mark.parametrize(
    "text", ["[]", '{"a": 1}', "||clips.example^", "rules: [a", '{"services": [{"id": "x"}]}', "{"]
)
def test_a_file_of_another_kind(text: str) -> None:
    """A file that holds no services is refused, not read as an empty list."""
    with pytest.raises(ValueError, match=r"JSON|service|Expecting"):
        read_adguard("x", text, "clips")
