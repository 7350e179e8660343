"""Gates and origins that end with the test."""

from labs.gate_fixtures import start_gate, start_origin

__all__ = ["start_gate", "start_origin"]
