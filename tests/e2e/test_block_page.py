"""`response: page`: only the banned name is opened, and a browser that trusts the authority shows why."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from labs.devtools import tab
from labs.gateway import CARRIERS, Gateway, MakeGateway, Record, office_policy, refuses
from labs.netns import Lab
from labs.origin import BANNED, Origin, to_banned


@pytest.fixture(scope="module", params=["mitmproxy", "gates"])
def page_gateway(
    request: pytest.FixtureRequest, any_gateway: MakeGateway, constrained_authority: Path
) -> Iterator[Gateway]:
    """A gateway that shows the page, with the authority that certs/README.md makes."""
    policy, options = office_policy(response="page"), ["--confdir", constrained_authority]
    with any_gateway(policy=policy, options=options, **CARRIERS[request.param]) as running:
        yield running


TITLES = {
    "en": "TikTok is not available on this network",
    "fr": "TikTok n’est pas accessible sur ce réseau",
    "nl": "TikTok is niet beschikbaar op dit netwerk",
    "de": "TikTok ist in diesem Netz nicht verfügbar",
}


def test_chromium_shows_the_page(
    lab: Lab, origin: Origin, page_gateway: Gateway, constrained_authority: Path, artifacts: Path
) -> None:
    """The page is in the reader's language, says by whom, on which basis and whom to ask, and carries the log's id."""
    with (
        origin.watch() as seen,
        tab(namespace=lab.client, authorities=(constrained_authority / "root.pem",)) as page,
    ):
        page.size(900, 1100)
        for language, title in TITLES.items():
            page.call("Network.setExtraHTTPHeaders", headers={"Accept-Language": language})
            page.open(f"https://{BANNED}/")
            assert page.status == 451
            assert page.run("document.documentElement.lang") == language
            for text in (title, "Example Authority", "Circular 1 of 1 March 2023", "servicedesk@example.org"):
                assert text in page.text
            page.picture(artifacts / f"page-{language}.png")
            page_gateway.wait_for_record("the page is logged", partial(_shown, page.text))
    assert to_banned(seen) == 0


def _shown(text: str, record: Record) -> bool:
    """Whether a record is that of the page with this text."""
    refused = refuses(BANNED, Lab.CLIENT[4], "http-request-blocked")(record)
    return refused and record["http"]["response"]["status_code"] == 451 and record["event"]["id"] in text


def test_untrusting_browser_gets_no_page_and_no_service(lab: Lab, origin: Origin, page_gateway: Gateway) -> None:
    """Without the authority a browser shows a certificate error, and the service is refused all the same."""
    with origin.watch() as seen, tab(namespace=lab.client, authorities=(origin.authority,)) as page:
        assert page.error(f"https://{BANNED}/") == "ERR_CERT_AUTHORITY_INVALID"

    assert to_banned(seen) == 0
