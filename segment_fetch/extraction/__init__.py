"""Runs an extraction: workers fetch pages, windows are proven and committed, a report gives the totals.

Called by `client`; drives `windows`, `api` through `throttle`, and `manifest`.
"""
