"""The filter that one writes for mitmproxy in twenty lines: banned names get a 451, the rest passes undecrypted.

With BENCH_OPEN=1 nothing passes undecrypted: what a filter costs that decides by request.
"""

import os

from mitmproxy import http, tls

BANNED = tuple(os.environ["BENCH_BANNED"].split())
OPEN_ALL = os.environ.get("BENCH_OPEN") == "1"


def banned(name: str | None) -> bool:
    """Whether a name is one of the banned ones or below one."""
    name = (name or "").lower().rstrip(".")
    return any(name == one or name.endswith("." + one) for one in BANNED)


def tls_clienthello(data: tls.ClientHelloData) -> None:
    """Let what isn't banned pass undecrypted."""
    data.ignore_connection = not OPEN_ALL and not banned(data.client_hello.sni)


def request(flow: http.HTTPFlow) -> None:
    """Answer what is banned."""
    if banned(flow.client_conn.sni) or banned(flow.request.pretty_host):
        flow.response = http.Response.make(451, b"Unavailable For Legal Reasons", {"content-type": "text/plain"})
