"""The timing of requests: the limiter, the pacer that finds the API's limit, and the retries after failures.

Called by `api` and `extraction`; calls only `errors`, `events` and `wire`. Clocks and randomness are passed in.
"""
