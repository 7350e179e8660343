"""Tries it: a name is resolved, an allowed one is reached through the proxy, and a banned one is not."""

import contextlib
import select
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from whenever import Instant

from tokgate.gate.egress.parents import ParentRefused, answer_length, connect_request
from tokgate.gate.sockets import connect
from tokgate.gateway.ruleset import Ruleset
from tokgate.policy.decision import Phase
from tokgate.policy.settings import Upstream
from tokgate.policy.snapshot import Snapshot
from tokgate.policy.values.prefixes import last_host
from tokgate.runtime.banner import best_known_name, dialled
from tokgate.service.doctor import Result

_SECONDS: Final = 10.0
_SLOW: Final = 1.0
_PATIENCE: Final = 5.0
_HERE: Final = "127.0.0.1"
_TLS: Final = 443


def resolution(name: str) -> Result:
    """Whether this machine resolves names, without which an explicit proxy reaches nothing."""
    began = time.monotonic()
    try:
        socket.getaddrinfo(name, 443, type=socket.SOCK_STREAM)
    except OSError as error:
        return Result(
            "DNS", f"{name} is not resolved: {error.strerror}", "see /etc/resolv.conf, and the resolver it names"
        )
    took = time.monotonic() - began
    if took > _SLOW:
        return Result("DNS", f"{name} took {took:.1f} s", "a resolver that answers sooner, in /etc/resolv.conf")
    return Result("DNS", f"{name} is resolved")


def parents(upstreams: Sequence[Upstream], allowed: str) -> Iterator[Result]:
    """Whether each parent proxy leads to a destination that is its own: `allowed`, or one that it is named for."""
    for each in upstreams:
        names = [place for place in each.destinations if isinstance(place, str)]
        addresses = [str(place.network_address) for place in each.destinations if not isinstance(place, str)]
        target = allowed if each.carries([allowed]) else next(iter((*names, *addresses)), allowed)
        subject = f"parent proxy {each.host}:{each.port}"
        try:
            _led(each, target)
        except ParentRefused as error:
            remedy = "settings.upstream and its credentials" if error.ours else f"ask who runs it about {target}"
            yield Result(subject, f"{target}: {error}", remedy)
        except OSError as error:
            yield Result(subject, f"{target}: {error.strerror or error}", "settings.upstream, and the way there")
        else:
            yield Result(subject, f"leads to {target}")


def _led(upstream: Upstream, target: str) -> None:
    """Have a parent proxy connect to a destination. Raises ParentRefused and OSError."""
    said = b""
    with socket.create_connection((upstream.host, upstream.port), _SECONDS) as sock:
        sock.sendall(connect_request(upstream, target, 443))
        while answer_length(said) is None:
            piece = sock.recv(4096)
            if not piece:
                raise ConnectionResetError("it ended the connection")
            said += piece


def way_back(rules: Ruleset, allowed: str) -> Iterator[Result]:
    """Whether what an allowed name answers to a client's address comes to this machine, over each version of IP.

    Tried from the last address of the first prefix of the clients; whoever has it notices nothing. For rules that are
    loaded.
    """
    for version, family in ((4, socket.AF_INET), (6, socket.AF_INET6)):
        prefixes = rules.client_sets.prefixes(version)
        client = next((str(last_host(each)) for each in prefixes), None)
        with contextlib.suppress(OSError):  # it has no such address
            found = socket.getaddrinfo(allowed, _TLS, family, socket.SOCK_STREAM)
            place = (str(found[0][4][0]), _TLS)
            subject = f"answers to clients over IPv{version}"
            if client is None or not _answered(place, None):
                continue
            if _answered(place, client):
                yield Result(subject, f"come back here: {allowed} answers {client}")
            else:
                said = f"{allowed} answers this machine, but not {client}"
                yield Result(
                    subject, said, "routes for clients' networks by here, or settings.egress.addresses: gateway"
                )


def _answered(place: tuple[str, int], client: str | None) -> bool:
    """Whether a connection is answered, from a client's address or this machine's."""
    try:
        with socket.socket(fileno=connect(place, None, client, dscp=None if client is None else 0).detach()) as sock:
            poller = select.poll()
            poller.register(sock, select.POLLOUT)
            answered = poller.poll(1000 * _PATIENCE)
            return bool(answered) and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    except OSError:
        return False


def proxy(listening: Sequence[Mapping[str, Any]], snapshot: Snapshot, allowed: str, now: Instant) -> Iterator[Result]:
    """An allowed and a banned name through the explicit proxy of this machine. `listening` as of `tokgate status`."""
    places = [each for each in listening if each["entry"] == "explicit"]
    if not places:
        yield Result("probes", "not tried: no explicit proxy here; on a client: tokgate evasion --via route")
        return
    place = places[0]
    address = _address(dialled(place["host"], place["port"]))
    status = _asked(address, allowed)
    if status is not None and " 407 " in status:
        yield Result("probes", "not tried: users of the explicit proxy sign in (settings.proxy_auth)")
        return
    if status is None or " 200" not in status:
        yield Result("allowed probe", f"{allowed}: {status or 'no answer'}", "tokgate explain, tokgate status, DNS")
    else:
        yield Result("allowed probe", f"{allowed} is reached")
    banned = best_known_name(snapshot, now, _HERE, Phase.BLOCK)
    if banned is None:
        yield Result("banned probe", f"not tried: no ban in force blocks {_HERE}")
        return
    status = _asked(address, banned)
    if status is None or " 200" in status:
        said = "is reached" if status is not None else "gets no answer"
        remedy = f"tokgate explain --client {_HERE} --host {banned}"
        yield Result("banned probe", f"{banned} {said}", remedy)
    else:
        yield Result("banned probe", f"{banned} is refused")


def unanswered(listening: Sequence[Mapping[str, Any]], seconds: float) -> Iterator[str]:
    """The listeners for explicit clients at which no gate serves the PAC file within `seconds`, in words.

    It is served to anybody and leaves no record. Those for redirected clients can't be asked from this machine.
    """
    for place in listening:
        if place["entry"] == "explicit":
            where = dialled(place["host"], place["port"])
            status = _answer(_address(where), f"GET /proxy.pac HTTP/1.1\r\nHost: {where}\r\n\r\n", seconds)
            if status is None or " 200" not in status:
                yield f"the proxy on {where} does not answer{'' if status is None else f' as it should: {status}'}"


def _address(where: str) -> tuple[str, int]:
    host, _, port = where.rpartition(":")
    return host.strip("[]"), int(port)


def _asked(address: tuple[str, int], name: str) -> str | None:
    """The status line that a CONNECT gets; None without an answer."""
    return _answer(address, f"CONNECT {name}:443 HTTP/1.1\r\nHost: {name}:443\r\n\r\n", _SECONDS)


def _answer(address: tuple[str, int], request: str, seconds: float) -> str | None:
    """The status line that a request gets; None without an answer."""
    try:
        with socket.create_connection(address, seconds) as sock:
            sock.sendall(request.encode())
            return sock.recv(4096).decode("latin-1").partition("\r\n")[0] or None
    except OSError:
        return None
