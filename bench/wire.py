"""What reading a ClientHello costs: ours beside mitmproxy's parser, in µs per hello on one core.

Run as `.venv/bin/python bench/wire.py`. Each figure is the best of several rounds: the rest is other people's load.
"""

from __future__ import annotations

import argparse
import contextlib
import ssl
import sys
import timeit
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "addons"))

from mitmproxy.proxy.layers.tls import parse_client_hello

from tokgate.wire.client_hello import ja4
from tokgate.wire.hello_reader import HelloReader, read_client_hello

BROWSER = Path(__file__).parents[1] / "tests/labs/chromium-156.hex"


def openssl_hello(maximum: ssl.TLSVersion) -> bytes:
    """The first flight of OpenSSL's client, with ALPN."""
    context = ssl.create_default_context()
    context.maximum_version = maximum
    context.set_alpn_protocols(["h2", "http/1.1"])
    outgoing = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="www.example.org")
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def in_records(data: bytes, size: int) -> bytes:
    """The hello of a single record in records of `size` octets."""
    message = data[5:]
    fragments = [message[i : i + size] for i in range(0, len(message), size)]
    return b"".join(b"\x16\x03\x01" + len(fragment).to_bytes(2) + fragment for fragment in fragments)


def ours_in_pieces(data: bytes, size: int) -> None:
    """Read piece by piece, as a gate does with a hello that comes in several segments."""
    received = bytearray()
    reader = HelloReader(received)
    for i in range(0, len(data), size):
        received += data[i : i + size]
        reader.read()


def mitmproxy_in_pieces(data: bytes, size: int) -> None:
    """Parse what has come so far at each piece, as mitmproxy's layer does."""
    for i in range(size, len(data) + size, size):
        parse_client_hello(data[:i])


def mitmproxy_facts(data: bytes) -> None:
    """Parse and take the name, which mitmproxy looks for on demand."""
    hello = parse_client_hello(data)
    assert hello is not None
    assert hello.sni


def microseconds(work: Callable[[], object], rounds: int) -> float:
    """The best time for one call, over rounds of about 50 ms each."""
    timer = timeit.Timer(work)
    number, _ = timer.autorange()
    number = max(1, number // 4)
    return min(timer.repeat(rounds, number)) / number * 1e6


def main() -> None:
    """Print one line a case."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15, metavar="N", help="rounds for each figure (default: 15)")
    rounds = parser.parse_args().rounds
    browser = bytes.fromhex(BROWSER.read_text("ascii"))
    modern, old = openssl_hello(ssl.TLSVersion.TLSv1_3), openssl_hello(ssl.TLSVersion.TLSv1_2)
    small_records, tiny_records = in_records(modern, 37), in_records(modern, 1)
    first = modern[:1448]
    hello = read_client_hello(modern)
    assert hello is not None
    cases: list[tuple[str, Callable[[], object], Callable[[], object] | None]] = [
        (f"Chromium 156, {len(browser)} octets", lambda: read_client_hello(browser), lambda: mitmproxy_facts(browser)),
        (f"OpenSSL, TLS 1.3, {len(modern)} octets", lambda: read_client_hello(modern), lambda: mitmproxy_facts(modern)),
        (f"OpenSSL, TLS 1.2, {len(old)} octets", lambda: read_client_hello(old), lambda: mitmproxy_facts(old)),
        ("incomplete: first 1448 octets", lambda: read_client_hello(first), lambda: parse_client_hello(first)),
        ("in two segments", lambda: ours_in_pieces(modern, 1448), lambda: mitmproxy_in_pieces(modern, 1448)),
        ("in records of 37 octets", lambda: read_client_hello(small_records), lambda: mitmproxy_facts(small_records)),
        ("in segments of 1 octet", lambda: ours_in_pieces(modern, 1), lambda: mitmproxy_in_pieces(modern, 1)),
        ("in segments and records of 1 octet", lambda: ours_in_pieces(tiny_records, 1), None),
        ("JA4, for the log", lambda: ja4(hello), None),
    ]
    print(f"{'µs per hello':<36}{'tokgate':>12}{'mitmproxy':>12}{'ratio':>8}")
    for title, ours, theirs in cases:
        cost = microseconds(ours, rounds)
        line = f"{title:<36}{cost:>12.2f}"
        if theirs is not None:
            other = microseconds(theirs, rounds)
            line += f"{other:>12.2f}{other / cost:>8.1f}"
        print(line)


if __name__ == "__main__":
    main()
