"""The canary: a client and a server in network namespaces of their own, whose connections take the real path."""
