"""The comparison bench: tokgate beside other proxies, on the same work, in network namespaces of its own."""
