"""Entry for mitmproxy: `mitmdump -s addons/tokgate_addon.py --set tokgate_policies=DIR --set tokgate_log=FILE`."""

from tokgate.mitm.addon import ScriptedTokgate
from tokgate.service.mitmproxy_addons import ControlAddon, MetricsAddon

tokgate = ScriptedTokgate()
addons = [tokgate, ControlAddon(tokgate), MetricsAddon(tokgate)]
