"""Extract LivePerson agent segments (Actual Handle Time API) completely, provably, restartably and fast."""

import sys

if sys.platform == "win32":
    raise ImportError(
        "segment_fetch does not run on Windows itself: it needs the file locks and signals of POSIX systems. "
        "Install and run it in WSL, or in a Linux container"
    )

import logging
from importlib import import_module
from typing import TYPE_CHECKING

from segment_fetch.api.auth import Auth, Authorizer, BearerToken, ClientCredentials, OAuth1Key, Token
from segment_fetch.api.timeouts import Timeouts
from segment_fetch.client import Rate, SegmentClient
from segment_fetch.errors import (
    CredentialsError,
    DestinationBusyError,
    DestinationError,
    DestinationUnavailableError,
    IncompleteError,
    InputError,
    ManifestError,
    MissingExtraError,
    ProxyError,
    RequestRefusedError,
    SchemaError,
    SegmentFetchError,
    ServiceError,
    UnstorableValueError,
)
from segment_fetch.events import Event
from segment_fetch.query import Filters, Window
from segment_fetch.throttle.pace_store import PaceStore
from segment_fetch.throttle.pacer import Learned
from segment_fetch.throttle.retry_policy import RetryPolicy
from segment_fetch.timerange import TimeLike
from segment_fetch.windows.planning import Plan, PlannedWindow
from segment_fetch.wire.models import ExtendedSegment, Segment

if TYPE_CHECKING:
    from segment_fetch.extraction.report import Report
    from segment_fetch.manifest.format import WindowEntry
    from segment_fetch.windows.reader import WindowRead

__all__ = [
    "Auth",
    "Authorizer",
    "BearerToken",
    "ClientCredentials",
    "CredentialsError",
    "DestinationBusyError",
    "DestinationError",
    "DestinationUnavailableError",
    "Event",
    "ExtendedSegment",
    "Filters",
    "IncompleteError",
    "InputError",
    "Learned",
    "ManifestError",
    "MissingExtraError",
    "OAuth1Key",
    "PaceStore",
    "Plan",
    "PlannedWindow",
    "ProxyError",
    "Rate",
    "Report",
    "RequestRefusedError",
    "RetryPolicy",
    "SchemaError",
    "Segment",
    "SegmentClient",
    "SegmentFetchError",
    "ServiceError",
    "TimeLike",
    "Timeouts",
    "Token",
    "UnstorableValueError",
    "Window",
    "WindowEntry",
    "WindowRead",
]

logging.getLogger(__name__).addHandler(logging.NullHandler())

_MODULES = {"Report": "extraction.report", "WindowEntry": "manifest.format", "WindowRead": "windows.reader"}


def __getattr__(name: str) -> object:
    """Import the types that a run returns on first access, to keep the import of the package fast."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
