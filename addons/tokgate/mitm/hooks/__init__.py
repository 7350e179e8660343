"""mitmproxy's hooks, by what they are about: connections, requests, destinations. Each translates, decides, applies."""
