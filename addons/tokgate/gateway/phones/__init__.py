"""Phones that reach the gateway through WireGuard: each is a peer with a key pair and addresses of its own."""
