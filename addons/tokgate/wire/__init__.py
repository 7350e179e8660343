"""What bytes say: values out of bytes, sans-IO. No sockets, no clock, no policy, no mitmproxy."""
