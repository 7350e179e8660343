"""Where things are and which addresses and names the bench uses."""

from pathlib import Path
from typing import Final

BENCH: Final = Path(__file__).resolve().parent.parent
PROJECT: Final = BENCH.parent
LOAD_SOURCES: Final = BENCH / "load"
PEER_TEMPLATES: Final = BENCH / "peers"
POLICIES: Final = BENCH / "policy"
BUILD: Final = BENCH / "build"
RESULTS_JSON: Final = BENCH / "results.json"
RESULTS_MD: Final = BENCH / "RESULTS.md"
BROWSER_HELLO: Final = PROJECT / "tests/labs/chromium-156.hex"

CLIENT: Final = "192.0.2.2"
CLIENT_SIDE: Final = "192.0.2.1"
ORIGIN_SIDE: Final = "198.51.100.1"
WEB: Final = "198.51.100.2"
"""nginx: real TLS, HTTP/1.1 and HTTP/2."""
SMALL: Final = "198.51.100.3"
"""Answers a ClientHello with 1,200 octets and closes."""
BULK: Final = "198.51.100.4"
"""Answers a ClientHello with 256 MiB and closes."""
HELD: Final = "198.51.100.5"
"""Answers a ClientHello with 1,200 octets and leaves the connection open."""

SMALL_ANSWER: Final = 1200
BULK_ANSWER: Final = 256 << 20

ALLOWED_NAME: Final = "www.example.org"
BANNED_NAME: Final = "www.tiktok.com"
SMALL_NAME: Final = "small.example.org"
BULK_NAME: Final = "bulk.example.org"
HELD_NAME: Final = "held.example.org"

HOSTS: Final = {
    ALLOWED_NAME: WEB,
    BANNED_NAME: WEB,
    SMALL_NAME: SMALL,
    BULK_NAME: BULK,
    HELD_NAME: HELD,
}
