"""Runs an extraction: workers fetch pages, windows are proven and committed, a report adds them up.

Called by `client`; drives `windows`, `api` through `throttle`, and `manifest`.
"""
