"""How a gate reaches destinations: from which address, and through which parent proxy."""
