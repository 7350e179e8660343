"""Clients that ask for their destination by CONNECT or SOCKS 5: their requests, who they are, their tunnels."""
