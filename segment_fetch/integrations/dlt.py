"""The segments as a dlt resource: Arrow batches of proven windows, merged on `segment_id`. Needs the extra `dlt`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from segment_fetch.blocking import in_thread
from segment_fetch.cli.failures import can_pass, lasting_advice
from segment_fetch.client import SegmentClient
from segment_fetch.errors import IncompleteError, InputError, MissingExtraError
from segment_fetch.integrations.bookmark import Kept, Step, check_kept, kept, steps
from segment_fetch.query import Filters
from segment_fetch.timerange import TimeLike

try:
    import dlt
    import pyarrow as pa
    from dlt.common import logger
    from dlt.extract import DltResource
except ImportError:
    raise MissingExtraError("dlt needs an extra: pip install 'segment-fetch[dlt]'") from None

from segment_fetch import arrow

if TYPE_CHECKING:
    from segment_fetch.api.auth import Auth

_SCHEMA = pa.schema(
    [
        field.with_type(pa.timestamp("us", "UTC")) if pa.types.is_timestamp(field.type) else field
        for field in arrow.schema()
    ]
)
"""The schema of the loaded rows, with times in microseconds, as dlt assumes; some destinations lack other units."""

_ANEW = 'start again (pipeline.run(..., refresh="drop_resources")), or use another pipeline for this query'


def agent_segments(
    account: str,
    start: TimeLike,
    *,
    auth: Auth,
    source: str,
    filters: Filters | None = None,
    clamp: bool = False,
    name: str = "agent_segments",
    **settings: Any,
) -> DltResource:
    """Return a resource of the proven segments that closed since the last load, or in the first since `start`.

    Columns are those of `segment_fetch.arrow.schema()`. Segments that had not settled in the last load are loaded again
    and merged on `segment_id`. With `clamp`, a `start` that is too old is moved to the oldest time that the API serves.
    `settings` are further settings of `SegmentClient`.

    Raises InputError for invalid settings. If a window cannot be proven (IncompleteError) or the service fails, nothing
    is loaded and the state is unchanged; the next load begins at the same place.
    """

    def client() -> SegmentClient:
        return SegmentClient(account, auth=auth, source=source, filters=filters, **settings)

    def batches() -> Iterator[pa.RecordBatch]:
        state = dlt.current.resource_state()
        bookmark = _bookmark(state, account, filters or Filters())
        opened = client()
        for step in in_thread(lambda: steps(opened, bookmark, start, arrow.record_batch, clamp=clamp)):
            _check(step)
            yield from (batch.cast(_SCHEMA) for batch in arrow.joined(step.read.parts))
            state |= {"bookmark": step.bookmark, **kept(account, filters or Filters())}

    client()
    made: DltResource = dlt.resource(batches, name=name, primary_key="segment_id", write_disposition="merge")
    return made


class _Kept(Kept, kw_only=True):
    bookmark: int | None = None


def _bookmark(state: Mapping[str, Any], account: str, filters: Filters) -> int | None:
    try:
        found = msgspec.convert(state, _Kept)
    except msgspec.ValidationError as error:
        raise InputError(f"the state does not belong to this resource: {error}; {_ANEW}") from None
    check_kept(found, account, filters, anew=_ANEW)
    return found.bookmark


def _check(step: Step[Any]) -> None:
    read = step.read
    if read.status == "unproven":
        advice = "run it again" if can_pass([read.code]) else lasting_advice([read.code])
        raise IncompleteError(
            f"{read.window} could not be proven complete: {read.reason}; nothing was loaded: {advice}", [read.window]
        )
    if step.lost is not None:
        logger.warning(f"{step.lost} was not read in time: the API serves only the last month")
