"""The same files in an object store: S3, Google Cloud Storage or Azure.

Called by the registry and by users; calls `sinks.files` and the extra `objects`.
"""
