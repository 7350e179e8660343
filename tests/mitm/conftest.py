"""Certificates, origins and a proxy in this process, and real clients against them."""

from labs.proxy_fixtures import authority, lab, records
from labs.sign_in import asking

__all__ = ["asking", "authority", "lab", "records"]
