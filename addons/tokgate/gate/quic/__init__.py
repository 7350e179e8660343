"""QUIC in a gate: first packets are read and decided, and the kernel forwards the rest of a flow that passes."""
