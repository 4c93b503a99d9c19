"""Bytes of an answer become segments, and segments become lines: models, pages, the compiled scanner.

Called by every other package; calls only `errors` and `query`. No I/O.
"""
