"""`tokgate` on loopback without a firewall: where a redirected client was going is told by its own address and port.

A client at 127.K.x.y with source port P was going to port P of the address that K stands for. Everything else is as
in production. Run by the tests in a process of its own, with tokgate's own arguments; by that process, for openers,
with `-m` and a module.
"""

import runpy
import socket
import sys
from typing import Any, Final

DESTINATIONS: Final = {1: "127.0.0.1", 2: "127.0.0.2", 3: "64:ff9b::7f00:2", 4: "::ffff:127.0.0.2", 5: "2002:7f00:2::1"}
"""By the second octet of a client's address, without its highest bit, which says that the client is under no ban."""
NAMES: Final = ("example.org", "example.com")
"""What resolves to loopback, with all names below."""


def _destination(sock: Any, *_: object) -> tuple[str, int]:
    address, port = sock.getpeername()[:2]
    return DESTINATIONS[int(address.split(".")[1]) & 0x7F], port


def _resolve(real: Any) -> Any:
    def getaddrinfo(host: Any, *rest: Any, **options: Any) -> Any:
        known = isinstance(host, str) and host.rstrip(".").lower().endswith(NAMES)
        return real("127.0.0.1" if known else host, *rest, **options)

    return getaddrinfo


def main() -> int:
    """Patch what only a firewall and a resolver could do, and run."""
    socket.getaddrinfo = _resolve(socket.getaddrinfo)
    if sys.argv[1] == "-m":
        del sys.argv[:2]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    import mitmproxy.platform

    from tokgate.cli.main import main as tokgate
    from tokgate.gate import context
    from tokgate.service import child_programs

    setattr(child_programs, "module_command", lambda *words: [sys.executable, "-P", __file__, "-m", *words])  # noqa: B010
    setattr(context, "original_destination", _destination)  # noqa: B010
    mitmproxy.platform.original_addr = _destination
    return tokgate(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
