# mypy: ignore-errors
# Debian's Python runs it, with its packages.
"""gRPC of all four kinds: grpc_peer.py serve PORT CERTIFICATE KEY, or call URL PROXY|direct AUTHORITY."""

import hashlib
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import grpc


def one(request, context):
    """The request's digest; with an error, a message and trailers where it asks for them."""
    if request == b"fail":
        context.set_trailing_metadata((("x-case", "trailer"), ("x-case-bin", b"\0\xff")))
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "größer, as said")
    return hashlib.sha256(request).digest()


def many(request, _):
    """As many messages as it says, of a kilobyte more each."""
    for number in range(int(request)):
        yield bytes(1024 * number)


def gathered(requests, _):
    """How much came."""
    return str(sum(map(len, requests))).encode()


def echo(requests, _):
    """Each message back."""
    yield from requests


def serve(port, certificate, key):
    """Serve until killed."""
    handlers = {
        "One": grpc.unary_unary_rpc_method_handler(one),
        "Many": grpc.unary_stream_rpc_method_handler(many),
        "Gathered": grpc.stream_unary_rpc_method_handler(gathered),
        "Echo": grpc.stream_stream_rpc_method_handler(echo),
    }
    server = grpc.server(ThreadPoolExecutor(16))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("compat.Peer", handlers),))
    pair = (Path(key).read_bytes(), Path(certificate).read_bytes())
    server.add_secure_port(f"0.0.0.0:{port}", grpc.ssl_server_credentials([pair]))
    server.start()
    server.wait_for_termination()


def call(url, proxy, authority):
    """All kinds of calls, and how they ended."""
    if proxy != "direct":
        os.environ["https_proxy"] = proxy
    credentials = grpc.ssl_channel_credentials(Path(authority).read_bytes())
    with grpc.secure_channel(urlsplit(url).netloc, credentials, [("grpc.max_receive_message_length", -1)]) as channel:
        unary = channel.unary_unary("/compat.Peer/One")
        for message in (b"", b"hello", bytes(1 << 21)):
            print(unary(message, timeout=30).hex()[:12])
        try:
            unary(b"fail", timeout=30)
        except grpc.RpcError as error:
            print(error.code(), error.details(), sorted(map(str, error.trailing_metadata() or ())))
        try:
            channel.unary_unary("/compat.Peer/None")(b"", timeout=30)
        except grpc.RpcError as error:
            print(error.code())
        print([len(each) for each in channel.unary_stream("/compat.Peer/Many")(b"40", timeout=30)])
        print(channel.stream_unary("/compat.Peer/Gathered")(iter([bytes(5000)] * 100), timeout=30))
        print([len(each) for each in channel.stream_stream("/compat.Peer/Echo")(iter([b"a"] * 50), timeout=30)])
        with ThreadPoolExecutor(8) as pool:
            print(sorted({unary(str(n % 3).encode(), timeout=30).hex()[:8] for n in pool.map(int, range(60))}))
        stream = channel.unary_stream("/compat.Peer/Many")(b"500", timeout=30)
        next(stream)
        stream.cancel()
        print("cancelled", unary(b"after", timeout=30).hex()[:8])


(serve if sys.argv[1] == "serve" else call)(*sys.argv[2:])
