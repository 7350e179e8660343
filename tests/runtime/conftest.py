"""Certificates, origins and a proxy in this process, and real clients against them."""

from labs.proxy_fixtures import authority, lab, records

__all__ = ["authority", "lab", "records"]
