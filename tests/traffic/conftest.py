"""Gates and origins that end with the test, and a log that checks each record against the schema."""

from labs.gate_fixtures import monotonic, start_gate, start_origin
from labs.proxy_fixtures import records

__all__ = ["monotonic", "records", "start_gate", "start_origin"]
