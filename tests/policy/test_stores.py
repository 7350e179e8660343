"""Store listings are read out of URLs as the stores write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokgate.policy.stores import (
    MAX_IDENTIFIERS,
    asks_in_body,
    identifiers_in_body,
    listing,
    listings,
    page_of,
    store_of_front,
)

PLAY = "https://play.google.com"
FORMS = {
    "google-play/org.example.clips": [
        f"{PLAY}/store/apps/details?id=org.example.clips",
        "https://play.google.com:443/store/apps/details?hl=fr&id=org.example.clips",
        f"{PLAY}/store/apps/datasafety?id=org.example.clips",
        f"{PLAY}/store/apps/details?id=org.example.other&id=org.example.clips",
        f"{PLAY}/store/apps/details?hl=en;id=org.example.clips",
        f"{PLAY}/store/apps/details?&&id=org.example.clips&",
        f"{PLAY}/store/apps/details?%69d=org.example.clips",
        f"{PLAY}/store/apps/details?id=org%2Eexample%2e%63lips",
        f"{PLAY}/store/apps/details?ID=+org.example.clips",
        f"{PLAY}/store/apps/details;id=org.example.clips",
        f"{PLAY}/store/apps/details?hl=en?id=org.example.clips",
        f"{PLAY}/store/search?q=pname:org.example.clips&c=apps",
        f"{PLAY}/store//apps/details?id=org.example.clips",
        f"{PLAY}/store/x/../apps/details?id=org.example.clips",
        f"{PLAY}/store/apps%2fdetails?id=org.example.clips",
        "https://market.android.com/details?id=org.example.clips",
        "http://play.google.com:80/x/../store//apps/details/?id=org.example.clips",
    ],
    "apple/835599320": [
        "https://apps.apple.com/be/app/some-app/id835599320?l=nl",
        "https://apps.apple.com/app/id835599320",
        "https://APPS.apple.com./us/app/x/id835599320/",
        "https://apps.apple.com/be-nl/app/some-app/ID835599320/",
        "https://apps.apple.com//us//app/./x/id835599320;a=b",
        "https://itunes.apple.com/us/app/id835599320",
        "https://itunes.apple.com/lookup?id=1,835599320",
        "https://itunes.apple.com/WebObjects/MZStore.woa/wa/viewSoftware?id=835599320&mt=8",
        "itms-apps://itunes.apple.com/app/id835599320",
    ],
    "microsoft/9nh2gph4jzs4": ["https://apps.microsoft.com/detail/9nh2gph4jzs4"],
    "microsoft/9NH2GPH4JZS4": ["https://apps.microsoft.com/store/detail/some-app/9NH2GPH4JZS4"],
    "amazon/B0117U0G3M": ["https://www.amazon.de/Some-App/dp/B0117U0G3M/ref=x"],
    "galaxy-store/org.example.clips": ["https://galaxystore.samsung.com/detail/org.example.clips"],
    "huawei/C100315379": [
        "https://appgallery.huawei.com/app/C100315379",
        "https://appgallery.huawei.com/#/app/C100315379",
    ],
    "apkmirror/example-ltd/clips": ["https://www.apkmirror.com/apk/example-ltd/clips/clips-1-0-release/"],
    "apkpure/org.example.clips": [
        "https://apkpure.com/clips/org.example.clips",
        "https://apkpure.com/nl/clips/org.example.clips/download",
        "https://d.apkpure.com/b/APK/org.example.clips?version=latest",
    ],
}


@pytest.mark.parametrize(("listed", "url"), [(listed, url) for listed, urls in FORMS.items() for url in urls])
def test_listings(listed: str, url: str) -> None:
    """Each store's own forms of URL; whichever parameter it goes by, however it is separated and encoded."""
    assert listed in {f"{each.store}/{each.identifier}" for each in listings(url)}
    assert listing(url) == listings(url)[0]


@pytest.mark.parametrize(
    "url",
    [
        "https://play.google.com/store/apps",
        "https://play.google.com.example.org/store/apps/details?id=org.example.clips",
        "https://apps.apple.com/be/developer/x/id",
        "https://apps.apple.com/#/app/id835599320",
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


def test_a_url_of_many_identifiers() -> None:
    url = f"{PLAY}/store/apps/details?" + "&".join(f"id=org.example.a{number}" for number in range(1000))
    assert len(listings(url)) == MAX_IDENTIFIERS


def test_bodies() -> None:
    """What Play's own page asks for stands in a form, in JSON, escaped as deep as somebody likes."""
    assert asks_in_body(f"{PLAY}/_/PlayStoreUi/data/batchexecute?rpcids=Ws7gDc") == "google-play"
    assert asks_in_body(f"{PLAY}/_/PlayStoreUi/data/%62atchExecute/") == "google-play"
    assert asks_in_body(f"{PLAY}/log?format=json") is None
    assert asks_in_body("https://apps.apple.com/batchexecute") is None
    assert asks_in_body("https://[::1") is None
    nested = (
        b"f.req=%5B%5B%5B%22Ws7gDc%22%2C%22%5Bnull%2C%5B%5C%22Org.example%5C%5Cu002eclips%5C%22%2C7%5D%5D%22%5D%5D%5D"
    )
    assert "org.example.clips" in identifiers_in_body(nested)
    assert listing(page_of("google-play", "org.example.clips")) == listing(
        f"{PLAY}/store/apps/details?id=org.example.clips"
    )
