-- One row for each segment, with the clock of the planners beside each instant.
with watermark as (
    select (manifest::json ->> 'complete_before')::timestamptz as complete_before
    from {{ source('segment_fetch', 'agent_segments_manifest') }}
),

segments as (
    select *, timezone('{{ var("time_zone") }}', end_time) as closed_local
    from {{ source('segment_fetch', 'agent_segments') }}
)

select
    segment_id,
    conversation_id,
    agent_id,
    employee_id,
    skill_id,
    group_id,
    end_reason,
    total_handle_time_millis as handle_time_ms,
    start_time as started_at,
    end_time as closed_at,
    closed_local,
    -- Two hours of an autumn night have the same local time; the offset tells them apart.
    closed_local - timezone('UTC', end_time) as utc_offset,
    coalesce(end_time < complete_before, false) as is_final
from segments
cross join watermark
