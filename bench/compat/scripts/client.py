# mypy: ignore-errors
# Debian's Python runs it, with its packages.
"""Python's urllib and http.client: client.py URL PROXY|direct AUTHORITY."""

import hashlib
import http.client
import ssl
import sys
import urllib.error
import urllib.request
from urllib.parse import urlsplit

url, proxy, authority = sys.argv[1:]
context = ssl.create_default_context(cafile=authority)
place = urlsplit(url)
via = {} if proxy == "direct" else {"http": proxy, "https": proxy}
opener = urllib.request.build_opener(urllib.request.ProxyHandler(via), urllib.request.HTTPSHandler(context=context))


def digest(octets: bytes) -> str:
    """Short, to print."""
    return hashlib.sha256(octets).hexdigest()[:12]


for path in ("/page.html", "/text", "/large", "/none", "/moved", "/nothing", "/teapot"):
    try:
        with opener.open(url + path, timeout=20) as answer:
            print(path, answer.status, answer.geturl().replace(url, ""), digest(answer.read()))
    except urllib.error.HTTPError as error:
        print(path, error.code, digest(error.read()))
if proxy == "direct":
    made = http.client.HTTPSConnection if place.scheme == "https" else http.client.HTTPConnection
    connection = made(place.netloc, timeout=20, **({"context": context} if place.scheme == "https" else {}))
    before = ""
else:
    there = urlsplit(proxy).netloc
    before = "" if place.scheme == "https" else url
    if place.scheme == "https":
        connection = http.client.HTTPSConnection(there, timeout=20, context=context)
        connection.set_tunnel(place.netloc, 443)
    else:
        connection = http.client.HTTPConnection(there, timeout=20)
for method, body, fields in (
    ("GET", None, {}),
    ("POST", b"a" * 200_000, {}),
    ("PUT", iter([b"a" * 1000] * 50), {"Transfer-Encoding": "chunked"}),
    ("OPTIONS", None, {"X-Case": "x"}),
    ("GET", None, {f"X-Case-{number}": "y" for number in range(60)}),
):
    connection.request(method, f"{before}/echo", body, {"Host": place.netloc} | fields, encode_chunked=method == "PUT")
    got = connection.getresponse()
    print(method, got.status, digest(got.read()))
