"""The agent-segments API on loopback, for tests and rehearsals without an account.

Started by `simulate`, `demo`, the pytest fixture and tests. It shares no code with the client, so that a
misinterpretation of the API is not repeated here. Names are imported on first access, to keep the pytest plugin fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from segment_fetch.simulator.accounts import AccountsSimulator
    from segment_fetch.simulator.auth import Bearer, ClientCredentials
    from segment_fetch.simulator.dataset import Dataset
    from segment_fetch.simulator.drift import Drift
    from segment_fetch.simulator.faults import Fault, Faults
    from segment_fetch.simulator.limits import AtOnce, RateLimit, SlidingWindow
    from segment_fetch.simulator.oauth1 import OAuth1
    from segment_fetch.simulator.server import Simulator, serve
    from segment_fetch.simulator.stats import RequestRecord, Stats

__all__ = [
    "AccountsSimulator",
    "AtOnce",
    "Bearer",
    "ClientCredentials",
    "Dataset",
    "Drift",
    "Fault",
    "Faults",
    "OAuth1",
    "RateLimit",
    "RequestRecord",
    "Simulator",
    "SlidingWindow",
    "Stats",
    "serve",
]

_MODULES = {
    "AccountsSimulator": "accounts",
    "AtOnce": "limits",
    "Bearer": "auth",
    "ClientCredentials": "auth",
    "Dataset": "dataset",
    "Drift": "drift",
    "Fault": "faults",
    "Faults": "faults",
    "OAuth1": "oauth1",
    "RateLimit": "limits",
    "RequestRecord": "stats",
    "Simulator": "server",
    "SlidingWindow": "limits",
    "Stats": "stats",
    "serve": "server",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
