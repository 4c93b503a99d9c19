"""Many accounts in one event loop: the accounts file, the run, and shards of accounts for several machines.

Called by the command, by Ray and by users; runs each account through the client, with its own pacer, destination and
manifest.
"""

from segment_fetch.fleet.accounts_file import AccountJob, load_accounts
from segment_fetch.fleet.run import AccountResult, FleetLimits, FleetSummary, run_fleet, summarize
from segment_fetch.fleet.shards import shard_of

__all__ = [
    "AccountJob",
    "AccountResult",
    "FleetLimits",
    "FleetSummary",
    "load_accounts",
    "run_fleet",
    "shard_of",
    "summarize",
]
