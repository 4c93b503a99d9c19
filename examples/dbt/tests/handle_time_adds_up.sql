-- No segment and no millisecond is lost between the source and the intervals.
with placed as (
    select sum(segments) as segments, sum(handle_time_ms) as handle_time_ms
    from {{ ref('handle_time_by_interval') }}
),

loaded as (
    select count(*) as segments, coalesce(sum(total_handle_time_millis), 0) as handle_time_ms
    from {{ source('segment_fetch', 'agent_segments') }}
)

select *
from placed
cross join loaded
where placed.segments <> loaded.segments or placed.handle_time_ms <> loaded.handle_time_ms
