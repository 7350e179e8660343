"""Coverage in words: which share showed a name, and what was not seen."""

import pytest

from tokgate.blocklog.coverage import NOT_COUNTED, Share, share_of

SEEN = {
    "sni": 900,
    "quic-sni": 50,
    "decrypted": 20,
    "dns": 9,
    "address": 11,
    "none": 7,
    "ech-outer": 3,
}


def test_the_sentences() -> None:
    """A share of names, and each way of not being seen with its number."""
    judged, unseen, not_counted = Share(SEEN).sentences()
    assert judged == "Of 1,000 connections and requests 97.9 % showed a name, by which they were judged."
    assert unseen == (
        "Not seen by name: 11 judged by address alone, since what they spoke shows no name; 7 TLS that named no host; "
        "3 TLS whose real name was encrypted (ECH)."
    )
    assert not_counted == NOT_COUNTED


@pytest.mark.parametrize(
    ("seen", "percent"),
    [({}, "–"), ({"sni": 1}, "100 %"), ({"sni": 99999, "none": 1}, "99.9 %"), ({"none": 4}, "0 %")],
)
def test_the_share_is_never_rounded_up(seen: dict[str, int], percent: str) -> None:
    """100 % means all."""
    assert Share(seen).percent == percent


def test_all_and_nothing_are_said_plainly() -> None:
    """No zero shares, no empty lists."""
    assert (
        Share({"sni": 2}).sentences()[0]
        == "All of 2 connections and requests showed a name, by which they were judged."
    )
    assert Share({"none": 1}).sentences()[0].startswith("Of 1 connection or request 0 % showed")
    assert Share({}).sentences() == ("Nothing passed or was refused.", NOT_COUNTED)


def test_a_newer_versions_words_are_not_taken_for_seen() -> None:
    """What isn't known is told as such."""
    assert "3 of which this version doesn't know" in Share({"sni": 1, "telepathy": 3}).sentences()[1]


def test_networks_are_added_up() -> None:
    """Each visibility over all networks."""
    assert share_of({"office": {"sni": 1}, "-": {"sni": 2, "none": 1}}).seen == {"sni": 3, "none": 1}
