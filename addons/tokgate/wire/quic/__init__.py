"""QUIC, as far as who sees the first packets can read it: Initial packets, and the ClientHello in them. No I/O."""
