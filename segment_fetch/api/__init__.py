"""One account over HTTP: sign a request, send it, turn its answer into a page or an error.

Called by `client` and `extraction`; calls `throttle` and `wire`. `transport` alone uses aiohttp.
"""
