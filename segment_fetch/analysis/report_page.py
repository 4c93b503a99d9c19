"""The report as one self-contained HTML file: SVG charts, sortable tables, light and dark themes.

Text from the API or a destination is escaped by the template and shown without control characters; the page's security
policy blocks all loading.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime
from functools import cache
from typing import Any

from msgspec import Struct

from segment_fetch.analysis.report_facts import TOP, Facts, GroupRow, RunEvent, facts_of
from segment_fetch.errors import MissingExtraError, printable
from segment_fetch.query import Window
from segment_fetch.timerange import TimeLike, format_time, zone_of

try:
    import jinja2

    from segment_fetch.analysis import charts
except ImportError:
    raise MissingExtraError("reports need an extra: pip install 'segment-fetch[report]'") from None

_BARS = 10
_DAYS = 400
_POINTS = 300
_HOUR_MS = 3_600_000
_MINUTE_MS = 60_000
_TITLES = {"group": "agent group", "end-reason": "end reason"}


class _Row(Struct):
    name: str
    segments: str
    total: str
    median: str
    p90: str


def report(
    place: str | os.PathLike[str],
    *,
    start: TimeLike | None = None,
    end: TimeLike | None = None,
    timezone: str = "UTC",
    now_ms: int | None = None,
    run_log: Iterable[bytes] = (),
) -> str:
    """Return a page about a destination: proof, calendar, handle time, anomalies. At most about 400 kB.

    `start`, `end` and `timezone` are as for `handle_time`. `run_log` is the lines of a run's JSON log, for a chart of
    the run. Raises the same errors as `handle_time`, and InputError for an invalid log.
    """
    now = round(datetime.now(UTC).timestamp() * 1000) if now_ms is None else now_ms
    return rendered(facts_of(place, start=start, end=end, timezone=timezone, now_ms=now, run_log=run_log))


def rendered(facts: Facts) -> str:
    """Return the page that shows the facts."""
    zone = zone_of(facts.zone)

    def local(moment: int) -> str:
        return datetime.fromtimestamp(moment // 1000, zone).isoformat(" ", "minutes")

    days = facts.days[-_DAYS:]
    page = _template().render(
        facts=facts,
        span=f"{local(facts.start)} to {local(facts.end)}",
        made=local(facts.made_at),
        verdict=_verdict(facts),
        headline=_headline(facts),
        open_parts=_open_parts(facts, local),
        top=TOP,
        calendar=_calendar(days),
        days=days,
        days_cut=len(days) < len(facts.days),
        week=charts.week(
            "Handle time by hour and weekday",
            facts.hours,
            [[f"{value / _HOUR_MS:,.1f} hours" for value in row] for row in facts.hours],
        ),
        weekdays=charts.WEEKDAYS,
        groups=[_group(name, rows, facts.sizes[name]) for name, rows in facts.groups.items()],
        oddities=[
            {
                "kind": each.kind,
                "segments": f"{each.segments:,}",
                "share": _share(each.segments, facts.segments),
                "examples": ", ".join(name[:80] for name in each.examples),
            }
            for each in facts.oddities
        ],
        absent=[
            {"kind": name, "segments": f"{count:,}", "share": _share(count, facts.segments)}
            for name, count in facts.absent
        ],
        new_fields=[printable(name, 80) for name in facts.unknown_fields[:TOP]],
        **_run(facts.run),
    )
    return _without_controls(page)


def _without_controls(page: str) -> str:
    """Return a page with `?` in place of characters that control a terminal or change the writing direction."""
    return page.translate({ord(sign): "?" for sign in set(page) if not sign.isprintable() and sign not in "\n\xa0"})


@cache
def _template() -> jinja2.Template:
    loader = jinja2.PackageLoader("segment_fetch.analysis", "")
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.get_template("report.html.jinja")


def _verdict(facts: Facts) -> str:
    held = f"{facts.segments:,} segments are held"
    if facts.missing:
        return f"{held}, but parts of the range are missing: do not use the totals as complete."
    if facts.provisional:
        return f"{held}. Parts of the range are provisional: more segments may come."
    return f"{held}: every segment of the range that the API had, each once, and final."


def _headline(facts: Facts) -> list[tuple[str, str]]:
    final = facts.complete_before
    total = sum(day.handle_time_ms for day in facts.days)
    return [
        ("Segments", f"{facts.segments:,}"),
        ("Handle time, hours", f"{total / _HOUR_MS:,.0f}"),
        ("Average handle time, minutes", f"{total / facts.segments / _MINUTE_MS:,.1f}" if facts.segments else "none"),
        ("Complete before", "nothing" if final is None else format_time(final)),
        ("Windows settled", f"{facts.windows['complete']:,}"),
        ("Windows provisional", f"{facts.windows['provisional']:,}"),
        ("Windows unproven", f"{facts.windows['unproven']:,}"),
        ("Counted by the API", f"{facts.counted:,}"),
        ("Doubles dropped", f"{facts.duplicates:,}"),
        ("Pages", f"{facts.pages:,}"),
        ("Requests", f"{facts.requests:,}"),
    ]


def _open_parts(facts: Facts, local: Any) -> list[tuple[str, str, str]]:
    def parts(windows: Sequence[Window], state: str) -> list[tuple[str, str, str]]:
        rows = [(local(each.start), local(each.end), state) for each in windows[:TOP]]
        more = len(windows) - TOP
        return [*rows, (f"and {more:,} more", "", state)] if more > 0 else rows

    return parts(facts.missing, "missing: nothing is held") + parts(facts.provisional, "provisional: more may come")


def _calendar(days: Sequence[Any]) -> Any:
    cells = []
    for day in days:
        shown = f"{day.date}: {day.segments:,} segments, {day.handle_time_ms / _HOUR_MS:,.1f} hours, {day.state}"
        cells.append((day.date, date.fromisoformat(day.date).weekday(), day.segments, day.state, shown))
    return charts.calendar("Segments by day", cells)


def _group(name: str, rows: Sequence[GroupRow], size: int) -> dict[str, Any]:
    title = _TITLES.get(name, name)
    shown = [
        _Row(
            row.name[:120] if row.name is not None else f"all {size - TOP:,} others",
            f"{row.segments:,}",
            f"{row.handle_time_ms / _HOUR_MS:,.1f}",
            "" if row.median_ms is None else f"{row.median_ms / _MINUTE_MS:,.1f}",
            "" if row.p90_ms is None else f"{row.p90_ms / _MINUTE_MS:,.1f}",
        )
        for row in rows
    ]
    bars = [
        (row.name[:120], row.handle_time_ms / _HOUR_MS, f"{row.handle_time_ms / _HOUR_MS:,.1f} h")
        for row in rows[:_BARS]
        if row.name is not None
    ]
    caption = f"Handle time by {title}"
    if size > TOP:
        caption += f"; the {TOP} with the most of {size:,}, the others summed"
    return {
        "name": name,
        "title": title,
        "rows": shown,
        "caption": caption,
        "chart": charts.bars(f"Handle time by {title}, the first {len(bars)}", bars),
    }


def _share(count: int, total: int) -> str:
    return f"{100 * count / total:.2f}%" if total else "0.00%"


def _run(events: Sequence[RunEvent]) -> dict[str, Any]:
    if not events:
        return {"run_chart": None}
    seconds = events[-1].seconds
    pace = [(each.seconds, each.value) for each in events if each.kind == "pace_changed" and each.value is not None]
    pauses = [each.seconds for each in events if each.kind == "paused"]
    pages = sum(each.kind == "page_read" for each in events)
    retries = sum(each.kind == "retrying" for each in events)
    thinned = pace[:: max(1, len(pace) // _POINTS)]
    words = f"{pages:,} pages in {seconds:,.1f} seconds; {retries:,} repeated; {len(pauses):,} pauses after a 429."
    return {
        "run_chart": charts.run("Pace of the run", thinned, pauses[:_POINTS], seconds),
        "run_words": words,
        "run_rows": [(f"{at:.1f}", f"{rate:.1f}") for at, rate in thinned],
    }
