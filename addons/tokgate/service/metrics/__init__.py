"""Prometheus metrics: families, the sample that they are made from, and the server that tells them."""
