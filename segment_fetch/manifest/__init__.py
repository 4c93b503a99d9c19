"""The record of what counts: manifest format, commit log, committer, and the check of a destination against it.

Called by `extraction`, `client`, `analysis` and `cli`; calls `sinks` and `windows`. Sinks never import it.
"""
