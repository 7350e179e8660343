"""Patterns of names, and the identifiers of app stores."""

import pytest
from pydantic_core import PydanticCustomError

from tokgate.config.format import services
from tokgate.policy.stores import STORES


@pytest.mark.parametrize(
    ("store", "identifier"),
    [("google-play", "com.zhiliaoapp.musically"), ("apple", "835599320"), ("microsoft", "9NH2GPH4JZS4"),
     ("amazon", "B00GVCJU8C"), ("galaxy-store", "com.ss.android.ugc.trill"), ("huawei", "C100315379"),
     ("apkmirror", "tiktok-pte-ltd/tik-tok"), ("apkpure", "com.zhiliaoapp.musically"),
     ("apple-bundle", "com.burbn.instagram"), ("apple-bundle", "pinterest")],
)  # fmt: skip
def test_store_identifiers(store: str, identifier: str) -> None:
    """Real identifiers are accepted, for each store there is; the same with a blank in it is not."""
    for each in (identifier, STORES[store].example):
        assert services.store_id(store, each) == each
        with pytest.raises(PydanticCustomError):
            services.store_id(store, each + " x")


@pytest.mark.parametrize("written", ["[/", "https://[::1", "//]"])
def test_brackets_that_hold_no_address(written: str) -> None:
    """What Python can't take apart as a URL is a wrong pattern all the same."""
    for validate in (services.suffix, services.exact):
        with pytest.raises(PydanticCustomError, match="host name"):
            validate(written)


def test_names_are_canonical() -> None:
    """Patterns are kept in the spelling in which names are looked up."""
    assert services.suffix("TikTok.com.") == "tiktok.com"
    assert services.exact("bücher.example") == "xn--bcher-kva.example"
    assert services.label("TikTok") == "tiktok"
