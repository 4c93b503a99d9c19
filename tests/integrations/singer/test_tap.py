"""The tap in this process, on a clock of its own: discovery, selection, records, states."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from segment_fetch.integrations.bookmark import advanced
from segment_fetch.query import Window
from segment_fetch.simulator import Drift
from segment_fetch.timerange import settled_before
from segment_fetch.windows.reader import WindowRead
from segment_fetch.wire.models import SEGMENT_FIELDS
from tests.integrations.singer.support import FIRST, World, bookmark, dataset
from tests.support_runs import DAY_MS, HOUR_MS, NOW_MS


def discovery(world: World) -> dict[str, Any]:
    result = world.call("--discover")
    assert (result.code, result.err) == (0, "")
    catalog: dict[str, Any] = json.loads(result.out)
    return catalog


def select(catalog: dict[str, Any], breadcrumb: list[str], **metadata: Any) -> dict[str, Any]:
    """The catalog with more metadata, as Meltano and others write it."""
    [stream] = catalog["streams"]
    changed = [entry for entry in stream["metadata"] if entry["breadcrumb"] == breadcrumb]
    if not changed:
        changed = [{"breadcrumb": breadcrumb, "metadata": {}}]
        stream["metadata"] += changed
    changed[0]["metadata"].update(metadata)
    return catalog


def test_discovery_is_a_catalog_whose_schema_fits_every_segment(world: World) -> None:
    [stream] = discovery(world)["streams"]
    assert (stream["tap_stream_id"], stream["stream"]) == ("agent_segments", "agent_segments")
    assert stream["key_properties"] == ["segmentId"]
    assert stream["replication_key"] == "endTimeL"
    assert set(stream["schema"]["properties"]) == {*SEGMENT_FIELDS, "extras"}
    Draft202012Validator.check_schema(stream["schema"])
    validator = Draft202012Validator(stream["schema"], format_checker=Draft202012Validator.FORMAT_CHECKER)
    for row in dataset(2_000, null_share=0.5, unknown_reasons=0.1).rows():
        validator.validate(row)
    metadata = {tuple(entry["breadcrumb"]): entry["metadata"] for entry in stream["metadata"]}
    assert metadata[()]["table-key-properties"] == ["segmentId"]
    automatic = {path[1] for path, words in metadata.items() if words["inclusion"] == "automatic"}
    assert automatic == {"segmentId", "endTimeL"}


def test_everything_is_emitted_in_order_between_schema_and_state(world: World) -> None:
    world.serve(dataset(null_share=0.3))
    result = world.tap()
    assert result.code == 0, result.err
    kinds = [message["type"] for message in result.messages]
    assert (kinds[0], kinds[-1]) == ("SCHEMA", "STATE")
    assert result.of("SCHEMA") == [result.messages[0]]
    schema = result.messages[0]
    assert (schema["key_properties"], schema["bookmark_properties"]) == (["segmentId"], ["endTimeL"])
    assert result.records == sorted(dataset(null_share=0.3).rows(), key=lambda row: (row["endTimeL"], row["segmentId"]))
    assert {message["time_extracted"] for message in result.of("RECORD")} == {"2026-11-06T21:20:00Z"}
    assert [bookmark(message["value"]) for message in result.of("STATE")] == [
        *(FIRST + 7 * DAY_MS, FIRST + 14 * DAY_MS),
        settled_before(NOW_MS),
    ]
    emitted: dict[str, Any] = {}
    for message in result.messages[1:]:
        if message["type"] == "STATE":
            assert_behind(message["value"], FIRST, emitted, world)
        else:
            emitted[message["record"]["segmentId"]] = message["record"]


def test_the_discovered_catalog_selects_all_that_no_catalog_does(world: World) -> None:
    world.serve(dataset(50))
    assert world.tap(catalog=discovery(world)).out == world.tap().out


def test_unselected_fields_are_not_emitted_but_keys_are(world: World) -> None:
    world.serve(dataset(50, null_share=0.5))
    catalog = discovery(world)
    for name in ("segmentId", "agentId", "startTime", "extras"):
        select(catalog, ["properties", name], selected=False)
    result = world.tap(catalog=catalog)
    kept = [name for name in SEGMENT_FIELDS if name not in ("agentId", "startTime")]
    assert set(result.of("SCHEMA")[0]["schema"]["properties"]) == set(kept)
    rows = sorted(dataset(50, null_share=0.5).rows(), key=lambda row: (row["endTimeL"], row["segmentId"]))
    assert result.records == [{name: row[name] for name in kept if name in row} for row in rows]


def test_only_what_is_selected_where_nothing_is_by_default(world: World) -> None:
    world.serve(dataset(50))
    catalog = discovery(world)
    for entry in catalog["streams"][0]["metadata"]:
        entry["metadata"] |= {"selected": entry["breadcrumb"] == ["properties", "agentId"]}
    assert world.tap(catalog=catalog).messages == [], "the stream itself is not selected"
    select(catalog, [], selected=True)
    assert {frozenset(record) for record in world.tap(catalog=catalog).records} == {
        frozenset({"segmentId", "endTimeL", "agentId"})
    }


def test_the_catalogs_words_about_a_property_reach_the_target(world: World) -> None:
    world.serve(dataset(5))
    catalog = discovery(world)
    catalog["streams"][0]["schema"]["properties"]["agentId"] = {"type": ["null", "integer"], "maximum": 10**12}
    schema = world.tap(catalog=catalog).of("SCHEMA")[0]["schema"]
    assert schema["properties"]["agentId"] == {"type": ["null", "integer"], "maximum": 10**12}


def test_a_stream_that_is_not_selected_is_said_to_be_so(world: World) -> None:
    world.serve(dataset(5))
    result = world.tap(catalog=select(discovery(world), [], selected=False))
    assert (result.code, result.out) == (0, "")
    assert "does not select agent_segments" in result.err
    assert world.simulator.stats.requests == 0


def new_field(record: dict[str, Any]) -> list[str]:
    return sorted({"newField", "extras"} & set(record))


def test_new_fields_are_carried_in_extras_and_named(world: World) -> None:
    world.serve(dataset(50, new_field_from=40))
    result = world.tap()
    assert "does not know: newField; newField: emitted in extras" in result.err
    fields = [new_field(record) for record in result.records]
    assert fields == [[]] * 40 + [["extras"]] * 10
    expected = [row["newField"] for row in dataset(50, new_field_from=40).rows() if "newField" in row]
    assert [record["extras"] for record in result.records[40:]] == [{"newField": value} for value in expected]
    Draft202012Validator(result.messages[0]["schema"]).validate(result.records[-1])


def test_a_new_field_that_the_catalog_names_is_carried_as_itself(world: World) -> None:
    world.serve(dataset(50, new_field_from=40))
    catalog = discovery(world)
    catalog["streams"][0]["schema"]["properties"]["newField"] = {"type": "string"}
    result = world.tap(catalog=catalog)
    assert "does not know: newField; the catalog selects them" in result.err
    assert [new_field(record) for record in result.records] == [[]] * 40 + [["newField"]] * 10
    assert "newField" in result.messages[0]["schema"]["properties"]


def test_a_new_field_that_nothing_selects_is_warned_about(world: World) -> None:
    world.serve(dataset(50, new_field_from=40))
    result = world.tap(catalog=select(discovery(world), ["properties", "extras"], selected=False))
    assert "newField: not emitted, because extras is not selected" in result.err
    assert [new_field(record) for record in result.records] == [[]] * 50


def window_read(start: int, end: int, status: Any, read_at: int) -> WindowRead[Any]:
    return WindowRead(Window(start, end), status, [], 0, 0, 0, 1, 1, read_at, ())


def test_a_bookmark_moves_over_proven_windows_that_begin_at_it() -> None:
    day, now = DAY_MS, 10 * DAY_MS
    horizon = settled_before(now)
    assert advanced(day, window_read(day, 2 * day, "complete", now)) == 2 * day
    assert advanced(day, window_read(day, 2 * day, "unproven", now)) == day
    assert advanced(day, window_read(2 * day, 3 * day, "complete", now)) == day, "a window before it is missing"
    assert advanced(8 * day, window_read(8 * day, now, "provisional", now)) == horizon
    assert advanced(9 * day, window_read(9 * day, now, "provisional", now)) == 9 * day, "nothing of it has settled"
    later = window_read(9 * day, now, "provisional", now + day)
    assert advanced(horizon, later) == horizon, "behind a provisional window"


def test_a_month_of_nights_with_late_rows_ends_equal_to_the_truth(world: World) -> None:
    world.serve(dataset(2_000, days=34), drift=Drift(late_share=0.1, late_delay_s=86_400))
    chance = random.Random(7)
    loaded: dict[str, Any] = {}
    state, first = None, 0
    for night in range(1, 35):
        world.now_ms = FIRST + night * DAY_MS + chance.randrange(6 * HOUR_MS)
        world.simulator.stats.log.clear()
        result = world.tap(state=state, start_date="now-1d" if state is None else "2026-11-01")
        assert result.code == 0, result.err
        asked = min(record.query.start for record in world.simulator.stats.log if record.query)
        assert state is None or asked == bookmark(state), "what is settled is not read again"
        first = first or asked
        for message in result.messages:
            if message["type"] == "RECORD":
                loaded[message["record"]["segmentId"]] = message["record"]
            elif message["type"] == "STATE":
                assert_behind(message["value"], first, loaded, world)
        state = result.state
    assert len(loaded) > 1_900
    world.now_ms += 3 * DAY_MS
    loaded |= {record["segmentId"]: record for record in world.tap(state=state).records}
    truth = world.simulator.ids(first, world.now_ms)
    assert sorted(loaded) == sorted(truth)


def assert_behind(state: dict[str, Any], first: int, loaded: dict[str, Any], world: World) -> None:
    """The bookmark is settled, and every segment before it was emitted."""
    assert bookmark(state) <= settled_before(world.now_ms) or bookmark(state) == first
    assert set(world.simulator.ids(first, bookmark(state))) <= set(loaded)


def test_an_unproven_window_holds_the_bookmark_until_it_can_be_proven(world: World) -> None:
    week = 7 * DAY_MS
    broken = dataset(wrong_types=0.002, seed=5)
    wrong = [row["endTimeL"] for row in broken.rows() if isinstance(row["agentId"], str)]
    assert {(close - FIRST) // week for close in wrong} == {1}, "the second of four windows"
    world.now_ms += 5 * DAY_MS
    world.serve(broken)
    result = world.tap()
    assert result.code == 3
    assert "agentId" in result.err
    assert "could not be proven complete: the bookmark stays at 2026-1" in result.err
    assert "run it again" not in result.err
    assert "Report it with the message" in result.err
    assert FIRST + week <= bookmark(result.state) <= min(wrong)
    assert set(broken.ids()) - set(result.ids) == {
        row["segmentId"] for row in broken.rows() if isinstance(row["agentId"], str)
    }
    world.serve(dataset(seed=5))
    mended = world.tap(state=result.state)
    assert mended.code == 0
    assert sorted({*result.ids, *mended.ids}) == sorted(broken.ids())


def test_what_the_api_no_longer_serves_is_named_lost_once(world: World) -> None:
    world.serve(dataset(days=60))
    state = world.tap().state
    world.now_ms += 35 * DAY_MS
    late = world.tap(state=state)
    assert late.code == 3
    assert "2026-11-05T21:05:00Z to 2026-11-11T21:21:00Z was not read in time" in late.err
    assert bookmark(late.state) == settled_before(world.now_ms)
    assert world.tap(state=late.state).code == 0


def test_the_bookmark_stays_behind_by_the_settle_margin(world: World) -> None:
    world.serve(dataset(50))
    assert bookmark(world.tap(settle_after="3d").state) == NOW_MS - 3 * DAY_MS
    refused = world.tap(settle_after="32d")
    assert (refused.code, refused.out) == (2, "")
    assert "settle_after: must be from 0 to 31 days" in refused.err


def test_a_start_older_than_the_api_serves_is_refused_or_clamped(world: World) -> None:
    world.serve(dataset(50))
    refused = world.tap(start_date="2026-01-01")
    assert (refused.code, refused.out) == (2, "")
    assert "the oldest possible start is 2026-10-06T21:21:00Z; set that, or `clamp` to true" in refused.err
    assert world.simulator.stats.requests == 0
    clamped = world.tap(start_date="2026-01-01", clamp=True)
    assert clamped.code == 0
    assert len(clamped.records) == 50
    assert "is no longer available" in clamped.err


def test_a_state_is_of_one_account_and_its_filters(world: World) -> None:
    world.serve(dataset(50))
    state = world.tap().state
    other = world.tap(state=state, agent_id=5)
    assert (other.code, other.out) == (2, "")
    assert 'belongs to filters {}, not {"agent_id":"5"}; start again' in other.err
    assert world.tap(state=world.tap(agent_id="5").state, agent_id=5).code == 0


STATES: dict[str, Any] = {
    "nothing": {},
    "a message of nothing": {"type": "STATE", "value": {}},
    "other streams only": {"bookmarks": {"users": {"since": 1}}},
    "a bookmark without a value": {"bookmarks": {"agent_segments": {}}},
    "written by hand": {"bookmarks": {"agent_segments": {"replication_key_value": "2026-11-01T00:00:00Z"}}},
    "of release 0.2": {
        "bookmarks": {
            "agent_segments": {
                "replication_key": "endTimeL",
                "replication_key_value": 1793491200000,
                "complete_before": "2026-11-01T00:00:00Z",
                "version": 1,
                "account": "111111",
                "filters": {},
            }
        }
    },
}


@pytest.mark.parametrize("name", STATES)
def test_states_of_every_kind_are_understood(world: World, name: str) -> None:
    world.serve(dataset(50))
    result = world.tap(state=STATES[name])
    assert result.code == 0, result.err
    begun = 1793491200000 if name in ("written by hand", "of release 0.2") else FIRST
    assert sorted(result.ids) == sorted(dataset(50).ids(begun, NOW_MS))


def test_the_whole_state_message_is_as_good_as_its_value(world: World) -> None:
    world.serve(dataset(200))
    first = world.tap()
    world.now_ms += 2 * DAY_MS
    line = first.out.splitlines()[-1]
    assert json.loads(line) == {"type": "STATE", "value": first.state}
    world.simulator.stats.log.clear()
    by_line = world.tap(state=line)
    assert min(record.query.start for record in world.simulator.stats.log if record.query) == bookmark(first.state)
    assert by_line.out == world.tap(state=first.state).out
    assert [set(message["value"]) for message in by_line.of("STATE")] == [{"bookmarks"}]


def test_what_others_keep_in_the_state_is_passed_on(world: World) -> None:
    world.serve(dataset(5))
    state: dict[str, Any] = {"bookmarks": {"users": {"since": 1}}, "currently_syncing": None}
    assert world.tap(state=state).state == state | {"bookmarks": {**state["bookmarks"], **own(world.tap().state)}}


def own(state: dict[str, Any] | None) -> dict[str, Any]:
    assert state is not None
    return {"agent_segments": state["bookmarks"]["agent_segments"]}
