"""Store listings are read out of URLs as the stores write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokgate.policy.stores import listing, store_of_front


@pytest.mark.parametrize(
    ("url", "store", "identifier"),
    [
        ("https://play.google.com/store/apps/details?id=org.example.clips", "google-play", "org.example.clips"),
        (
            "https://play.google.com:443/store/apps/details?hl=fr&id=org.example.clips",
            "google-play",
            "org.example.clips",
        ),
        ("https://play.google.com/store/apps/datasafety?id=org.example.clips", "google-play", "org.example.clips"),
        ("https://apps.apple.com/be/app/some-app/id835599320?l=nl", "apple", "835599320"),
        ("https://apps.apple.com/app/id835599320", "apple", "835599320"),
        ("https://APPS.apple.com./us/app/x/id835599320/", "apple", "835599320"),
        ("https://apps.microsoft.com/detail/9nh2gph4jzs4", "microsoft", "9nh2gph4jzs4"),
        ("https://apps.microsoft.com/store/detail/some-app/9NH2GPH4JZS4", "microsoft", "9NH2GPH4JZS4"),
        ("https://www.amazon.de/Some-App/dp/B0117U0G3M/ref=x", "amazon", "B0117U0G3M"),
        ("https://galaxystore.samsung.com/detail/org.example.clips", "galaxy-store", "org.example.clips"),
        ("https://appgallery.huawei.com/app/C100315379", "huawei", "C100315379"),
        ("https://appgallery.huawei.com/#/app/C100315379", "huawei", "C100315379"),
        ("https://www.apkmirror.com/apk/example-ltd/clips/clips-1-0-release/", "apkmirror", "example-ltd/clips"),
        ("https://apkpure.com/clips/org.example.clips", "apkpure", "org.example.clips"),
        ("https://apkpure.com/nl/clips/org.example.clips/download", "apkpure", "org.example.clips"),
        ("https://d.apkpure.com/b/APK/org.example.clips?version=latest", "apkpure", "org.example.clips"),
    ],
)
def test_listings(url: str, store: str, identifier: str) -> None:
    """Each store's own form of URL."""
    found = listing(url)
    assert found is not None
    assert (found.store, found.identifier) == (store, identifier)


@pytest.mark.parametrize(
    "url",
    [
        "https://play.google.com/store/apps",
        "https://play.google.com.example.org/store/apps/details?id=org.example.clips",
        "https://apps.apple.com/be/developer/x/id",
        "https://example.org/app/id835599320",
        "https://[::1",
        "not a url",
        "",
    ],
)
def test_everything_else_is_none(url: str) -> None:
    """Other pages of a store, other hosts and junk show no listing."""
    assert listing(url) is None


def test_fronts_are_dedicated_hosts() -> None:
    """A shop that also sells shoes is never opened; a host that is nothing but a store may be."""
    assert store_of_front("play.google.com") == "google-play"
    assert store_of_front("www.amazon.de") is None


@given(st.text(max_size=60))
def test_never_raises(text: str) -> None:
    """Any text is a URL or it is not."""
    listing(text)
    listing("https://play.google.com/" + text)
