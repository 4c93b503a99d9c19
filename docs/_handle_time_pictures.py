"""Draw the pictures of the page "Handle time": an answer to each of the ten questions, from three made-up weeks.

    make pictures

Each is an SVG of docs/figures, with text, readable in light and dark mode; the last one is what the report draws. The
segments, and so the pictures, are the same on every machine.
"""

import asyncio
from collections.abc import Sequence
from contextlib import chdir
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from segment_fetch import BearerToken, SegmentClient
from segment_fetch.analysis import HandleTime, handle_time
from segment_fetch.analysis.charts import bars, calendar, week
from segment_fetch.simulator import Dataset, Simulator
from segment_fetch.sinks import JsonlSink

FIGURES = Path(__file__).resolve().parent / "figures"
ZONE = "Europe/Berlin"
START, DAY_MS = 1_793_574_000_000, 86_400_000  # 2026-11-02, a Monday, 00:00 in Berlin
NOW = (START + 20 * DAY_MS + 12 * 3_600_000) / 1000
SKILLS = ("Billing", "Orders", "Returns", "Technical", "Loyalty", "Business", "Fraud", "Chat in Spanish")
STYLE = """<style>
svg { --text: #1c2330; --soft: #566072; --line: #d5dae3; --s0: #eef1f5; --s1: #cfe0f8; --s2: #9fc1ef; --s3: #6a9de2;
  --s4: #3a78cf; --s5: #1a4f9c; --bad: #a3261b; --warn: #7a4d00; background: #ffffff }
@media (prefers-color-scheme: dark) { svg { --text: #e6eaf0; --soft: #a7b1c0; --line: #39424f; --s0: #222934;
  --s1: #1c3b66; --s2: #24528f; --s3: #3a72bd; --s4: #6297dd; --s5: #a5c8f7; --bad: #ff9d92; --warn: #f0c069;
  background: #12161d } }
text { fill: var(--text); font: 12px system-ui, sans-serif } text.small { fill: var(--soft); font-size: 11px }
.bar { fill: var(--s4) } .axis { stroke: var(--line) } .s0 { fill: var(--s0) } .s1 { fill: var(--s1) }
.s2 { fill: var(--s2) } .s3 { fill: var(--s3) } .s4 { fill: var(--s4) } .s5 { fill: var(--s5) }
.provisional { stroke: var(--warn); stroke-width: 2; stroke-dasharray: 3 2 }
.missing { fill: var(--s0); stroke: var(--bad) } .cross { stroke: var(--bad); stroke-width: 1.5 }
</style>"""


async def fill(folder: Path) -> None:
    """Extract three weeks of a contact centre, of which the last day is not final; one day was never extracted."""
    dataset = Dataset(segments=24_000, start=START, end=START + 21 * DAY_MS, seed=11, daily_load=True)
    async with Simulator(dataset, clock=lambda: NOW) as simulator:
        asked: dict[str, Any] = {"base_url": simulator.base_url, "rate": None, "clock": lambda: NOW}
        async with SegmentClient("111111", auth=BearerToken("any"), source="pictures", **asked) as client:
            for first, last in ((0, 12), (13, 20)):
                await client.extract(START + first * DAY_MS, START + last * DAY_MS, JsonlSink(folder))
            await client.extract(START + 20 * DAY_MS, int(NOW * 1000), JsonlSink(folder))


def standalone(chart: str) -> str:
    """Return a chart of the report as an SVG file of its own."""
    width, height = chart.split('viewBox="0 0 ', 1)[1].split('"', 1)[0].split()
    opening, rest = chart.split(">", 1)
    name = f'xmlns="http://www.w3.org/2000/svg" width="{int(width) + 24}" height="{int(height) + 24}"'
    frame = f'viewBox="-12 -12 {int(width) + 24} {int(height) + 24}"'
    opening = opening.replace(f'viewBox="0 0 {width} {height}"', frame).replace("<svg", f"<svg {name}")
    return f"{opening}>{STYLE}{rest}\n"


def columns(title: str, values: Sequence[float], labels: Sequence[str]) -> str:
    """Return a column for each value, with a label below every eighth."""
    step, height, most = 640 / len(values), 150, max(values)
    body = [f'<path class="axis" d="M0 {height}H640"/>']
    for at, (value, label) in enumerate(zip(values, labels, strict=True)):
        size = (height - 20) * value / most
        body.append(
            f'<rect class="bar" x="{at * step:.1f}" y="{height - size:.1f}" width="{step - 1:.1f}" height="{size:.1f}">'
            f"<title>{label}: {value:.0f}</title></rect>"
        )
        if at % 8 == 0:
            body.append(f'<text class="small" x="{at * step:.1f}" y="{height + 16}">{label}</text>')
    body.append(f'<text class="small" x="0" y="10">{most:.0f} segments at most</text>')
    return f'<svg viewBox="0 0 640 {height + 24}" role="img"><title>{title}</title>{"".join(body)}</svg>'


def rows(result: HandleTime) -> list[dict[str, Any]]:
    """Return the rows of a result."""
    return result.table.to_pylist()


def hours(row: dict[str, Any]) -> tuple[float, str]:
    """Return the hours of a row, and how they are written."""
    value = row["handle_time_ms"] / 3_600_000
    return value, f"{value:,.0f} h"


def minutes(value: float) -> str:
    """Return milliseconds as minutes and seconds."""
    seconds = round(value / 1000)
    return f"{seconds // 60}:{seconds % 60:02d} min"


def by_day(place: Path) -> str:
    """Draw handle time by local day."""
    found = rows(handle_time(place, every="1d", timezone=ZONE))
    return bars("Handle time by day", [(row["interval_start"][:10], *hours(row)) for row in found])


def by_conversation(place: Path, names: dict[int, str]) -> str:
    """Draw the average handle time of a conversation by skill."""
    found = [row for row in rows(handle_time(place, by=["skill"])) if row["skill_id"] in names]
    times = [(names[row["skill_id"]], row["aht_conversation_ms"]) for row in found]
    ordered = sorted(times, key=lambda each: -each[1])
    return bars("Average handle time of a conversation", [(name, ms, minutes(ms)) for name, ms in ordered])


def by_quarter(place: Path) -> str:
    """Draw the quarters of an hour of one day."""
    first, last = START + 2 * DAY_MS, START + 3 * DAY_MS
    found = rows(handle_time(place, every="15m", timezone=ZONE, start=first, end=last, fill=True))
    values, labels = [row["segments"] for row in found], [row["interval_start"][11:16] for row in found]
    return columns("Segments by quarter of an hour, 4 November 2026", values, labels)


def by_hour(place: Path) -> str:
    """Draw the hours of the week."""
    week_hours = [[0.0] * 24 for _ in range(7)]
    for row in rows(handle_time(place, every="1h", timezone=ZONE)):
        moment = row["interval_start"]
        week_hours[date.fromisoformat(moment[:10]).weekday()][int(moment[11:13])] += hours(row)[0]
    return week(
        "Handle time by hour and weekday", week_hours, [[f"{each:.1f} h" for each in day] for day in week_hours]
    )


def by_agent(place: Path) -> str:
    """Draw the ten agents with the most handle time."""
    found = sorted(rows(handle_time(place, by=["agent"])), key=lambda row: -row["handle_time_ms"])[:10]
    return bars("Handle time by agent", [(f"agent {row['agent_id']}", *hours(row)) for row in found])


def slowest(place: Path) -> str:
    """Draw the time within which nine in ten segments of a group were handled."""
    found = [row for row in rows(handle_time(place, by=["group"])) if row["group_id"] is not None][:10]
    chosen = [(f"group {row['group_id']}", row["p90_ms"], minutes(row["p90_ms"])) for row in found]
    return bars("Nine in ten segments took no longer than", chosen)


def by_end(place: Path) -> str:
    """Draw the share of each end reason."""
    found = rows(handle_time(place, by=["end-reason"]))
    whole = sum(row["segments"] for row in found)
    ordered = sorted(found, key=lambda row: -row["segments"])
    shares = [(row["end_reason"] or "none", 100 * row["segments"] / whole) for row in ordered]
    return bars("Segments by end reason", [(name, share, f"{share:.1f} %") for name, share in shares])


def by_week(place: Path, names: dict[int, str]) -> str:
    """Draw three skills from week to week."""
    found = [
        row for row in rows(handle_time(place, by=["skill"], every="1w", timezone=ZONE)) if row["skill_id"] in names
    ]
    chosen = sorted(found, key=lambda row: (names[row["skill_id"]], row["interval_start"]))[:9]
    named = [(f"{names[row['skill_id']]}, {row['interval_start'][5:10]}", *hours(row)) for row in chosen]
    return bars("Handle time by skill and week", named)


def finality(place: Path) -> str:
    """Draw the days that are held, that are provisional, and that are missing."""
    days = []
    for row in rows(handle_time(place, every="1d", timezone=ZONE, fill=True)):
        day = row["interval_start"][:10]
        state = "" if not row["provisional"] else "provisional" if row["segments"] else "missing"
        shown = f"{day}: {row['segments']:,} segments {state}"
        days.append((day, date.fromisoformat(day).weekday(), row["segments"], state, shown))
    return calendar("Days held; dashed: provisional, crossed: missing", days)


def stacked(title: str, charts: Sequence[tuple[str, str]]) -> str:
    """Return charts one below the other, each with its heading, as the report shows them."""
    top, body = 0, []
    for heading, chart in charts:
        height = int(chart.split('viewBox="0 0 ', 1)[1].split('"', 1)[0].split()[1])
        body.append(f'<text x="0" y="{top + 16}" font-weight="600">{heading}</text>')
        inner = chart[chart.index(">") + 1 : chart.rindex("</svg>")]
        body.append(f'<g transform="translate(0 {top + 28})">{inner}</g>')
        top += height + 52
    return f'<svg viewBox="0 0 640 {top}" role="img"><title>{title}</title>{"".join(body)}</svg>'


def main() -> None:
    """Draw all of them."""
    with TemporaryDirectory() as scratch, chdir(scratch):
        place = Path("segments")
        asyncio.run(fill(place))
        ids = [row["skill_id"] for row in rows(handle_time(place, by=["skill"])) if row["skill_id"] is not None]
        names = dict(zip(ids, SKILLS, strict=False))
        drawn = [
            by_day(place),
            by_conversation(place, names),
            by_quarter(place),
            by_hour(place),
            by_agent(place),
            slowest(place),
            by_end(place),
            by_week(place, names),
            finality(place),
            stacked(
                "The charts of the report",
                [
                    ("Days held", finality(place)),
                    ("Handle time by hour and weekday", by_hour(place)),
                    ("Handle time by agent", by_agent(place)),
                    ("Segments by end reason", by_end(place)),
                ],
            ),
        ]
        for number, chart in enumerate(drawn, 1):
            (FIGURES / f"handle-time-{number}.svg").write_text(standalone(str(chart)), encoding="utf-8")


if __name__ == "__main__":
    main()
