"""Gates and origins that end with the test."""

from labs.gate_fixtures import monotonic, start_gate, start_origin

__all__ = ["monotonic", "start_gate", "start_origin"]
