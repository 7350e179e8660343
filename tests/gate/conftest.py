"""Gates and origins that end with the test."""

from labs.gate_fixtures import monotonic, start_gate, start_origin
from labs.relay_ends import ends

__all__ = ["ends", "monotonic", "start_gate", "start_origin"]
