"""Defaults that several modules share: the number of connections and the minimum pause after a 429."""

CONNECTIONS = 16
"""Maximum number of requests in flight, unless the user sets another."""
MIN_PAUSE_S = 1.0
"""Minimum pause after a 429, in seconds: the vendor's advice for answers without Retry-After."""
