"""Interfaces to other tools, on top of the client: the Singer tap, the dlt resource, and their bookmark.

Called by those tools; calls `client` and `blocking`.
"""
