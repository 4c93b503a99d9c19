"""A range becomes windows, and the pages of a window become a proof that it is complete. No I/O.

Called by `extraction` and `client`; calls only `wire`, `query`, `timerange` and `events`.
"""
