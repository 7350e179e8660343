"""The addons that have the hooks, in the order in which mitmproxy calls them."""

from tokgate.mitm.hooks.connection import ConnectionHooks
from tokgate.mitm.hooks.explicit_targets import ExplicitTargetHooks
from tokgate.mitm.hooks.http import HttpHooks
from tokgate.mitm.hooks.proxy_auth import ProxyAuthHooks
from tokgate.mitm.hooks.server import ServerHooks
from tokgate.mitm.hooks.traffic import Traffic
from tokgate.mitm.hooks.turns import TurnHooks


def hooks(traffic: Traffic) -> tuple[object, ...]:
    """The addons in the order in which they are asked: turns, authentication, explicit targets, then decisions."""
    deciding = ConnectionHooks(traffic), HttpHooks(traffic), ServerHooks(traffic)
    return TurnHooks(traffic), ProxyAuthHooks(traffic), ExplicitTargetHooks(traffic), *deciding
