"""Flows of datagrams, and the connections in them."""
