"""The record of committed windows: manifest format, commit log, committer, and the verification of a destination.

Called by `extraction`, `client`, `analysis` and `cli`; calls `sinks` and `windows`. Sinks never import it.
"""
