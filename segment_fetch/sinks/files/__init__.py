"""Files of one format: JSON Lines, CSV or Parquet, one file per window.

Called by the registry and by users; `objects` stores the same files elsewhere. Calls `wire` and the file system.
"""
