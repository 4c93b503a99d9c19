"""The timing of requests: the limiter, the pacer that finds the API's limit, and how failures are retried.

Called by `api` and `extraction`; calls only `errors`, `events` and `wire`. Clocks and randomness are passed in.
"""

CONNECTIONS = 16
"""Requests in flight at most, unless the user says otherwise."""
MIN_PAUSE_S = 1.0
"""Seconds to wait at least after a 429: the vendor's advice where the answer does not say how long."""
