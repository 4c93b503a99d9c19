"""An Airflow DAG: bring the segments of each account up to date every night, a task an account.

Needs segment-fetch on the workers, and for each account a connection `liveperson_ACCOUNT` whose password is a token. A
task that fails is tried again by Airflow, and reads only what is missing. `SEGMENTS_OUT` names a folder that all
workers see, or an object store: `s3://lake/segments`.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta

from airflow.sdk import Connection, dag, task

ACCOUNTS = ["111111", "222222"]


@task(retries=3, retry_delay=timedelta(minutes=10), execution_timeout=timedelta(hours=4))
def sync(account: str) -> str | None:
    """Bring one account's destination up to date; return the time before which it is complete and final."""
    # Imported here, as Airflow parses this file again and again.
    from segment_fetch import BearerToken, SegmentClient, blocking  # noqa: PLC0415
    from segment_fetch.sinks import open_sink  # noqa: PLC0415

    secret = Connection.get(f"liveperson_{account}")
    client = SegmentClient(
        account,
        auth=BearerToken(secret.password),
        source="airflow",
        base_url=os.environ.get(f"SEGMENT_FETCH_BASE_URL_{account}"),
    )
    sink = open_sink(f"{os.environ.get('SEGMENTS_OUT', '/srv/segments')}/{account}")
    report = blocking.sync(client, sink, "now-7d")
    if not report.complete:
        raise RuntimeError(f"{len(report.unproven)} windows are not proven; the next attempt reads only these")
    return report.complete_before


# One run at a time: the API's limit is the account's, and a destination has one writer.
@dag(schedule="15 3 * * *", start_date=datetime(2026, 11, 1, tzinfo=UTC), catchup=False, max_active_runs=1)
def segments() -> None:
    """Agent segments, every night."""
    sync.expand(account=ACCOUNTS)


segments()
