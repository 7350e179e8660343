"""The lines on standard error when the proxy is ready: where it listens, what it enforces, how to try it."""

from collections.abc import Iterable, Iterator, Sequence

from mitmproxy.proxy import mode_specs
from mitmproxy.utils import human
from whenever import Instant

from tokgate.policy.snapshot import Snapshot
from tokgate.runtime.banner import dialled, overview


def announcement(
    snapshot: Snapshot, listening: Iterable[tuple[mode_specs.ProxyMode, Sequence[tuple[str, int]]]], at: Instant
) -> Iterator[str]:
    proxy, carries = None, False
    for mode, addresses in listening:
        carries |= not isinstance(mode, mode_specs.DnsMode)
        shown = " and ".join(dict.fromkeys(human.format_address(address[:2]) for address in addresses))
        yield f"{mode.type_name}: listening on {shown}" if shown else f"{mode.type_name}: started"
        if isinstance(mode, mode_specs.RegularMode | mode_specs.Socks5Mode) and addresses and proxy is None:
            scheme = "http" if isinstance(mode, mode_specs.RegularMode) else "socks5h"
            proxy = f"{scheme}://{dialled(*addresses[0][:2])}"
    yield from overview(snapshot, at, proxy, names=carries)
