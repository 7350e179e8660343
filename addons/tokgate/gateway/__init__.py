"""The kernel's part of a gateway: nftables."""
