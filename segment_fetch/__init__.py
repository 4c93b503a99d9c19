"""Extract LivePerson agent segments (Actual Handle Time API) completely, provably, restartably and fast."""

from segment_fetch.api.auth import Auth, BearerToken, ClientCredentials, OAuth1Key
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
    UnstorableValueError,
)
from segment_fetch.events import Event
from segment_fetch.query import Filters, Window
from segment_fetch.throttle.pace_store import PaceStore
from segment_fetch.throttle.retry_policy import RetryPolicy
from segment_fetch.windows.planning import Plan, PlannedWindow
from segment_fetch.wire.models import ExtendedSegment, Segment

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
    "UnstorableValueError",
    "Window",
]
