"""Tables of a database: DuckDB or PostgreSQL, one transaction per window.

Called by the registry and by users; calls `arrow` and the drivers, which are extras.
"""
