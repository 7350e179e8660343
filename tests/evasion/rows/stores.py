"""Rows of what asks an app store for a banned app: its page in other spellings, and what the store's own page asks."""

from collections.abc import Iterator
from functools import partial
from urllib.parse import quote

from evasion.carriers import Carrier
from evasion.table import Logged, Row, Twin
from tokgate.evasion.attempt import Attempt, Family, Opens, SentPieces, Target
from tokgate.evasion.families.http_heads import asked

APP, OTHER_APP = "org.example.clips", "org.example.other"
_HOST = b"Host: play.google.com\r\nConnection: close\r\n"
_PAGES = {
    "page": "/store/apps/details?id=APP",
    "page-language": "/store/apps/details?hl=en&id=APP&gl=BE",
    "id-twice": "/store/apps/details?id=org.example.first&id=APP",
    "id-twice-reversed": "/store/apps/details?id=APP&id=org.example.first",
    "semicolon": "/store/apps/details?hl=en;id=APP",
    "empty-parameters": "/store/apps/details?&&id=APP&",
    "encoded-key": "/store/apps/details?%69d=APP",
    "encoded-value": "/store/apps/details?id=ENCODED",
    "encoded-path": "/store/apps/%64etails?id=APP",
    "slash-behind": "/store/apps/details/?id=APP",
    "two-slashes": "/store//apps/details?id=APP",
    "dots": "/store/x/../apps/details?id=APP",
    "parameters-of-path": "/store/apps/details;x=y?id=APP",
    "fragment": "/store/apps/details?id=APP#x",
    "encoded-question": "/store/apps/details?id=APP%26hl=en",
    "plus-behind": "/store/apps/details?id=APP+",
    "id-third": "/store/apps/details?id=a.b&id=c.d&id=APP",
    "id-in-both-separators": "/store/apps/details?id=a.b;id=APP",
    "double-encoded-key": "/store/apps/details?id=a.b&%69%64=APP",
    "capital-key": "/store/apps/details?ID=x&id=APP",
    "array-key": "/store/apps/details?x[]=1&id=APP",
    "trailing-amp": "/store/apps/details?id=APP&&",
    "no-value": "/store/apps/details?id&id=APP",
    "equals-value": "/store/apps/details?x==&id=APP",
    "capital-path": "/store/apps/details?hl=en_US&gl=US&id=APP",
    "dot-segment": "/./store/apps/details?id=APP",
    "encoded-slash": "/store/apps%2fdetails?id=APP",
    "encoded-dots": "/store/x/%2e%2e/apps/details?id=APP",
    "three-slashes": "///store/apps/details?id=APP",
    "developer-details": "/store/apps/details?id=APP&referrer=utm_source%3Dx",
    "data-safety": "/store/apps/datasafety?id=APP",
    "https-form": "https://play.google.com/store/apps/details?id=APP",
    "absolute-form": "http://play.google.com/store/apps/details?id=APP",
}
_BATCH = '[[["Ws7gDc","[null,null,[[1]],null,null,[[\\"APP\\",7]]]",null,"generic"]]]'


def _get(path: str) -> SentPieces:
    def pieces(target: Target) -> list[bytes]:
        encoded = "".join(f"%{ord(letter):02X}" for letter in target.name)
        line = path.replace("APP", target.name).replace("ENCODED", encoded)
        return [f"GET {line} HTTP/1.1\r\n".encode() + _HOST + b"\r\n"]

    return pieces


def _batch(target: Target) -> list[bytes]:
    """What Play's own page asks for when a link is followed inside it."""
    body = f"f.req={quote(_BATCH.replace('APP', target.name), safe='')}&".encode()
    head = b"POST /_/PlayStoreUi/data/batchexecute?rpcids=Ws7gDc HTTP/1.1\r\n" + _HOST
    kind = b"Content-Type: application/x-www-form-urlencoded;charset=UTF-8\r\n"
    return [head + kind + b"Content-Length: %d\r\n\r\n" % len(body) + body]


def rows() -> Iterator[Row]:
    """All of them, in plain HTTP: what is opened is read in the same way."""
    asks = {f"store-{name}": _get(path) for name, path in _PAGES.items()} | {"store-batchexecute": _batch}
    for name, pieces in asks.items():
        attempt = Attempt(
            id=name,
            family=Family.HTTP_BODIES,
            opens=Opens.HTTP,
            what=name.replace("-", " "),
            play=partial(asked, pieces),
        )
        yield Row(
            attempt=attempt,
            carriers=(Carrier.GATE, Carrier.MITMPROXY, Carrier.CONNECT),
            name=APP,
            leak=b"play.google.com",
            logged=Logged.RECORD,
            twin=Twin.SAME_TRICK,
            twin_name=OTHER_APP,
            twin_leak=b"play.google.com",
        )
