"""Entry for mitmproxy: `mitmdump -s addons/tokgate_addon.py --set tokgate_policies=DIR --set tokgate_log=FILE`."""

from tokgate.proxy.addon import Tokgate

addons = [Tokgate()]
