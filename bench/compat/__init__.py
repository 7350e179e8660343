"""What clients notice of a proxy in their way: cases, the laboratory that tries them, and clients to try with."""
