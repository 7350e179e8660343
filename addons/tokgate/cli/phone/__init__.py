"""`tokgate phone`: phones that reach the gateway through WireGuard."""
