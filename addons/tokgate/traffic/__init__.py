"""From what is seen of a connection to what happens to it. No sockets, no mitmproxy."""
