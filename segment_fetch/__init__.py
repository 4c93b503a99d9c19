"""Extract LivePerson agent segments (Actual Handle Time API) completely, provably, restartably and fast."""

from segment_fetch.auth import Auth, BearerToken, ClientCredentials, OAuth1Key
from segment_fetch.client import SegmentClient
from segment_fetch.errors import (
    CredentialsError,
    DestinationBusyError,
    DestinationError,
    DestinationUnavailableError,
    IncompleteError,
    InputError,
    ManifestError,
    MissingExtraError,
    RequestRefusedError,
    SchemaError,
    SegmentFetchError,
    ServiceError,
)
from segment_fetch.events import Event
from segment_fetch.models import ExtendedSegment, Segment
from segment_fetch.pace_store import PaceStore
from segment_fetch.plan import Plan, PlannedWindow
from segment_fetch.query import Filters, Window
from segment_fetch.retry import RetryPolicy

__all__ = [
    "Auth",
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
    "ManifestError",
    "MissingExtraError",
    "OAuth1Key",
    "PaceStore",
    "Plan",
    "PlannedWindow",
    "RequestRefusedError",
    "RetryPolicy",
    "SchemaError",
    "Segment",
    "SegmentClient",
    "SegmentFetchError",
    "ServiceError",
    "Window",
]
