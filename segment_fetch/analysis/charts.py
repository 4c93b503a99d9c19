"""Charts as inline SVG: text that scales, a title and a description for screen readers, colours of the page's theme.

A charting library would add a hundred megabytes, or draw charts without text, titles or a dark theme. The returned
markup is safe: every text passed in is escaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

from markupsafe import Markup, escape

_ids = count(1)
_STEPS = 5  # shades of a heat map
WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def _svg(width: int, height: int, title: str, description: str, body: str) -> Markup:
    number = next(_ids)
    kind = ' class="wide"' if width >= 600 else ""  # a phone shrinks these to half: their texts are larger there
    return Markup(  # noqa: S704 - every text in it is escaped
        f'<svg{kind} viewBox="0 0 {width} {height}" role="img" aria-labelledby="t{number} d{number}" '
        f'style="max-width: {width}px"><title id="t{number}">{escape(title)}</title>'
        f'<desc id="d{number}">{escape(description)}</desc>{body}</svg>'
    )


def _text(x: float, y: float, words: object, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(words)}</text>'


def _shade(value: float, most: float) -> int:
    """Return the shade of a value: 0 for zero, else 1 to 5."""
    if value <= 0 or most <= 0:
        return 0
    return min(_STEPS, 1 + int(value / most * _STEPS * 0.9999))


def bars(title: str, rows: Sequence[tuple[str, float, str]]) -> Markup:
    """Return horizontal bars; a row is a name, a value, and the value as text."""
    most = max((value for _, value, _ in rows), default=0)
    body = []
    for at, (name, value, shown) in enumerate(rows):
        y = at * 24
        length = 340 * value / most if most > 0 else 0
        short = name if len(name) <= 24 else name[:23] + "…"
        body.append(_text(170, y + 16, short, anchor="end"))
        body.append(f'<rect class="bar" x="180" y="{y + 4}" width="{max(0.0, length):.1f}" height="16" rx="2"/>')
        body.append(_text(186 + max(0.0, length), y + 16, shown))
    described = "; ".join(f"{name}: {shown}" for name, _, shown in rows[:10])
    return _svg(640, max(24, 24 * len(rows)), title, described, "".join(body))


def week(title: str, values: Sequence[Sequence[float]], shown: Sequence[Sequence[str]]) -> Markup:
    """Return a heat map of the week: seven rows of 24 hourly values, and each value as text."""
    most = max((value for row in values for value in row), default=0)
    body = [_text(52 + hour * 24 + 11, 12, hour, "small", "middle") for hour in range(0, 24, 3)]
    for day, row in enumerate(values):
        body.append(_text(44, 20 + day * 22 + 15, WEEKDAYS[day], "small", "end"))
        for hour, value in enumerate(row):
            said = escape(f"{WEEKDAYS[day]} {hour:02d}:00: {shown[day][hour]}")
            body.append(
                f'<rect class="s{_shade(value, most)}" x="{52 + hour * 24}" y="{20 + day * 22}" width="22" height="20" '
                f'rx="2"><title>{said}</title></rect>'
            )
    return _svg(632, 176, title, "Darker is more; the table below has the figures.", "".join(body))


def calendar(title: str, days: Sequence[tuple[str, int, float, str, str]]) -> Markup:
    """Return a calendar of weeks; a day is date, weekday (Monday is 0), value, state, and description.

    A provisional day has a dashed border, a missing one a cross.
    """
    if not days:
        return Markup("")
    most = max(value for _, _, value, _, _ in days)
    first = days[0][1]
    columns = (first + len(days) + 6) // 7
    body = [_text(44, 24 + day * 24 + 15, WEEKDAYS[day], "small", "end") for day in range(7)]
    for at, (date, weekday, value, state, shown) in enumerate(days):
        column = (first + at) // 7
        x, y = 52 + column * 24, 24 + weekday * 24
        begins = date.endswith("-01") or (at == 0 and not any(day.endswith("-01") for day, *_ in days[1:21]))
        if begins:  # the first days of a range have no label where that of the next month needs the room
            body.append(_text(x, 14, date[:7], "small"))
        body.append(
            f'<rect class="s{_shade(value, most)} {state}" x="{x}" y="{y}" width="20" height="20" rx="2">'
            f"<title>{escape(shown)}</title></rect>"
        )
        if state == "missing":
            body.append(f'<path class="cross" d="M{x + 5} {y + 5}l10 10m0 -10l-10 10"/>')
    described = "Darker is more; dashed days are provisional, crossed ones missing. The table below has the figures."
    return _svg(max(160, 60 + columns * 24), 196, title, described, "".join(body))


def run(title: str, pace: Sequence[tuple[float, float]], refused: Sequence[float], seconds: float) -> Markup:
    """Return a chart of a run's pace, in requests a second by second, with the pauses after a 429 marked below."""
    most, span = max((rate for _, rate in pace), default=1.0) * 1.1, max(seconds, 0.001)
    left, top, width, height = 48, 12, 570, 130

    def x(at: float) -> float:
        return left + width * min(1.0, at / span)

    def y(rate: float) -> float:
        return top + height * (1 - rate / most)

    path, last = "", None
    for at, rate in pace:
        path += f"M{x(at):.1f} {y(rate):.1f}" if last is None else f"H{x(at):.1f}V{y(rate):.1f}"
        last = rate
    path += f"H{x(seconds):.1f}" if path else ""
    body = [
        f'<path class="axis" d="M{left} {top}V{top + height}H{left + width}"/>',
        _text(left - 6, y(most / 1.1) + 4, f"{most / 1.1:.0f}/s", "small", "end"),
        _text(left - 6, top + height, "0", "small", "end"),
        _text(left + width, top + height + 30, f"{seconds:.0f} s", "small", "end"),
        f'<path class="line" d="{path}"/>' if path else "",
        *(f'<path class="mark" d="M{x(at):.1f} {top + height + 4}v10"/>' for at in refused),
    ]
    described = f"{len(refused)} pauses after a 429 in {seconds:.0f} seconds; up to {most / 1.1:.0f} requests a second."
    return _svg(640, top + height + 36, title, described, "".join(body))
