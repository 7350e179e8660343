"""The core: names, services, networks, time, bans, and the one `decide`.

Laws: values are frozen; time is passed in; nothing here does I/O, reads a clock or knows mitmproxy.
"""
