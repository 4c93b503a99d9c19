"""Defaults that several modules share: connections, and the least pause after a 429."""

CONNECTIONS = 16
"""Requests in flight at most, unless the user says otherwise."""
MIN_PAUSE_S = 1.0
"""Seconds to wait at least after a 429: the vendor's advice where the answer does not say how long."""
