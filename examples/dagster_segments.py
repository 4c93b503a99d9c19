"""A Dagster asset: the segments of each account, a partition an account, brought up to date every night.

    dagster dev --python-file dagster_segments.py

Takes a token for each account from the environment: LIVEPERSON_BEARER_111111 and LIVEPERSON_BEARER_222222.
`SEGMENTS_OUT` names the folder, or an object store: `s3://lake/segments`.
"""

import os

import dagster as dg

from segment_fetch import BearerToken, SegmentClient, blocking
from segment_fetch.sinks import open_sink

ACCOUNTS = dg.StaticPartitionsDefinition(["111111", "222222"])


# A retry reads only what is missing. Two runs into one destination are refused; a pool of one lets them wait in turn.
@dg.asset(partitions_def=ACCOUNTS, retry_policy=dg.RetryPolicy(max_retries=3, delay=600), pool="liveperson")
def segments(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    """Agent segments as JSON Lines, complete and proven."""
    account = context.partition_key
    client = SegmentClient(
        account,
        auth=BearerToken(os.environ[f"LIVEPERSON_BEARER_{account}"]),
        source="dagster",
        base_url=os.environ.get(f"SEGMENT_FETCH_BASE_URL_{account}"),
    )
    report = blocking.sync(client, open_sink(f"{os.environ.get('SEGMENTS_OUT', 'segments')}/{account}"), "now-7d")
    if not report.complete:
        raise dg.Failure(f"{len(report.unproven)} windows are not proven; run it again: only these are read")
    return dg.MaterializeResult(metadata={"segments": report.segments, "complete_before": report.complete_before or ""})


@dg.schedule(cron_schedule="15 3 * * *", target=[segments])
def nightly(context: dg.ScheduleEvaluationContext) -> list[dg.RunRequest]:
    """Every account, every night."""
    night = f"{context.scheduled_execution_time:%Y-%m-%d}"
    return [dg.RunRequest(f"{account} {night}", partition_key=account) for account in ACCOUNTS.get_partition_keys()]


defs = dg.Definitions(assets=[segments], schedules=[nightly])
