"""All attempts that are known, family by family. A new one is a row in its family's module."""

from typing import Final

from tokgate.evasion.attempt import Attempt
from tokgate.evasion.families import (
    hidden_names,
    http2_frames,
    http_bodies,
    http_heads,
    http_hosts,
    proxy_requests,
    server_names,
    socks_requests,
    tls_records,
    two_hellos,
)

ATTEMPTS: Final[dict[str, Attempt]] = {
    attempt.id: attempt
    for family in (
        tls_records,
        two_hellos,
        server_names,
        hidden_names,
        http_heads,
        http_hosts,
        http_bodies,
        http2_frames,
        proxy_requests,
        socks_requests,
    )
    for attempt in family.attempts()
}
