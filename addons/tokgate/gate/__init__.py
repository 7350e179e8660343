"""The fast path, without mitmproxy: accept, read the ClientHello once, decide, and splice, refuse or hand over.

Nothing here decrypts. What must be opened goes, with the bytes read so far, to an opener (service/opener_process.py).
"""
