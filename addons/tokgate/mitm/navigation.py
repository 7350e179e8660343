"""Recognises navigation requests of browsers, whose response is shown as a page (Fetch Metadata)."""

from typing import Final

from mitmproxy.http import Headers, Request

_DOCUMENT: Final = ("navigate", "document")
"""Sec-Fetch-Mode and Sec-Fetch-Dest of what a person sees in a tab of its own (Fetch Metadata Request Headers)."""


def is_navigation(request: Request) -> bool:
    """Whether the response becomes the document of a tab. Frames are not: a button in one can't be trusted."""
    if request.method != "GET":
        return False
    headers = request.headers
    if _has_metadata(headers):
        return _is_document(headers)
    return _claims_to_be_a_browser(headers) and "text/html" in headers.get("accept", "").lower()


def from_a_browser(request: Request) -> bool:
    """Whether the software that sent it may yet send a navigation."""
    return _has_metadata(request.headers) or _claims_to_be_a_browser(request.headers)


def is_own_form(request: Request, authority: str) -> bool:
    """Whether a form was sent in a tab, by a page of this very origin, as far as the browser says.

    Scripts can't say so: a site's own, left in the browser from earlier visits, must not continue for people.
    """
    headers = request.headers
    site, origin = headers.get("sec-fetch-site", "same-origin"), headers.get("origin")
    if site != "same-origin" or (_has_metadata(headers) and not _is_document(headers)):
        return False
    return origin is None or origin.lower() == f"{request.scheme}://{authority}".lower()


def _has_metadata(headers: Headers) -> bool:
    return "sec-fetch-mode" in headers or "sec-fetch-dest" in headers


def _is_document(headers: Headers) -> bool:
    return (headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")) == _DOCUMENT


def _claims_to_be_a_browser(headers: Headers) -> bool:
    """Browsers too old for Sec-Fetch, or speaking plain HTTP, where it isn't sent."""
    agent: str = headers.get("user-agent", "")
    return agent.startswith("Mozilla/5.0")
