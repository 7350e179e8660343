"""mitmproxy layers: how bytes are read and carried before and beside mitmproxy's own protocols."""
