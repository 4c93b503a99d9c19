"""Decodes the bytes of an answer into segments, and encodes segments as lines: models, pages, the compiled scanner.

Called by every other package; calls only `errors` and `query`. No I/O.
"""
