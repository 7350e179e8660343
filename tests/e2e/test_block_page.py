"""`response: page`: only the banned name is opened, and a browser that trusts the authority shows why."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from labs.clients import browser
from labs.gateway import Gateway, office_policy, refuses
from labs.netns import Lab
from labs.origin import BANNED, Origin, to_banned


@pytest.fixture(scope="module")
def page_gateway(
    gateway_factory: Callable[..., Gateway],
    constrained_authority: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Gateway]:
    """A gateway that shows the page, with the authority that certs/README.md makes."""
    folder = tmp_path_factory.mktemp("page")
    with gateway_factory(
        folder, policy=office_policy(response="page"), options=["--confdir", constrained_authority]
    ) as running:
        yield running


TITLES = {
    "en": "TikTok is not available on this network",
    "fr": "TikTok n’est pas accessible sur ce réseau",
    "nl": "TikTok is niet beschikbaar op dit netwerk",
    "de": "TikTok ist in diesem Netz nicht verfügbar",
}


@pytest.mark.parametrize("language", TITLES)
def test_chromium_shows_the_page(
    lab: Lab,
    origin: Origin,
    page_gateway: Gateway,
    constrained_authority: Path,
    artifacts: Path,
    language: str,
) -> None:
    """The page is in the reader's language, says by whom, on which basis and whom to ask, and carries the log's id."""
    picture = artifacts / f"page-{language}.png"
    flags = [f"--accept-lang={language}", f"--screenshot={picture}", "--window-size=900,1100"]
    with origin.watch() as seen, browser(lab.client, constrained_authority / "root.pem") as browse:
        page = browse(f"https://{BANNED}/", 4, *flags)

    assert page.error == ""
    assert f'lang="{language}"' in page.dom
    for text in (TITLES[language], "Example Authority", "Circular 1 of 1 March 2023", "servicedesk@example.org"):
        assert text in page.text
    assert picture.stat().st_size > 10_000
    assert to_banned(seen) == 0
    record = page_gateway.wait_for_record("the page is logged", lambda record: record["event"]["id"] in page.dom)
    assert refuses(BANNED, Lab.CLIENT[4])(record)
    assert record["event"]["action"] == "http-request-blocked"
    assert record["http"]["response"]["status_code"] == 451


def test_untrusting_browser_gets_no_page_and_no_service(lab: Lab, origin: Origin, page_gateway: Gateway) -> None:
    """Without the authority a browser shows a certificate error, and the service is refused all the same."""
    with origin.watch() as seen, browser(lab.client, origin.authority) as browse:
        page = browse(f"https://{BANNED}/")

    assert page.error == "ERR_CERT_AUTHORITY_INVALID"
    assert to_banned(seen) == 0
