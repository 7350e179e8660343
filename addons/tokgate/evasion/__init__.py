"""Attempts to get round a ban as a client would make them: the bytes, once, for `tokgate evasion` and for the tests.

Nothing here decides about traffic, and nothing that enforces a ban imports it.
"""
