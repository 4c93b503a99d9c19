"""Divides a range into windows, and proves from the pages of a window that it is complete. No I/O.

Called by `extraction` and `client`; calls only `wire`, `query`, `timerange` and `events`.
"""
