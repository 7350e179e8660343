"""mitmproxy: the addon, its thin hooks, and layers. Decides nothing itself."""
