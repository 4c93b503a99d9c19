-- Handle time by skill and local quarter of an hour, as `segment-fetch handle-time --by skill --every 15m` gives it.
-- A segment counts in the quarter in which it closed: the API does not tell when within it the agent worked.
with placed as (
    select
        *,
        time_bucket(interval '15 minutes', closed_local) as interval_local
    from {{ ref('stg_agent_segments') }}
)

select
    timezone('UTC', interval_local - utc_offset) as interval_start,
    interval_local,
    utc_offset,
    skill_id,
    concat_ws('|', epoch_ms(timezone('UTC', interval_local - utc_offset)), coalesce(skill_id::varchar, 'none')) as interval_key,
    count(*) as segments,
    count(distinct conversation_id) as conversations,
    coalesce(sum(handle_time_ms), 0)::bigint as handle_time_ms,
    round(avg(handle_time_ms))::bigint as aht_segment_ms,
    round(quantile_cont(handle_time_ms, 0.5))::bigint as median_ms,
    round(quantile_cont(handle_time_ms, 0.9))::bigint as p90_ms,
    bool_and(is_final) as is_final
from placed
group by interval_local, utc_offset, skill_id
