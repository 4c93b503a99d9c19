"""One account over HTTP: sign a request, send it, and turn its answer into a page or an error.

Called by `client` and `extraction`; calls `throttle` and `wire`. Only `transport` uses aiohttp.
"""
