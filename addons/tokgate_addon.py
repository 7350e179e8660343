"""Entry for mitmproxy: `mitmdump -s addons/tokgate_addon.py --set tokgate_policies=DIR --set tokgate_log=FILE`."""

from tokgate.proxy.addon import Tokgate
from tokgate.proxy.desk import Desk
from tokgate.proxy.scraping import Scraping

tokgate = Tokgate()
desk = Desk(tokgate)
addons = [tokgate, desk, Scraping(tokgate, desk)]
