"""tokgate inside mitmproxy: hooks, layers and the block page. What is decided, and why, is none of its business."""
