"""Parsers and writers of protocol messages: values out of bytes. No I/O, no clock, no policy, no mitmproxy."""
